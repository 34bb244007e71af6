"""The application that answers proxies: `/check` (Caddy, Traefik), `/check/nginx`, and `/healthz`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as Path

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, InvalidField, Overloaded, Unavailable
from sessiond.edge.check import Decision
from sessiond.edge.routes import Route
from sessiond.http.answers import REFUSAL, for_nginx, plain, refusal_in, unavailable
from sessiond.http.questions import by_name, route_in, web_request
from sessiond.rpc.auditing import AuditedCalls
from sessiond_client.gateway.actions import OUTAGE_SECONDS
from sessiond_client.gateway.request import WebRequest

__all__ = ["KEY_HEADER", "ForwardAuth"]

KEY_HEADER = "x-session-key"
"""In which the proxy sends its own key, as `Bearer KEY`. `Authorization` is the client's."""
_CALL = "Check"
"""As which call a question counts, for roles and in the audit log: it is Envoy's in another form."""
_AUTHORIZATION = "authorization"
_WINDOW, _MOST_WARNINGS = 60.0, 100
"""Seconds in which no reason is logged twice, and how many reasons at most."""
_log = structlog.get_logger(__name__)

Decide = Callable[[WebRequest, Route, Caller], Awaitable[Decision]]
Answer = Callable[[Decision, Sequence[str]], Response]


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
        return Starlette(
            routes=[
                Path("/check", self._check_plain, methods=["GET"]),
                Path("/check/nginx", self._check_nginx, methods=["GET"]),
                Path("/check/nginx/refusal", self._refusal, methods=["GET"]),
                Path("/healthz", self._health, methods=["GET"]),
            ]
        )

    async def _check_plain(self, request: Request) -> Response:
        return await self._answer(request, plain)

    async def _check_nginx(self, request: Request) -> Response:
        return await self._answer(request, for_nginx)

    async def _answer(self, request: Request, answer: Answer) -> Response:
        headers = by_name(request.headers.raw)
        try:
            route = route_in(request.scope["query_string"].decode("latin-1"))
            caller = self._caller(request, headers.get(KEY_HEADER, ()))
            account = self._limiter.begin(caller)
            try:
                self._audited.authorize_for(_CALL, route.application, caller)
                decision = await self._decide(web_request(headers), route, caller)
            finally:
                account.end()
            return answer(decision, headers.get("cookie", ()))
        except (Unavailable, Overloaded):
            return unavailable(503, "Please try again in a moment.\n", retry_after=OUTAGE_SECONDS)
        except AuthorityError as error:
            self._warn(error)
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            _log.exception("call failed", rpc=_CALL)
        return unavailable(500, "The proxy of this site cannot ask about the request.\n")

    def _caller(self, request: Request, keys: Sequence[str]) -> Caller:
        peer = "unix:" if request.client is None else _peer(request.client.host, request.client.port)
        return self._audited.identify(_CALL, self._callers, peer, [(_AUTHORIZATION, key) for key in keys])

    def _warn(self, error: AuthorityError) -> None:
        """Log why the proxy cannot ask, once a minute for each reason: it asks about every request."""
        reason = f"{error.field}: {error.remedy}" if isinstance(error, InvalidField) else error.public
        if reason in self._warned or len(self._warned) >= _MOST_WARNINGS:
            return
        if not self._warned:
            asyncio.get_running_loop().call_later(_WINDOW, self._warned.clear)
        self._warned.add(reason)
        _log.warning("proxy refused", reason=reason, effect="it lets no request pass")

    async def _refusal(self, request: Request) -> Response:
        try:
            self._caller(request, request.headers.getlist(KEY_HEADER))
        except AuthorityError:
            return refusal_in(())
        return refusal_in(request.headers.getlist(REFUSAL))

    async def _health(self, _: Request) -> Response:
        if self.is_stopping:
            return PlainTextResponse("stopping\n", 503)
        return PlainTextResponse("serving\n")


def _peer(host: str, port: int) -> str:
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
