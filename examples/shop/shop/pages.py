"""The pages of the shop, the same in both forms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import Lifespan
from starlette.websockets import WebSocket

from sessiond_client.gateway import safe_path
from shop.headers import SecurityHeaders
from shop.orders import GOODS, Orders, total
from shop.sessions import Sessions
from shop.users import USERS, code_is_right, password_is_right

__all__ = ["shop"]

_FOLDER = Path(__file__).parent
_MOST_ITEMS = 50
_LOOK_AGAIN = 0.25
"""Seconds between two looks for changed orders."""


def shop(
    sessions: Sessions,
    middleware: Sequence[Middleware] = (),
    lifespan: Lifespan[Any] | None = None,
    feed_seconds: float | None = None,
) -> Starlette:
    """The shop as an application. `feed_seconds`: after how long a feed must be opened again; None: never."""
    pages = _Pages(sessions, feed_seconds)
    routes = [
        Route("/", pages.home),
        Route("/cart", pages.cart),
        Route("/cart", pages.add, methods=["POST"]),
        Route("/login", pages.login_page),
        Route("/login", pages.log_in, methods=["POST"]),
        Route("/account/orders", pages.orders),
        Route("/account/orders", pages.order, methods=["POST"]),
        WebSocketRoute("/account/feed", pages.feed),
        Route("/account/profile", pages.profile),
        Route("/account/profile/edit", pages.edit),
        Route("/account/profile/edit", pages.change, methods=["POST"]),
        Route("/account/confirm", pages.confirm_page),
        Route("/account/confirm", pages.confirm, methods=["POST"]),
        Route("/account/devices", pages.devices),
        Route("/admin", pages.admin),
        Mount("/static", StaticFiles(directory=_FOLDER / "static"), name="static"),
    ]
    return Starlette(routes=routes, middleware=[Middleware(SecurityHeaders), *middleware], lifespan=lifespan)


class _Pages:
    """The handlers. Nothing here depends on how sessions come about."""

    def __init__(self, sessions: Sessions, feed_seconds: float | None) -> None:
        self._sessions = sessions
        self._feed_seconds = feed_seconds
        self._orders = Orders()
        self._templates = Jinja2Templates(directory=_FOLDER / "templates")
        self._templates.env.filters["money"] = lambda cents: f"{cents / 100:.2f} €"

    async def home(self, request: Request) -> Response:
        """The goods."""
        return await self._page(request, "home.html", goods=GOODS.values())

    async def cart(self, request: Request) -> Response:
        """The visitor's cart."""
        items = await self._sessions.cart(request)
        return await self._page(request, "cart.html", items=[GOODS[item] for item in items], total=total(items))

    async def add(self, request: Request) -> Response:
        """Put an article into the cart."""
        item = str((await request.form()).get("item", ""))
        if item not in GOODS:
            raise HTTPException(400, "There is no such article.")
        items = await self._sessions.cart(request)
        if len(items) >= _MOST_ITEMS:
            raise HTTPException(400, "The cart is full.")
        response = RedirectResponse("/cart", 303)
        await self._sessions.keep_cart(request, response, [*items, item])
        return response

    async def login_page(self, request: Request) -> Response:
        """The form for a login, or for a stronger one of a user who is logged in."""
        response = await self._page(request, "login.html", needs_code="min_level" in request.query_params)
        await self._sessions.prepare_login(request, response)
        return response

    async def log_in(self, request: Request) -> Response:
        """Check a password, and the code if a page needs a second factor."""
        form, visitor = await request.form(), await self._sessions.visitor(request)
        name, needs_code = visitor.subject or str(form.get("user", "")), "min_level" in request.query_params
        if not await _right(name, form) or (needs_code and not code_is_right(str(form.get("code", "")))):
            return await self._page(request, "login.html", 403, needs_code=needs_code, problem="That is not right.")
        response = RedirectResponse(safe_path(request.query_params.get("next")), 303)
        level, methods = (2, ("pwd", "otp")) if needs_code else (1, ("pwd",))
        await self._sessions.log_in(request, response, name, level, methods)
        return response

    async def orders(self, request: Request) -> Response:
        """The user's orders. The page's script keeps the list up to date."""
        subject = await self._sessions.require_login(request)
        return await self._page(request, "orders.html", orders=self._orders.rows(subject))

    async def order(self, request: Request) -> Response:
        """Order what is in the cart."""
        subject = await self._sessions.require_login(request)
        response = RedirectResponse("/account/orders", 303)
        if items := await self._sessions.cart(request):
            self._orders.place(subject, items)
            await self._sessions.keep_cart(request, response, [])
        return response

    async def feed(self, socket: WebSocket) -> None:
        """Send the user's orders, and again whenever one of them changes."""
        subject = await self._sessions.require_login(socket)
        await socket.accept()
        sending = asyncio.create_task(self._send_orders(socket, subject))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._feed_seconds):
                    while (await socket.receive())["type"] != "websocket.disconnect":
                        pass
                    return
            await socket.close(1012, "open it again")
        finally:
            sending.cancel()

    async def _send_orders(self, socket: WebSocket, subject: str) -> None:
        sent = None
        while True:
            if (rows := self._orders.rows(subject)) != sent:
                await socket.send_text(json.dumps(rows))
                sent = rows
            await asyncio.sleep(_LOOK_AGAIN)

    async def profile(self, request: Request) -> Response:
        """The user's address."""
        user = USERS[await self._sessions.require_login(request)]
        return await self._page(request, "profile.html", user=user)

    async def edit(self, request: Request) -> Response:
        """The form for another address. It needs the companion cookie."""
        user = USERS[await self._sessions.require_confirmation(request)]
        return await self._page(request, "edit.html", user=user)

    async def change(self, request: Request) -> Response:
        """Note another address."""
        user = USERS[await self._sessions.require_confirmation(request)]
        user.address = str((await request.form()).get("address", ""))[:200]
        return RedirectResponse("/account/profile", 303)

    async def confirm_page(self, request: Request) -> Response:
        """Ask for the password before the profile may be changed."""
        await self._sessions.require_login(request)
        return await self._page(request, "confirm.html")

    async def confirm(self, request: Request) -> Response:
        """Check the password, and issue the companion cookie."""
        subject = await self._sessions.require_login(request)
        if not await _right(subject, await request.form()):
            return await self._page(request, "confirm.html", 403, problem="That is not right.")
        response = RedirectResponse("/account/profile/edit", 303)
        await self._sessions.confirm(request, response)
        return response

    async def devices(self, request: Request) -> Response:
        """The user's sessions and what happened to them, which the page's script asks for."""
        await self._sessions.require_login(request)
        return await self._page(request, "devices.html")

    async def admin(self, request: Request) -> Response:
        """All orders, for administrators who have logged in with a second factor."""
        if not USERS[await self._sessions.require_admin(request)].is_admin:
            raise HTTPException(403, "This page is for administrators.")
        return await self._page(request, "admin.html", orders=self._orders.rows(), users=USERS.values())

    async def _page(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        visitor = await self._sessions.visitor(request)
        values |= {"visitor": visitor, "csrf_token": await self._sessions.csrf_token(request)}
        values |= {"cart_size": len(await self._sessions.cart(request)), "here": quote(request.url.path)}
        return self._templates.TemplateResponse(request, name, values, status_code=status)


async def _right(name: str, form: Any) -> bool:
    """Whether a form has the user's password. In a thread: the check takes tens of milliseconds by design."""
    return await asyncio.to_thread(password_is_right, name, str(form.get("password", "")))
