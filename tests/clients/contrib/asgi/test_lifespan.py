"""The lifespan: the client is closed when the application is, before the server learns of it."""

from __future__ import annotations

from typing import Any

import pytest

from sessiond.app import App
from sessiond_client.contrib.asgi import SessiondMiddleware
from tests.clients.contrib.asgi.shop import COOKIE, Browser, living, plain


async def page(scope: Any, receive: Any, send: Any) -> None:
    """An empty page."""
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})


async def test_the_client_is_closed(app: App) -> None:
    """After the shutdown the client of the event loop is closed, and a later request gets another one."""
    site = plain(page, app.address)
    async with living(site):
        browser = Browser(site)
        browser.cookies = {COOKIE: "x"}
        assert (await browser.get("/")).status_code == 204
        client = site._clients.get()
        await client.authority()
    with pytest.raises(Exception, match="closed"):
        await client.authority()
    assert (await browser.get("/")).status_code == 204
    await site._clients.close()
    await browser.http.aclose()


async def test_an_application_without_lifespan() -> None:
    """An application that does not know the lifespan says so to the server as it would without the middleware."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http", "no lifespan"

    with pytest.raises(AssertionError, match="no lifespan"):
        await SessiondMiddleware(app, "127.0.0.1:1")({"type": "lifespan"}, nothing_comes, nothing_goes)


async def test_other_scopes_pass() -> None:
    """A scope of another type goes to the application unchanged."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    await SessiondMiddleware(app, "127.0.0.1:1")({"type": "other"}, nothing_comes, nothing_goes)
    assert seen == [({"type": "other"}, nothing_comes, nothing_goes)]


async def nothing_comes() -> Any:
    """Fail: nothing is received."""
    raise AssertionError


async def nothing_goes(message: Any) -> None:
    """Fail: nothing is sent."""
    raise AssertionError(message)
