"""The shop with the middleware: sessiond keeps the cart, and the middleware checks each request."""

from __future__ import annotations

import os
from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from sessiond_client.contrib.asgi import (
    RouteRequirements,
    SessiondMiddleware,
    csrf_token,
    current_session,
    issue_companion,
    login,
    require,
)
from shop.pages import shop
from shop.sessions import ADMIN_AGE, ADMIN_LEVEL, PURPOSE, Visitor

_COMPANION = f"__Host-id-{PURPOSE}"


class _InMiddleware:
    """Asks the middleware."""

    async def visitor(self, connection: HTTPConnection) -> Visitor:
        session = current_session(connection)
        if session is None or session.authentication is None:
            return Visitor("")
        return Visitor(session.subject, session.authentication.level)

    async def csrf_token(self, request: Request) -> str:
        return await csrf_token(request)

    async def require_login(self, connection: HTTPConnection) -> str:
        return await self._require(connection, RouteRequirements())

    async def require_admin(self, request: Request) -> str:
        return await self._require(request, RouteRequirements(level=ADMIN_LEVEL, max_age=ADMIN_AGE))

    async def require_confirmation(self, request: Request) -> str:
        return await self._require(request, RouteRequirements(companion=(PURPOSE, request.cookies.get(_COMPANION))))

    async def _require(self, connection: HTTPConnection, requirements: RouteRequirements) -> str:
        await require(connection, requirements)
        return (await self.visitor(connection)).subject

    async def log_in(
        self, request: Request, response: Response, subject: str, level: int, methods: Sequence[str]
    ) -> None:
        await login(request, subject, level=level, methods=methods)

    async def prepare_login(self, request: Request, response: Response) -> None:
        """Nothing to do: `csrf_token` has opened a guest's session."""

    async def confirm(self, request: Request, response: Response) -> None:
        await issue_companion(request, PURPOSE)

    async def cart(self, request: Request) -> list[str]:
        return list(request.session.get("cart", []))

    async def keep_cart(self, request: Request, response: Response, items: list[str]) -> None:
        request.session["cart"] = items


_target = os.environ.get("SHOP_SESSIOND", "127.0.0.1:8002")
_sessions = Middleware(SessiondMiddleware, target=_target, ignored_paths=["/static/"], browser_path="/session/")
app = shop(_InMiddleware(), [_sessions])
"""Run it with `uvicorn --app-dir examples/shop shop.with_middleware:app`."""
