"""The application that answers proxies: `/check` (Caddy, Traefik), `/check/nginx`, `/browser/`, and `/healthz`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as Path

from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, Overloaded, Unavailable
from sessiond.edge.check import Decision
from sessiond.edge.routes import Route
from sessiond.http.answers import REFUSAL, for_nginx, plain, refusal_in, unavailable
from sessiond.http.browser import BrowserPages
from sessiond.http.door import KEY_HEADER, Door
from sessiond.http.questions import by_name, route_in, web_request
from sessiond_client.gateway.actions import OUTAGE_SECONDS
from sessiond_client.gateway.request import WebRequest

__all__ = ["ForwardAuth"]

_log = structlog.get_logger(__name__)

Decide = Callable[[WebRequest, Route, Caller], Awaitable[Decision]]
Answer = Callable[[Decision, Sequence[str]], Response]


class ForwardAuth:
    """Answers the questions of proxies. `decide` decides about a request of a route, on behalf of a caller. `pages`
    serves the endpoints for pages; without it there are none.

    A question without a decision is answered with 500 (the proxy is not set up as it must be; the log has the reason)
    or 503, which no proxy takes for a permission.
    """

    def __init__(self, decide: Decide, door: Door, pages: BrowserPages | None = None) -> None:
        self._decide = decide
        self._door = door
        self._pages = pages
        self._is_stopping = False

    def application(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Path("/check", self._check_plain, methods=["GET"]),
            Path("/check/nginx", self._check_nginx, methods=["GET"]),
            Path("/check/nginx/refusal", self._refusal, methods=["GET"]),
            Path("/healthz", self._health, methods=["GET"]),
        ]
        if self._pages is not None:
            routes.append(Path("/browser/{application}/{path:path}", self._pages))
        return Starlette(routes=routes)

    def stop(self) -> None:
        """Report that the server stops, and end what would go on."""
        self._is_stopping = True
        if self._pages is not None:
            self._pages.close()

    async def _check_plain(self, request: Request) -> Response:
        return await self._answer(request, plain)

    async def _check_nginx(self, request: Request) -> Response:
        return await self._answer(request, for_nginx)

    async def _answer(self, request: Request, answer: Answer) -> Response:
        headers = by_name(request.headers.raw)
        try:
            route = route_in(request.scope["query_string"].decode("latin-1"))
            caller = self._door.identify(request, headers.get(KEY_HEADER, ()))
            with self._door.asking(caller, route.application):
                decision = await self._decide(web_request(headers), route, caller)
            return answer(decision, headers.get("cookie", ()))
        except (Unavailable, Overloaded):
            return unavailable(503, "Please try again in a moment.\n", retry_after=OUTAGE_SECONDS)
        except AuthorityError as error:
            self._door.warn(error)
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            _log.exception("call failed", rpc="Check")
        return unavailable(500, "The proxy of this site cannot ask about the request.\n")

    async def _refusal(self, request: Request) -> Response:
        try:
            self._door.identify(request, request.headers.getlist(KEY_HEADER))
        except AuthorityError:
            return refusal_in(())
        return refusal_in(request.headers.getlist(REFUSAL))

    async def _health(self, _: Request) -> Response:
        if self._is_stopping:
            return PlainTextResponse("stopping\n", 503)
        return PlainTextResponse("serving\n")
