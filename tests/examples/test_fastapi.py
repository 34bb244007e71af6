"""The shop in FastAPI, as its visitors use it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sessiond.app import App
from sessiond_client import AsyncClient
from tests.clients.contrib.asgi.shop import PAGE, Browser, opened
from tests.test_docs import ADDRESS

FILE = Path(__file__).parents[2] / "examples/fastapi/app.py"

_FORM = re.compile(r'<form method="post" action="([^"]+)">(.*?)</form>')
_INPUT = re.compile(r'<input (?:type="\w+" )?name="(\w+)"(?: value="([^"]*)")?')


@pytest.fixture
async def browser(app: App) -> AsyncIterator[Browser]:
    """A browser that visits the shop."""
    names: dict[str, Any] = {}
    exec(compile(FILE.read_text(encoding="utf-8").replace(ADDRESS, app.address), str(FILE), "exec"), names)
    async with opened(names["app"]) as browser:
        browser.http.headers.update({**PAGE, "Sec-Fetch-Site": "same-origin"})
        browser.http.follow_redirects = True
        yield browser


async def submit(browser: Browser, page: httpx2.Response, action: str, **typed: str) -> httpx2.Response:
    """Fill in a form of a page, and send it."""
    forms = dict(_FORM.findall(page.text))
    fields = {name: unescape(value) for name, value in _INPUT.findall(forms[action])}
    return await browser.http.post(action, data={**fields, **typed})


async def test_the_shop(browser: Browser) -> None:
    """A guest fills a cart, logs in, pays with a second factor, ends another device, and logs out."""
    home = await submit(browser, await browser.get("/"), "/cart", item="teapot & <cup>")
    assert "You are a guest. In your cart: teapot &amp; &lt;cup&gt;." in home.text
    login = await browser.get("/payment")
    assert login.url.path == "/login"
    wrong = await submit(browser, login, "/login", user="alice", password="kettle")
    assert wrong.status_code == 403
    step_up = await submit(browser, login, "/login", user="alice", password="teapot")
    assert "Code" in step_up.text  # the way back leads to the payment, which needs more
    paid = await submit(browser, step_up, "/login", code="123456")
    assert paid.text == "Thank you for your payment."
    home = await browser.get("/")
    assert "You are alice. In your cart: teapot &amp; &lt;cup&gt;." in home.text
    out = await submit(browser, home, "/logout")
    assert "You are a guest. In your cart: nothing." in out.text
    assert (await browser.get("/devices")).url.path == "/login"


async def test_the_devices(browser: Browser, app: App) -> None:
    """The devices page lists the user's sessions and ends the one that is chosen."""
    await submit(browser, await browser.get("/login"), "/login", user="alice", password="teapot")
    async with AsyncClient(app.address) as client:
        other = await client.create(subject="alice")
        page = await browser.get("/devices")
        assert page.text.count("End this device") == 2
        assert page.text.count("(this one)") == 1
        page = await submit(browser, page, f"/devices/{other.session.session_id}/end")
        assert page.text.count("End this device") == 1
        assert not (await client.validate(other.token)).valid


async def test_a_form_of_another_site(browser: Browser) -> None:
    """A form that another site submits is refused."""
    await submit(browser, await browser.get("/login"), "/login", user="alice", password="teapot")
    home = await browser.get("/")
    browser.http.headers["Sec-Fetch-Site"] = "cross-site"
    assert (await submit(browser, home, "/logout")).status_code == 403


async def test_the_way_back_stays_on_the_site(browser: Browser) -> None:
    """The login leads to a path of the shop, whatever the address of the login page says."""
    page = await browser.get("/login?next=https://evil.example")
    home = await submit(browser, page, "/login", user="alice", password="teapot")
    assert (home.url.host, home.url.path) == ("shop.example", "/")


def test_its_length() -> None:
    """The whole shop has fewer than sixty lines, blank ones not counted."""
    assert len([line for line in FILE.read_text(encoding="utf-8").splitlines() if line.strip()]) < 60
