"""A plugin of pytest for Starlette's tests: every application that its test client calls is behind our middleware.

Each request has the cookie of a live session, which the application does not see, and each form was searched for a CSRF
token before the application reads it. `SESSIOND_TARGET` and `SESSIOND_COOKIE` say where and which.
"""

from __future__ import annotations

import os
from typing import Any

import starlette.testclient

from sessiond_client.contrib.asgi import SCOPE_KEY, SessiondMiddleware

__all__ = ["BehindMiddleware"]

_OURS = [(b"cookie", os.environ["SESSIOND_COOKIE"].encode())]


def behind(app: Any) -> Any:
    """The application behind the middleware."""

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            connection: Any = scope[SCOPE_KEY]
            assert connection.exchange.session is not None
            if connection._form is not None:
                await connection._form.read()
            own = [pair for pair in scope["headers"] if pair not in _OURS]
            scope = {key: value for key, value in scope.items() if key not in (SCOPE_KEY, "session")}
            scope["headers"] = own
        await app(scope, receive, send)

    # No CSRF check: these tests send forms without tokens.
    ours = SessiondMiddleware(inner, os.environ["SESSIOND_TARGET"], near_cache=False, csrf_exempt=["/"])

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "headers": [*scope["headers"], *_OURS]}
        await ours(scope, receive, send)

    return outer


class BehindMiddleware(starlette.testclient.TestClient):
    """Starlette's test client, with our middleware in front of the application."""

    __test__ = False

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(behind(app), *args, **kwargs)
        self.app = app


starlette.testclient.TestClient = BehindMiddleware  # type: ignore[misc]
