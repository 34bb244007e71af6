"""CSRF tokens for Django's templates and decorators: sessiond's own, under Django's names.

`{% csrf_token %}`, `csrf_input` and `get_token` give the session's CSRF token, in a form that differs each time. It
arrives in the form field `csrfmiddlewaretoken` or the header that `CSRF_HEADER_NAME` names. There is no CSRF cookie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import django.middleware.csrf
import django.template.backends.utils
import django.template.context_processors
import django.views.decorators.csrf
from django.middleware.csrf import CsrfViewMiddleware as DjangoCsrfViewMiddleware
from django.utils.decorators import decorator_from_middleware
from django.utils.functional import lazy

from sessiond_client.contrib.django.refusals import respond
from sessiond_client.contrib.django.visit import masked
from sessiond_client.gateway import Action, account

__all__ = ["CsrfViewMiddleware", "csrf_protect", "install", "is_enforced", "page_token"]

_GETTERS = (
    django.middleware.csrf,
    django.template.context_processors,
    django.template.backends.utils,
    django.views.decorators.csrf,
)
_of_django: Callable[[Any], str] = django.middleware.csrf.get_token


def get_token(request: Any) -> str:
    """Django's `get_token`; for a request of `SessiondMiddleware` the session's CSRF token, empty if there is none."""
    return _of_django(request) if getattr(request, "sessiond", None) is None else page_token(request)


def install() -> None:
    """Have Django's templates use `get_token` of this module.

    Django has no setting for it: its own would create a secret in a cookie, which no authority knows.
    """
    for module in _GETTERS:
        if module.get_token is _of_django:
            module.get_token = get_token
    django.template.backends.utils.csrf_token_lazy = lazy(get_token, str)  # for engines such as Jinja2


def page_token(request: Any) -> str:
    """The CSRF token for a page; empty if there can be none. A guest without a session gets one for it."""
    visit = request.sessiond
    visit.open()
    visit.admit()
    visit.run(request.session.state.settle())  # a flush before it ends the session whose token it would be
    visit.run(account.csrf_token(visit.exchange))
    return masked(visit.exchange.csrf) if visit.exchange.csrf is not None else ""


def is_enforced(request: Any, view: Any) -> bool | None:
    """Whether a view needs the CSRF token, as for `Exchange.open`. None: as method and settings say."""
    exempt = getattr(view, "csrf_exempt", False) or getattr(request, "_dont_enforce_csrf_checks", False)
    return False if exempt else None


class CsrfViewMiddleware(DjangoCsrfViewMiddleware):  # type: ignore[misc]  # Django has no types
    """In the place of Django's middleware of this name. It has its checks made by the authority, and sets no cookie.

    `SessiondMiddleware` makes the same check before every view that needs it, so in `MIDDLEWARE` this adds nothing but
    what Django's own checks ask for. As the decorator `csrf_protect` it protects a view that is exempt otherwise.
    """

    def process_request(self, request: Any) -> None:
        """Nothing: the session has the token."""

    def process_view(self, request: Any, callback: Any, callback_args: Any, callback_kwargs: Any) -> Any:
        """Check the token, if `SessiondMiddleware` has not."""
        if getattr(request, "csrf_processing_done", False) or is_enforced(request, callback) is False:
            return None
        visit = request.sessiond
        if not visit.exchange.request.is_safe:
            action = visit.guard(csrf=None)
            if action is not Action.PROCEED:
                return respond(request, visit.exchange.refusal(action))
        return self._accept(request)

    def process_response(self, request: Any, response: Any) -> Any:
        """Nothing: there is no cookie."""
        return response


csrf_protect = decorator_from_middleware(CsrfViewMiddleware)
csrf_protect.__doc__ = """Require the CSRF token for a view that is exempt otherwise.

Use it instead of Django's decorator of this name inside of `csrf_exempt`; elsewhere Django's works too."""
