"""What visitors of the shop do and see."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.shop import COOKIE, PASSWORDS, Shop, fill_in

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


async def test_a_cart_survives_the_login(shop: Shop) -> None:
    """A guest's cart is still there after the login, can be ordered, and is nobody's after the logout."""
    async with shop.device() as device:
        page = await device.open("/")
        await page.get_by_role("listitem").filter(has_text="Teapot").get_by_role("button").click()
        await page.get_by_role("link", name="Log in to order").click()
        await fill_in(page, "alice")
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url("**/cart")
        assert await page.get_by_role("listitem").filter(has_text="Teapot").count() == 1
        await page.get_by_role("button", name="Order").click()
        await page.get_by_role("cell", name="packed").first.wait_for()  # said by the WebSocket
        assert await page.get_by_role("link", name="Cart (0)").count() == 1
        assert device.complaints == []


async def test_a_wrong_password(shop: Shop) -> None:
    """A wrong password logs nobody in, and a right one does on the same page."""
    async with shop.device() as device:
        page = await device.open("/login?next=/account/profile")
        await page.get_by_label("User").fill("alice")
        await page.get_by_label("Password").fill("kettle")
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_role("alert").wait_for()
        await fill_in(page, "alice")
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_text("1 Rabbit Hole").wait_for()


async def test_the_profile_needs_a_companion_cookie(shop: Shop) -> None:
    """The profile can be changed after the password was entered again, and not with the session cookie alone."""
    async with shop.device() as device:
        page = await device.login("bob", "/account/profile")
        refused = await page.goto(device.site + "/account/profile/edit")
        assert refused is not None
        assert refused.status == 403
        await page.goto(device.site + "/account/profile")
        await page.get_by_role("link", name="Change").click()
        await page.get_by_label("Password").fill(PASSWORDS["bob"])
        await page.get_by_role("button", name="Confirm").click()
        await page.get_by_label("Address").fill(f"{shop.form} Street")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_text(f"{shop.form} Street").wait_for()


async def test_the_admins_page_needs_a_second_factor(shop: Shop) -> None:
    """An administrator is asked for a code first; a customer who has one is refused."""
    for user, shown in (("carol", "All orders"), ("alice", "This page is for administrators.")):
        async with shop.device() as device:
            page = await device.login(user)
            await page.goto(device.site + "/admin")
            await page.get_by_label("Password").fill(PASSWORDS[user])
            await page.get_by_label("Code").fill("123456")
            await page.get_by_role("button", name="Log in").click()
            await page.wait_for_url("**/admin")
            await page.get_by_text(shown).wait_for()


async def test_the_attributes_of_the_cookies(shop: Shop) -> None:
    """Session cookie and companion cookie are Secure, HttpOnly and SameSite, and of this host alone. The first ends
    with the browser, the second after ten minutes.
    """
    wanted = {"secure": True, "httpOnly": True, "sameSite": "Lax", "path": "/", "domain": "localhost"}
    async with shop.device() as device:
        page = await device.login("bob", "/account/confirm")
        await page.get_by_label("Password").fill(PASSWORDS["bob"])
        await page.get_by_role("button", name="Confirm").click()
        await page.wait_for_url("**/edit")
        cookies = {str(cookie.get("name")): dict(cookie) for cookie in await device.context.cookies()}
        for name in (COOKIE, f"{COOKIE}-profile"):
            length = len(str(cookies[name].pop("value")))
            assert length >= 32
            assert {key: cookies[name][key] for key in wanted} == wanted
        assert cookies[COOKIE]["expires"] == -1
        assert 0 < float(str(cookies[f"{COOKIE}-profile"]["expires"])) - time.time() <= 600


async def test_scripts_cannot_read_the_cookie(shop: Shop) -> None:
    """Neither `document.cookie` nor `cookieStore` shows the session cookie to a script of the page."""
    async with shop.device() as device:
        page = await device.login("bob")
        await device.context.add_cookies([{"name": "theme", "value": "dark", "url": device.site}])
        seen = await page.evaluate("async () => document.cookie + JSON.stringify(await cookieStore.getAll())")
        leaked = (await device.cookie() or "no cookie") in seen
        assert not leaked
        assert COOKIE not in seen
        assert seen.count("theme") == 2, "scripts can read the cookies that are meant for them"


async def test_login_in_two_tabs_at_once(shop: Shop) -> None:
    """Two tabs in which the user logs in at the same moment are both logged in, in one session."""
    user = "bob"
    before = {session.session_id for session in await shop.sessions(user)}
    async with shop.device() as device:
        tabs = [await device.open("/login?next=/account/profile") for _ in range(2)]
        for tab in tabs:
            await fill_in(tab, user)
        await asyncio.gather(*(tab.get_by_role("button", name="Log in").click() for tab in tabs))
        for tab in tabs:
            await tab.wait_for_url("**/account/profile")
        new = {session.session_id for session in await shop.sessions(user)} - before
        assert len(new) == 1
