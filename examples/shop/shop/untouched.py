"""The shop behind a proxy that asks sessiond. All but the login knows only the headers that the proxy sets.

It must not be reachable past the proxy: anybody could send these headers.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from sessiond_client import AsyncClient, Authentication, ClientContext, CookieDirectives
from shop.orders import GOODS
from shop.pages import shop
from shop.sessions import PURPOSE, Visitor

_SESSION = "__Host-id"
_CART = "cart"
_FEED_SECONDS = float(os.environ.get("SHOP_FEED_SECONDS", "60"))
"""The proxy asks once about a WebSocket, when it is opened. So none stays open for longer than this."""


class _BehindProxy:
    """Believes the headers. The carts of guests are in a cookie of the shop, and those of users in its memory."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._carts: dict[str, list[str]] = {}

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Have a client, for the login, as long as the shop runs."""
        async with AsyncClient(self._target) as self._authority:
            yield

    async def visitor(self, connection: HTTPConnection) -> Visitor:
        subject = unquote(connection.headers.get("x-session-subject", ""))
        return Visitor(subject, int(connection.headers.get("x-session-level", "0")))

    async def csrf_token(self, request: Request) -> str:
        return ""  # the proxy checks which page a form comes from

    async def require_login(self, connection: HTTPConnection) -> str:
        if subject := (await self.visitor(connection)).subject:
            return subject
        raise HTTPException(403, "The proxy has let a guest pass.")

    # What these pages need is in the routes of the proxy.
    require_admin = require_confirmation = require_login

    async def cart(self, request: Request) -> list[str]:
        if subject := (await self.visitor(request)).subject:
            return self._carts.get(subject, [])
        return _guests_cart(request)

    async def keep_cart(self, request: Request, response: Response, items: list[str]) -> None:
        if subject := (await self.visitor(request)).subject:
            self._carts[subject] = items
        else:
            response.set_cookie(_CART, ".".join(items), httponly=True, samesite="lax", secure=True)

    # The login: the only part that calls sessiond

    async def prepare_login(self, request: Request, response: Response) -> None:
        if _SESSION not in request.cookies:
            created = await self._authority.create(login_page=True, client=_client(request))
            _add(response, created.cookies)

    async def log_in(
        self, request: Request, response: Response, subject: str, level: int, methods: Sequence[str]
    ) -> None:
        answer = await self._authority.authenticate(
            request.cookies.get(_SESSION),
            subject,
            authentication=Authentication(level=level, methods=tuple(methods)),
            client=_client(request),
            or_create=True,
        )
        if answer.token is None:
            raise HTTPException(403, "You cannot log in now.")
        _add(response, answer.cookies)
        if items := _guests_cart(request):
            self._carts[subject] = [*self._carts.get(subject, []), *items]
            response.delete_cookie(_CART, httponly=True, samesite="lax", secure=True)

    async def confirm(self, request: Request, response: Response) -> None:
        token = request.cookies.get(_SESSION, "")
        answer = await self._authority.issue_companion_token(token, PURPOSE, client=_client(request))
        if answer.companion_token is None:
            raise HTTPException(403, "Please log in again.")
        _add(response, answer.cookies)


def _guests_cart(request: Request) -> list[str]:
    return [item for item in request.cookies.get(_CART, "").split(".") if item in GOODS]


def _client(request: Request) -> ClientContext:
    """The client as the proxy has seen it: the last address is the one that the proxy has added."""
    forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return ClientContext(ip_address=forwarded, user_agent=request.headers.get("user-agent", ""))


def _add(response: Response, cookies: CookieDirectives) -> None:
    for name, value in cookies.headers():
        response.headers.append(name, value)


_sessions = _BehindProxy(os.environ.get("SHOP_SESSIOND", "127.0.0.1:8002"))
app = shop(_sessions, lifespan=_sessions.lifespan, feed_seconds=_FEED_SECONDS)
"""Run it behind a proxy. start.py does that."""
