"""The application that answers proxies: `/check` (Caddy, Traefik), `/check/nginx`, and `/healthz`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

import structlog
from starlette.applications import Starlette
from starlette.routing import Route as Path
from starlette.types import Receive, Scope, Send

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, InvalidField, Overloaded, Unavailable
from sessiond.edge.check import Decision
from sessiond.edge.routes import Route
from sessiond.http.answers import REFUSAL, Answer, answer, for_nginx, plain, refusal_in, unavailable
from sessiond.http.questions import Headers, route_in, web_request
from sessiond.rpc.auditing import AuditedCalls
from sessiond_client.gateway.actions import OUTAGE_SECONDS
from sessiond_client.gateway.request import WebRequest

__all__ = ["KEY_HEADER", "Answering", "ForwardAuth"]

KEY_HEADER = "x-session-key"
"""In which the proxy sends its own key, as `Bearer KEY`. `Authorization` is the client's."""
_CALL = "Check"
"""As which call a question counts, for roles and in the audit log: it is Envoy's in another form."""
_AUTHORIZATION = "authorization"
_WINDOW, _MOST_WARNINGS = 60.0, 100
"""Seconds in which no reason is logged twice, and how many reasons at most."""
_log = structlog.get_logger(__name__)

Decide = Callable[[WebRequest, Route, Caller], Awaitable[Decision]]
Form = Callable[[Decision, Sequence[str]], Answer]


class Answering:
    """An ASGI application that answers each request of a path.

    Starlette calls it as it is, without the objects for requests and responses that it makes for a function.
    """

    def __init__(self, respond: Callable[[Scope], Awaitable[Answer]]) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = await self._respond(scope)
        await send({"type": "http.response.start", "status": found.status, "headers": found.headers})
        await send({"type": "http.response.body", "body": found.body})


class ForwardAuth:
    """Answers the questions of proxies. `decide` decides about a request of a route, on behalf of a caller. `limiter`
    counts the calls of each caller, over gRPC too.

    A question without a decision is answered with 500 (the proxy is not set up as it must be; the log has the reason)
    or 503, which no proxy takes for a permission.
    """

    def __init__(self, decide: Decide, callers: Callers, limiter: CallLimiter | None = None) -> None:
        self._decide = decide
        self._callers = callers
        self._limiter = limiter or CallLimiter()
        self._audited = AuditedCalls(callers.audit)
        self._warned: set[str] = set()
        self.is_stopping = False

    def application(self) -> Starlette:
        """Return the ASGI application."""
        answers = {
            "/check": self._check_plain,
            "/check/nginx": self._check_nginx,
            "/check/nginx/refusal": self._refusal,
        }
        paths = [Path(path, Answering(respond), methods=["GET"]) for path, respond in answers.items()]
        return Starlette(routes=[*paths, Path("/healthz", Answering(self._health), methods=["GET"])])

    async def _check_plain(self, scope: Scope) -> Answer:
        return await self._answer(scope, plain)

    async def _check_nginx(self, scope: Scope) -> Answer:
        return await self._answer(scope, for_nginx)

    async def _answer(self, scope: Scope, form: Form) -> Answer:
        headers = Headers(scope["headers"])
        try:
            route = route_in(scope["query_string"].decode("latin-1"))
            caller = self._caller(scope, headers)
            account = self._limiter.begin(caller)
            try:
                self._audited.authorize_for(_CALL, route.application, caller)
                decision = await self._decide(web_request(headers), route, caller)
            finally:
                account.end()
            return _formed(decision, form, headers)
        except (Unavailable, Overloaded):
            return unavailable(503, "Please try again in a moment.\n", retry_after=OUTAGE_SECONDS)
        except AuthorityError as error:
            self._warn(error)
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            _log.exception("call failed", rpc=_CALL)
        return unavailable(500, "The proxy of this site cannot ask about the request.\n")

    def _caller(self, scope: Scope, headers: Headers) -> Caller:
        client = scope["client"]
        peer = "unix:" if client is None else _peer(*client)
        keys = [(_AUTHORIZATION, key) for key in headers.get(KEY_HEADER)]
        return self._audited.identify(_CALL, self._callers, peer, keys)

    def _warn(self, error: AuthorityError) -> None:
        """Log why the proxy cannot ask, once a minute for each reason: it asks about every request."""
        reason = f"{error.field}: {error.remedy}" if isinstance(error, InvalidField) else error.public
        if reason in self._warned or len(self._warned) >= _MOST_WARNINGS:
            return
        if not self._warned:
            asyncio.get_running_loop().call_later(_WINDOW, self._warned.clear)
        self._warned.add(reason)
        _log.warning("proxy refused", reason=reason, effect="it lets no request pass")

    async def _refusal(self, scope: Scope) -> Answer:
        headers = Headers(scope["headers"])
        try:
            self._caller(scope, headers)
        except AuthorityError:
            return refusal_in(())
        return refusal_in(headers.get(REFUSAL))

    async def _health(self, _: Scope) -> Answer:
        if self.is_stopping:
            return unavailable(503, "stopping\n")
        return answer(200, [("content-type", "text/plain; charset=utf-8")], b"serving\n")


def _formed(decision: Decision, form: Form, headers: Headers) -> Answer:
    """Return the answer of a decision, which may have been made about an earlier request with the same cookies."""
    if not decision.names_cookie:
        return form(decision, headers.get("cookie"))  # this has the token, so it is not kept
    found: Answer | None = decision.made.get(form)
    if found is None:
        found = decision.made[form] = form(decision, headers.get("cookie"))
    return found


@lru_cache(maxsize=1024)
def _peer(host: str, port: int) -> str:
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
