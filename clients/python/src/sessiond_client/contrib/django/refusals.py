"""The responses to requests that are not served."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.urls import get_callable
from django.utils.log import log_response

from sessiond_client.contrib.django.configuration import refusal_view
from sessiond_client.errors import SessiondError
from sessiond_client.gateway import OUTAGES, Action, Refusal, Refused

__all__ = ["refusal_for", "respond"]

_LOGGERS = {Action.CSRF_ERROR: logging.getLogger("django.security.csrf")}
_LOGGER = logging.getLogger("django.request")
_REASON = "CSRF token missing or incorrect, or the request comes from another site."


def respond(request: Any, refusal: Refusal) -> Any:
    """The response: that of `REFUSAL_VIEW`, of `CSRF_FAILURE_VIEW` for a page, or otherwise the gateway's."""
    request.sessiond.is_refused = True
    view = refusal_view()
    response = view(request, refusal) if view is not None else None
    if response is None:
        response = _default(request, refusal)
    if response.status_code >= 400:
        logger = _LOGGERS.get(refusal.action, _LOGGER)
        log_response("%s: %s", refusal.error, request.path, response=response, request=request, logger=logger)
    return response


def refusal_for(request: Any, error: BaseException) -> Refusal | None:
    """The refusal that an exception means; None if it means none."""
    exchange = request.sessiond.exchange
    if isinstance(error, Refused):
        return error.refusal
    if isinstance(error, SessiondError) and isinstance(error, OUTAGES):
        unavailable: Refusal = exchange.refusal(exchange.failed(error))
        return unavailable
    return None


def _default(request: Any, refusal: Refusal) -> Any:
    is_page = request.sessiond.exchange.request.is_page
    if refusal.action is Action.CSRF_ERROR and (is_page or settings.is_overridden("CSRF_FAILURE_VIEW")):
        return get_callable(settings.CSRF_FAILURE_VIEW)(request, reason=_REASON)
    content_type, body = refusal.body(page=is_page)
    return HttpResponse(body, status=refusal.status, content_type=content_type, headers=dict(refusal.headers))
