"""The ASGI application for proxies: the paths at which they ask, `/browser/` for pages, and `/healthz`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sessiond.domain.errors import AuthorityError
from sessiond.http.answers import Answer, answer
from sessiond.http.asgi import send_answer
from sessiond.http.browser import BrowserPages
from sessiond.http.door import Door
from sessiond.http.forward_auth import PATHS, ForwardAuth
from sessiond.http.questions import Headers

__all__ = ["ProxySite", "Respond", "identifying"]

Respond = Callable[[Scope], Awaitable[Answer]]
"""Answers a question of a proxy, which is an ASGI scope of HTTP."""


class ProxySite:
    """Serves proxies. `respond` answers what they ask; `is_serving` says whether it can, for health checks. `pages`
    serves the endpoints for pages; without it there are none."""

    def __init__(
        self,
        respond: Respond,
        is_serving: Callable[[], Awaitable[bool]] | None = None,
        pages: BrowserPages | None = None,
    ) -> None:
        self._respond = respond
        self._is_serving = is_serving
        self._pages = pages
        self._is_stopping = False

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [Route(path, _Answering(self._respond), methods=["GET"]) for path in PATHS]
        if self._pages is not None:
            routes.append(Route("/browser/{application}/{path:path}", self._pages))
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

    def __init__(self, respond: Respond) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_answer(await self._respond(scope), send)


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
