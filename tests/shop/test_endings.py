"""How sessions of the shop end, and what a browser shows and keeps afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page

from sessiond_client import Verdict
from tests.support.relay import relayed
from tests.support.shop import COOKIE, PASSWORDS, Shop, eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]
BOUND = 2.0
"""Within how many seconds a page is left after its session has ended on another device."""


async def test_ending_the_session_on_another_device(shop: Shop) -> None:
    """A user ends a session on the devices page of another device: the first device's page is left, and its WebSocket
    closed, within two seconds. The second device stays logged in.
    """
    await shop.authority.revoke_all(subject="alice", reason="test")
    async with relayed(shop.port) as relay, shop.device(port=relay.port) as first, shop.device() as second:
        page = await first.login("alice", "/account/orders")
        await page.get_by_text("connected", exact=True).wait_for()
        await _until_followed(page)
        other = await second.login("alice", "/account/devices")
        end = other.get_by_role("listitem").get_by_role("button", name="Log out")
        await end.wait_for()
        assert relay.sockets == 1
        await end.click()
        async with asyncio.timeout(BOUND):
            await page.wait_for_url("**/login")
            await eventually(lambda: relay.has_sockets(0))
        await end.wait_for(state="hidden")
        await other.reload()
        await other.get_by_text("this one").wait_for()
        assert second.complaints == []


async def test_the_server_closes_the_websocket(shop: Shop) -> None:
    """With the middleware, the WebSocket of a page without our script is closed too when its session ends."""
    if shop.form == "untouched":
        pytest.skip("Envoy asks about a WebSocket only when it is opened; examples/shop/README.md says so")
    async with shop.device() as device:
        await device.without_script()
        page = await device.login("bob", "/account/orders")
        await page.get_by_text("connected", exact=True).wait_for()
        await shop.authority.revoke_all(subject="bob", reason="test")
        await page.get_by_text("closed (1008)").wait_for(timeout=BOUND * 1000)


async def test_an_untouched_websocket_ends_by_itself(impatient_shop: Shop) -> None:
    """Behind Envoy, the WebSocket of a page without our script ends a while after its session, and cannot be opened
    again.
    """
    if impatient_shop.form != "untouched":
        pytest.skip("the middleware closes it at once")
    async with impatient_shop.device() as device:
        await device.without_script()
        page = await device.login("bob", "/account/orders")
        await page.get_by_text("connected", exact=True).wait_for()
        await impatient_shop.authority.revoke_all(subject="bob", reason="test")
        await page.get_by_text("closed (1006)").wait_for()  # the handshake is refused


async def test_the_warning_before_the_session_is_idle(impatient_shop: Shop) -> None:
    """A minute before the session ends for lack of activity, the page says so. It stays logged in if the user wants."""
    async with impatient_shop.device() as device:
        page = await device.login("carol", "/account/profile")
        dialog = page.get_by_role("alertdialog")
        await dialog.wait_for()
        assert "You will be logged out in" in await dialog.inner_text()
        await dialog.get_by_role("button", name="Stay logged in").click()
        await dialog.wait_for(state="hidden")
        await page.reload()
        assert await page.get_by_text("3 Market Square").count() == 1
        assert device.complaints == []


async def test_a_logout_clears_everything_of_this_host(shop: Shop) -> None:
    """After a logout the session has ended, its cookies and what scripts have stored are gone, and the other tabs are
    left. The cookies of a sibling host stay.
    """
    async with shop.device("www.shop.localhost") as device:
        sibling = f"http://blog.shop.localhost:{shop.port}"
        await device.context.add_cookies([{"name": "session", "value": "blog", "url": sibling}])
        page = await device.login("bob", "/account/confirm")
        await page.get_by_label("Password").fill(PASSWORDS["bob"])
        await page.get_by_role("button", name="Confirm").click()
        await page.wait_for_url("**/edit")
        await page.evaluate("localStorage.setItem('seen', 'pot')")
        other = await device.open("/account/profile")
        token, companion = await device.cookie(), await device.cookie(f"{COOKIE}-profile")
        assert (token != "", companion != "") == (True, True)
        await _until_followed(other)
        await page.get_by_role("button", name="Log out bob").click()
        await page.wait_for_url("**/login")
        await other.wait_for_url("**/login")
        assert (await shop.authority.validate(token)).verdict is Verdict.REVOKED
        is_gone = [await device.cookie() != token, await device.cookie(f"{COOKIE}-profile") == ""]
        assert is_gone == [True, True]
        assert await page.evaluate("localStorage.getItem('seen')") is None
        assert [cookie.get("value") for cookie in await device.context.cookies(sibling)] == ["blog"]


async def test_clearing_cookies_would_reach_the_sibling(shop: Shop) -> None:
    """The browser does clear a sibling's cookies if a response of the shop's host asks for it with Clear-Site-Data."""
    async with _clearing_cookies() as port, shop.device("www.shop.localhost", port) as device:
        sibling = f"http://blog.shop.localhost:{shop.port}"
        await device.context.add_cookies([{"name": "session", "value": "blog", "url": sibling}])
        await device.open("/")
        assert await device.context.cookies(sibling) == []


async def test_the_back_button_shows_nothing_private(shop: Shop, keeping_browser: Browser) -> None:
    """After a logout on a public page, the back button leads to the login page in place of the private one before."""
    async with shop.device(browser=keeping_browser) as device:
        page = await device.login("alice", "/account/profile")
        await page.get_by_text("1 Rabbit Hole").wait_for()
        await page.get_by_role("link", name="Teahouse").click()
        await page.go_back()
        await page.get_by_text("1 Rabbit Hole").wait_for()
        await page.get_by_role("link", name="Teahouse").click()
        await page.get_by_role("button", name="Log out alice").click()
        await page.get_by_role("heading", name="Log in").wait_for()
        for _ in range(2):
            await page.go_back(wait_until="commit")
            if not page.url.endswith("/"):
                await page.get_by_role("heading", name="Log in").wait_for()
            assert await page.get_by_text("1 Rabbit Hole").count() == 0


async def _until_followed(page: Page) -> None:
    """Wait until a tab of this browser has the event stream."""
    await page.wait_for_function("navigator.locks.query().then(({held}) => held.length > 0)")


@asynccontextmanager
async def _clearing_cookies() -> AsyncIterator[int]:
    """Run a server that asks browsers to clear all cookies, and return its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nClear-Site-Data: "cookies"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
