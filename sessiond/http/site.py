"""The ASGI application for proxies: the paths at which they ask, `/browser/` for pages, and `/healthz`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sessiond.domain.errors import AuthorityError
from sessiond.http.answers import Answer, answer
from sessiond.http.asgi import send_answer
from sessiond.http.browser import PAGES, BrowserPages
from sessiond.http.calls import begin_request, end_request, identified
from sessiond.http.door import Door
from sessiond.http.forward_auth import PATHS, ForwardAuth
from sessiond.http.questions import Headers
from sessiond.system.ongoing import Tracer

__all__ = ["ProxySite", "Respond", "identifying"]

Respond = Callable[[Scope], Awaitable[Answer]]
"""Answers a question of a proxy, which is an ASGI scope of HTTP."""


class ProxySite:
    """Serves proxies. `respond` answers what they ask; `is_serving` says whether it can, for health checks. `pages`
    serves the endpoints for pages; without it there are none. `tracer` begins the spans of questions; None: they are
    not traced."""

    def __init__(
        self,
        respond: Respond,
        is_serving: Callable[[], Awaitable[bool]] | None = None,
        pages: BrowserPages | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._respond = respond
        self._is_serving = is_serving
        self._pages = pages
        self._tracer = tracer
        self._is_stopping = False

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [Route(path, _Answering(self._respond, self._tracer), methods=["GET"]) for path in PATHS]
        if self._pages is not None:
            routes.append(Route(PAGES, self._pages))
        return Starlette(routes=[*routes, Route("/healthz", _Answering(self._health), methods=["GET"])])

    def stop(self) -> None:
        """Report that the server stops, and end what would go on."""
        self._is_stopping = True
        if self._pages is not None:
            self._pages.close()

    async def _health(self, _: Scope) -> Answer:
        status, text = 200, b"serving\n"
        if self._is_stopping:
            status, text = 503, b"stopping\n"
        elif self._is_serving is not None and not await self._is_serving():
            status, text = 503, b"not serving\n"
        return answer(status, [("content-type", "text/plain; charset=utf-8")], text)


class _Answering:
    """An ASGI application that answers each request of a path.

    Starlette calls it as it is, without the objects for requests and responses that it makes for a function.
    """

    def __init__(self, respond: Respond, tracer: Tracer | None = None) -> None:
        self._respond = respond
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, status = begin_request(scope, scope["path"], self._tracer), 500
        try:
            answer = identified(await self._respond(scope), call)
            status = answer.status
            await send_answer(answer, send)
        finally:
            end_request(call, status)


def identifying(auth: ForwardAuth, door: Door) -> Respond:
    """Return what answers the questions of callers that prove who they are by a key."""

    async def respond(scope: Scope) -> Answer:
        headers, path = Headers(scope["headers"]), scope["path"]
        try:
            with door.asking(scope, headers) as caller:
                return await auth.answer(path, scope["query_string"].decode("latin-1"), headers, caller)
        except AuthorityError as error:
            return auth.without_decision(path, error)

    return respond
