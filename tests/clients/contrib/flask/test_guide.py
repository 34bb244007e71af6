"""The guide for Flask works as it is written."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.contrib.flask import Sessiond
from tests.clients.contrib.flask.site import Browser
from tests.test_docs import ADDRESS, DOCS, ROOT, blocks_of

PAGE = DOCS / "how-to/flask.md"
(README,) = (block for block in blocks_of(ROOT / "README.md", "python") if "contrib.flask" in block)


@pytest.fixture
def guide(app: App, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """All examples of the page, one after the other, with nothing changed but the authority's address."""
    module = ModuleType("flask_guide")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    text = "\n".join(blocks_of(PAGE, "python"))
    assert text.count(ADDRESS) == 1
    exec(compile(text.replace(ADDRESS, app.address), PAGE.name, "exec"), vars(module))
    yield module
    module.app.extensions["sessiond"].close()


@pytest.fixture
def browser(guide: ModuleType) -> Browser:
    """A browser that visits the guide's application."""
    return Browser(guide.app)


async def post(browser: Browser, path: str, **fields: str) -> tuple[int, str]:
    """Send a form of the site, with the CSRF token of its login page."""
    csrf = (await browser.get("/login")).text.split('value="')[1].split('"')[0]
    answer = await browser.send("POST", path, data={**fields, "csrf_token": csrf})
    return answer.status_code, answer.text


async def log_in(browser: Browser, password: str = "teapot", path: str = "/login") -> int:
    """Log in by the form."""
    return (await post(browser, path, user="alice", password=password))[0]


async def test_the_lines_in_the_readme(app: App) -> None:
    """The README's lines are at most five up to the first view, which then counts the visits of each browser."""
    setting_up = README.partition("@app")[0]
    assert len([line for line in setting_up.splitlines() if line]) <= 5
    names: dict[str, Any] = {"__name__": "app"}
    exec(compile(README.replace(ADDRESS, app.address), "README.md", "exec"), names)
    browser = Browser(names["app"])
    assert [(await browser.get("/")).text for _ in range(2)] == ["visit 1", "visit 2"]
    assert (await Browser(names["app"]).get("/")).text == "visit 1"
    names["app"].extensions["sessiond"].close()


async def test_the_first_example(browser: Browser) -> None:
    """A guest is counted, logs in, is still counted, and logs out."""
    assert (await browser.get("/")).text == "guest: visit 1"
    assert await log_in(browser, "kettle") == 403
    assert await log_in(browser) == 303
    assert (await browser.get("/")).text == "alice: visit 2"
    assert (await post(browser, "/logout"))[0] == 303
    assert (await browser.get("/")).text == "guest: visit 1"


async def test_the_protected_pages(browser: Browser) -> None:
    """The pages need what the page says, a blueprint's as well, and the handler answers what is refused."""
    for path in ("/account", "/payment", "/admin/", "/devices"):
        answer = await browser.get(path)
        assert (answer.status_code, answer.json) == (401, {"error": "login_required"})
    await log_in(browser)
    assert (await browser.get("/account")).text == "alice"
    for path in ("/payment", "/admin/"):
        assert (await browser.get(path)).json == {"error": "step_up_required"}
    page = await browser.get("/admin/", Accept="text/html")
    asking = page.headers["Location"]
    assert asking == "/login?next=/admin/&min_level=2"
    form = (await browser.get(asking)).text
    assert "Code" in form
    fields = {"csrf_token": form.split('value="')[1].split('"')[0]}
    assert (await browser.send("POST", asking, data={**fields, "code": "1"})).status_code == 403
    stepped_up = await browser.send("POST", asking, data={**fields, "code": "123456"})
    assert stepped_up.headers["Location"] == "/admin/"
    assert (await browser.get("/payment")).text == "Thank you for your payment."
    assert (await browser.send("POST", "/webhook", {"Origin": "https://elsewhere.example"})).text == "accepted"
    refused = await browser.send("POST", "/logout", {"Origin": "https://elsewhere.example"})
    assert (refused.status_code, refused.text) == (403, "Please load the page again.")


async def test_the_devices(browser: Browser, app: App) -> None:
    """The devices are listed, ended one by one, and together."""
    await log_in(browser)
    async with AsyncClient(app.address) as client:
        other = (await client.create(subject="alice")).session.session_id
        page = (await browser.get("/devices")).text
        assert (page.count("<form"), page.count("(this one)"), other in page) == (2, 1, True)
        assert (await post(browser, f"/devices/{other}/end"))[0] == 303
        assert other not in (await browser.get("/devices")).text
        await client.create(subject="alice")
        assert (await post(browser, "/password"))[1] == "1 other devices were logged out."
        assert (await post(browser, "/logout-everywhere"))[1] == "1 devices were logged out."


async def test_the_test(guide: ModuleType) -> None:
    """The test of the page passes."""
    await asyncio.to_thread(guide.test_login, guide.app.test_client())


async def test_the_factory(guide: ModuleType, app: App) -> None:
    """The way of an application factory, and the options for a proxy, work as the page says."""
    sessions = Sessiond(target=app.address, **guide.behind_a_proxy)
    other = guide.Flask("factory")
    sessions.init_app(other)
    assert (await Browser(other).get("/")).status_code == 404
    sessions.close()
