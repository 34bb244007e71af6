"""The shop in Flask, as its visitors use it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html import unescape
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.contrib import flask as adapter
from tests.clients.contrib.flask.site import Browser

FILE = Path(__file__).parents[2] / "examples/flask/app.py"
PAGE = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin"}

_FORM = re.compile(r'<form method="post" action="([^"]+)">(.*?)</form>', re.DOTALL)
_INPUT = re.compile(r'<input (?:type="\w+" )?name="(\w+)"(?: value="([^"]*)")?')


@pytest.fixture
def browser(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """A browser that visits the shop, whose only change is the authority's address."""
    extensions: list[adapter.Sessiond] = []

    class Elsewhere(adapter.Sessiond):
        def __init__(self, site: Any, target: str) -> None:
            assert target == "127.0.0.1:7443"
            super().__init__(site, app.address)
            extensions.append(self)

    monkeypatch.setattr(adapter, "Sessiond", Elsewhere)
    spec = spec_from_file_location("flask_shop", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # Flask finds the templates beside it
    spec.loader.exec_module(module)
    yield Browser(module.app)
    for extension in extensions:
        extension.close()


async def get(browser: Browser, path: str) -> TestResponse:
    """A page, after any redirects within the shop."""
    page = await browser.send("GET", path, PAGE)
    while page.status_code in (302, 303):
        assert page.headers["Location"].startswith("/")
        page = await browser.send("GET", page.headers["Location"], PAGE)
    return page


async def submit(browser: Browser, page: TestResponse, action: str, **typed: str) -> TestResponse:
    """Fill in a form of a page, send it, and follow redirects."""
    forms = {unescape(name): fields for name, fields in _FORM.findall(page.text)}
    name = next(name for name in forms if name.partition("?")[0] == action)
    fields = {key: unescape(value) for key, value in _INPUT.findall(forms[name])}
    answer = await browser.send("POST", name, PAGE, data={**fields, **typed})
    assert answer.status_code == 303
    return await get(browser, answer.headers["Location"])


async def log_in(browser: Browser) -> TestResponse:
    """Log in by the form."""
    return await submit(browser, await get(browser, "/login"), "/login", user="alice", password="teapot")


async def test_the_shop(browser: Browser) -> None:
    """A guest fills a cart, logs in, pays with a second factor, and logs out."""
    home = await submit(browser, await get(browser, "/"), "/cart", item="teapot & <cup>")
    assert "You are a guest. In your cart: teapot &amp; &lt;cup&gt;." in home.text
    login = await get(browser, "/payment")
    assert "Password" in login.text
    wrong = await submit(browser, login, "/login", user="alice", password="kettle")
    assert "That is not right." in wrong.text
    step_up = await submit(browser, wrong, "/login", user="alice", password="teapot")
    assert "Code" in step_up.text  # the way back leads to the payment, which needs more
    paid = await submit(browser, step_up, "/login", code="123456")
    assert paid.text == "Thank you for your payment."
    home = await get(browser, "/")
    assert "You are alice. In your cart: teapot &amp; &lt;cup&gt;." in home.text
    out = await submit(browser, home, "/logout")
    assert "You are a guest. In your cart: nothing." in out.text
    assert "Password" in (await get(browser, "/devices")).text


async def test_the_devices(browser: Browser, app: App) -> None:
    """The devices page lists the user's sessions and ends the one that is chosen."""
    await log_in(browser)
    async with AsyncClient(app.address) as client:
        other = await client.create(subject="alice")
        page = await get(browser, "/devices")
        assert page.text.count("End this device") == 2
        assert page.text.count("(this one)") == 1
        page = await submit(browser, page, f"/devices/{other.session.session_id}/end")
        assert page.text.count("End this device") == 1
        assert not (await client.validate(other.token)).valid


async def test_a_form_of_another_site(browser: Browser) -> None:
    """A form that another site submits is refused."""
    await log_in(browser)
    assert (await browser.send("POST", "/logout", {**PAGE, "Sec-Fetch-Site": "cross-site"})).status_code == 403
    assert "You are alice" in (await get(browser, "/")).text


async def test_the_way_back_stays_on_the_site(browser: Browser) -> None:
    """The login leads to a path of the shop, whatever the address of the login page says."""
    page = await get(browser, "/login?next=https://evil.example")
    home = await submit(browser, page, "/login", user="alice", password="teapot")
    assert "You are alice" in home.text


def test_its_length() -> None:
    """The whole shop has fewer than sixty lines, blank ones not counted."""
    assert len([line for line in FILE.read_text(encoding="utf-8").splitlines() if line.strip()]) < 60
