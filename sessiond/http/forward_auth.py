"""Answers to what proxies ask about each request, however the question arrives.

The paths are `/check` (Caddy, Traefik), `/check/nginx`, and `/check/nginx/refusal`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError
from sessiond.edge.check import Decision
from sessiond.edge.routes import Route
from sessiond.http.answers import REFUSAL, Answer, for_nginx, misconfigured, plain, refusal_in
from sessiond.http.questions import Headers, route_in, web_request
from sessiond.http.refusals import LoggedRefusals
from sessiond.rpc.auditing import AuditedCalls
from sessiond.system.failures import log_failure
from sessiond_client.gateway.request import WebRequest

__all__ = ["CALL", "KEY_HEADER", "PATHS", "ForwardAuth"]

KEY_HEADER = "x-session-key"
"""In which the proxy sends its own key, as `Bearer KEY`. `Authorization` is the client's."""
CALL = "Check"
"""As which call a question counts, for roles and in the audit log: it is Envoy's in another form."""
_PLAIN, _NGINX, _REFUSAL = "/check", "/check/nginx", "/check/nginx/refusal"
PATHS = (_PLAIN, _NGINX, _REFUSAL)
_log = structlog.get_logger(__name__)

Decide = Callable[[WebRequest, Route, Caller], Awaitable[Decision]]
Form = Callable[[Decision, Sequence[str]], Answer]


class ForwardAuth:
    """Answers the questions of callers that have been identified. `decide` decides about a request of a route.

    A question without a decision is answered with 500 (the proxy is not set up as it must be; the log has the reason)
    or 503, which no proxy takes for a permission.
    """

    def __init__(self, decide: Decide, audited: AuditedCalls) -> None:
        self._decide = decide
        self._audited = audited
        self._refusals = LoggedRefusals()

    async def answer(self, path: str, query: str, headers: Headers, caller: Caller) -> Answer:
        """Answer a question that was asked at one of the paths."""
        if path == _REFUSAL:
            return refusal_in(headers.get(REFUSAL))
        try:
            route = route_in(query)
            self._audited.authorize_for(CALL, route.application, caller)
            decision = await self._decide(web_request(headers), route, caller)
            return _formed(decision, for_nginx if path == _NGINX else plain, headers)
        except AuthorityError as error:
            return self.without_decision(path, error)
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            log_failure(_log, "call failed", rpc=CALL)
        return misconfigured()

    def without_decision(self, path: str, error: AuthorityError) -> Answer:
        """Return the answer to a question that nobody decides about, because of this error."""
        if path == _REFUSAL:
            return refusal_in(())
        return self._refusals.after(error)


def _formed(decision: Decision, form: Form, headers: Headers) -> Answer:
    """Return the answer of a decision, which may have been made about an earlier request with the same cookies."""
    if not decision.names_cookie:
        return form(decision, headers.get("cookie"))  # this has the token, so it is not kept
    found: Answer | None = decision.made.get(form)
    if found is None:
        found = decision.made[form] = form(decision, headers.get("cookie"))
    return found
