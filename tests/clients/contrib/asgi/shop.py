"""A shop in Starlette with sessions in sessiond, and a browser that visits it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx2
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from sessiond_client.contrib.asgi import (
    SessiondMiddleware,
    csrf_token,
    current_session,
    current_subject,
    devices,
    end_device,
    login,
    logout,
    logout_everywhere,
    requires,
    safe_path,
)

__all__ = ["AGENT", "COOKIE", "HOST", "Browser", "Counter", "living", "opened", "plain", "shop", "visiting"]

HOST = "shop.example"
COOKIE = "__Host-id"
AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0"
PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


class Counter(grpc.aio.UnaryUnaryClientInterceptor):
    """Counts the calls of a client, and passes them on."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.requests: list[Any] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Count one call."""
        method = details.method if isinstance(details.method, str) else details.method.decode()
        self.requests.append(request)
        self.calls.append(method.rpartition("/")[2])
        return await continuation(details, request)


async def _home(request: Request) -> Response:
    return JSONResponse({"subject": current_subject(request), "cart": request.session.get("cart", [])})


async def _static(request: Request) -> Response:
    return PlainTextResponse("no session here")


async def _add(request: Request) -> Response:
    request.session.setdefault("cart", []).append("cup")
    return JSONResponse(request.session["cart"])


async def _login(request: Request) -> Response:
    query = request.query_params
    await login(request, query.get("user", "alice"), level=int(query.get("level", "1")))
    return RedirectResponse(safe_path(query.get("next")), 303)


async def _logout(request: Request) -> Response:
    await logout(request)
    return RedirectResponse("/", 303)


async def _logout_everywhere(request: Request) -> Response:
    return JSONResponse(await logout_everywhere(request))


async def _devices(request: Request) -> Response:
    rows = await devices(request)
    return JSONResponse([{"id": row.session_id, "current": row.is_current, "what": row.description} for row in rows])


async def _end_device(request: Request) -> Response:
    return JSONResponse(await end_device(request, request.query_params["id"]))


async def _token(request: Request) -> Response:
    return PlainTextResponse(await csrf_token(request))


async def _form(request: Request) -> Response:
    async with request.form() as form:
        sizes = {name: value if isinstance(value, str) else len(await value.read()) for name, value in form.items()}
    return JSONResponse(sizes)


@requires()
async def _account(request: Request) -> Response:
    session = current_session(request)
    return JSONResponse({"session_id": session.session_id if session else ""})


class _Payment(HTTPEndpoint):
    @requires(level=2)
    def get(self, request: Request) -> Response:
        """Pay, in the thread pool."""
        return PlainTextResponse("paid")


def shop(target: str, *more: Route, **options: Any) -> Starlette:
    """The shop, connected to an authority."""
    post = ["POST"]
    app = Starlette(
        routes=[
            Route("/", _home),
            Route("/static", _static),
            Route("/cart", _add, methods=post),
            Route("/login", _token),
            Route("/login", _login, methods=post),
            Route("/logout", _logout, methods=post),
            Route("/logout-everywhere", _logout_everywhere, methods=post),
            Route("/devices", _devices),
            Route("/devices", _end_device, methods=post),
            Route("/token", _token),
            Route("/form", _form, methods=post),
            Route("/account", _account),
            Route("/payment", _Payment),
            *more,
        ]
    )
    chosen: Any = {"near_cache": False, **options}
    app.add_middleware(SessiondMiddleware, target=target, **chosen)
    return app


@asynccontextmanager
async def living(app: Any) -> AsyncIterator[None]:
    """Run the lifespan of an application, as a server does."""
    to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    running = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}}, to_app.get, from_app.put))
    for step in ("startup", "shutdown"):
        await to_app.put({"type": f"lifespan.{step}"})
        assert await from_app.get() == {"type": f"lifespan.{step}.complete"}
        if step == "startup":
            try:
                yield
            except BaseException:
                running.cancel()
                raise
    await running


class Browser:
    """A browser with its own cookies. Its requests come from pages of the shop unless headers say otherwise."""

    def __init__(self, app: Any, *, address: str = "192.0.2.10", client: httpx2.AsyncClient | None = None) -> None:
        transport = httpx2.ASGITransport(app=app, client=(address, 50_000))
        self.http = client or httpx2.AsyncClient(
            transport=transport, base_url=f"https://{HOST}", headers={"User-Agent": AGENT, "Accept": "application/json"}
        )

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name."""
        return {cookie.name: cookie.value or "" for cookie in self.http.cookies.jar}

    @cookies.setter
    def cookies(self, values: Mapping[str, str]) -> None:
        self.http.cookies.clear()
        for name, value in values.items():
            self.http.cookies.set(name, value, domain=HOST)

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        """Get a page."""
        return await self.http.get(path, headers=_named(headers))

    async def post(self, path: str, *, token: str | None = None, **headers: str) -> httpx2.Response:
        """Send a form without fields from a page of the shop, whose CSRF token is fetched unless it is given."""
        if token is None and self.cookies:
            token = (await self.get("/token")).text
        sent = {"Sec-Fetch-Site": "same-origin", "X-CSRF-Token": token or "", **_named(headers)}
        return await self.http.post(path, headers={name: value for name, value in sent.items() if value})

    async def log_in(self, user: str = "alice", level: int = 1) -> httpx2.Response:
        """Log in."""
        answer = await self.post(f"/login?user={user}&level={level}")
        assert answer.status_code == 303, answer.text
        return answer

    async def seen(self) -> Any:
        """The user and the cart that the shop sees."""
        answer = await self.get("/")
        assert answer.status_code == 200, answer.text
        return answer.json()


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@asynccontextmanager
async def opened(app: Any) -> AsyncIterator[Browser]:
    """A running application, and a browser that visits it."""
    async with living(app):
        browser = Browser(app)
        async with browser.http:
            yield browser


def visiting(target: str, *more: Route, **options: Any) -> Any:
    """The shop, and a browser that visits it."""
    return opened(shop(target, *more, **options))


def plain(handler: Callable[[Any, Any, Any], Awaitable[None]], target: str, **options: Any) -> SessiondMiddleware:
    """An application without a framework: `handler` serves requests and WebSockets."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await handler(scope, receive, send)
            return
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    chosen: Any = {"near_cache": False, **options}
    return SessiondMiddleware(app, target, **chosen)
