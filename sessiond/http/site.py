"""The ASGI application for proxies: the paths at which they ask, and `/healthz`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.domain.errors import AuthorityError
from sessiond.http.answers import Answer, answer
from sessiond.http.forward_auth import CALL, KEY_HEADER, PATHS, ForwardAuth
from sessiond.http.questions import Headers
from sessiond.rpc.auditing import AuditedCalls

__all__ = ["ProxySite", "Respond", "identifying"]

Respond = Callable[[Scope], Awaitable[Answer]]
"""Answers a question of a proxy, which is an ASGI scope of HTTP."""


class ProxySite:
    """Serves proxies. `respond` answers what they ask; `is_serving` says whether it can, for health checks."""

    def __init__(self, respond: Respond, is_serving: Callable[[], Awaitable[bool]] | None = None) -> None:
        self._respond = respond
        self._is_serving = is_serving
        self.is_stopping = False

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [Route(path, _Answering(self._respond), methods=["GET"]) for path in PATHS]
        return Starlette(routes=[*routes, Route("/healthz", _Answering(self._health), methods=["GET"])])

    async def _health(self, _: Scope) -> Answer:
        status, text = 200, b"serving\n"
        if self.is_stopping:
            status, text = 503, b"stopping\n"
        elif self._is_serving is not None and not await self._is_serving():
            status, text = 503, b"not serving\n"
        return answer(status, [("content-type", "text/plain; charset=utf-8")], text)


class _Answering:
    """An ASGI application that answers each request of a path.

    Starlette calls it as it is, without the objects for requests and responses that it makes for a function.
    """

    def __init__(self, respond: Respond) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = await self._respond(scope)
        await send({"type": "http.response.start", "status": found.status, "headers": found.headers})
        await send({"type": "http.response.body", "body": found.body})


def identifying(auth: ForwardAuth, callers: Callers, limiter: CallLimiter) -> Respond:
    """Return what answers the questions of callers that prove who they are by a key.

    `limiter` counts the calls of each caller, over gRPC too.
    """
    audited = AuditedCalls(callers.audit)

    async def respond(scope: Scope) -> Answer:
        headers, path = Headers(scope["headers"]), scope["path"]
        keys = [("authorization", key) for key in headers.get(KEY_HEADER)]
        try:
            caller = audited.identify(CALL, callers, _peer(scope), keys)
            account = limiter.begin(caller)
        except AuthorityError as error:
            return auth.without_decision(path, error)
        try:
            return await auth.answer(path, scope["query_string"].decode("latin-1"), headers, caller)
        finally:
            account.end()

    return respond


def _peer(scope: Scope) -> str:
    client = scope["client"]
    if client is None:
        return "unix:"
    host, port = client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
