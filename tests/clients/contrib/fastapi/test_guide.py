"""The examples of the guide work as they are written."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client.contrib import fastapi as adapter
from sessiond_client.contrib.asgi.options import MiddlewareOptions
from tests.clients.contrib.asgi.shop import Browser, opened
from tests.clients.test_readme import FIXTURE
from tests.test_docs import ADDRESS, DOCS, ROOT, blocks_of

PAGE = DOCS / "how-to/fastapi.md"
(README,) = (block for block in blocks_of(ROOT / "README.md", "python") if "contrib.fastapi" in block)
BLOCKS = blocks_of(PAGE, "python")
INSTALLED, ENDPOINTS, MORE, STARLETTE, OWN, PROXY, TESTS = BLOCKS


def run(app: App, *blocks: str) -> dict[str, Any]:
    """The names of blocks that were run one after the other, with nothing changed but the address."""
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.replace(ADDRESS, app.address), str(PAGE), "exec"), names)
    return names


@pytest.fixture
async def browser(app: App) -> AsyncIterator[Browser]:
    """A browser that visits the application of the guide."""
    async with opened(run(app, INSTALLED, ENDPOINTS, MORE)["app"]) as browser:
        yield browser


async def token_in(browser: Browser) -> dict[str, str]:
    """The header with the CSRF token."""
    return {"X_CSRF_Token": (await browser.get("/token")).json()}


async def send(browser: Browser, path: str, **fields: str) -> Any:
    """Send a form of the site's own page, with its CSRF token."""
    page = (await browser.get("/login")).text
    fields["csrf_token"] = page.partition('value="')[2].partition('"')[0]
    return await browser.http.post(path, data=fields, headers={"Sec-Fetch-Site": "same-origin"})


@pytest.mark.parametrize("block", [INSTALLED, README], ids=["page", "readme"])
def test_it_is_five_lines(block: str) -> None:
    """The application needs five lines up to its first endpoint, on the page and in the README."""
    assert len([line for line in block.partition("@app")[0].splitlines() if line]) <= 5


async def test_the_lines_in_the_readme(app: App) -> None:
    """The README's endpoint counts the visits of each browser."""
    counting = run(app, README)["app"]
    async with opened(counting) as browser:
        assert [(await browser.get("/")).json() for _ in range(2)] == ["visit 1", "visit 2"]
    async with opened(counting) as other:
        assert (await other.get("/")).json() == "visit 1"


async def test_the_application(browser: Browser) -> None:
    """A cart survives the login, which is required for the account; devices are listed and ended."""
    assert (await send(browser, "/cart", item="cup")).json() == ["cup"]
    assert (await browser.get("/account")).status_code == 401
    assert (await send(browser, "/login", user="alice", password="x")).status_code == 403
    assert (await send(browser, "/login?next=/account", user="alice", password="teapot")).headers[
        "location"
    ] == "/account"
    assert (await browser.get("/account")).json() == "alice"
    assert (await send(browser, "/cart", item="pot")).json() == ["cup", "pot"]
    assert (await browser.get("/payment")).json()["error"] == "step_up_required"
    asking = (await browser.get("/payment", Accept="text/html")).headers["location"]
    assert asking == "/login?next=/payment&min_level=2"
    assert "Code" in (await browser.get(asking)).text
    assert (await send(browser, asking, code="1")).status_code == 403
    assert (await send(browser, asking, code="123456")).headers["location"] == "/payment"
    assert (await browser.get("/payment")).json() == "paid"
    token = await token_in(browser)
    (row,) = (await browser.get("/devices")).json()
    assert (await browser.post("/devices/nonsense/end", token="", **token)).json() is False
    assert (await browser.post(f"/devices/{row.split()[0]}/end", token="", **token)).json() is True
    assert browser.cookies == {}


async def test_the_logout(browser: Browser) -> None:
    """The logout needs the CSRF token, and deletes the cookie."""
    await send(browser, "/login", user="alice", password="teapot")
    token = await token_in(browser)
    assert (await browser.post("/logout", token="wrong")).status_code == 403
    assert (await browser.post("/logout", token="", **token)).status_code == 200
    assert browser.cookies == {}


async def test_starlette(app: App) -> None:
    """The application in Starlette asks for a login."""
    async with opened(run(app, STARLETTE)["app"]) as browser:
        assert (await browser.get("/payment", Accept="text/html")).headers["location"] == ("/login?next=/payment")


async def test_an_own_answer(app: App) -> None:
    """The exception handler answers a refusal with the sentence and the status of the refusal."""
    async with opened(run(app, OWN)["app"]) as browser:
        answer = await browser.get("/account", Accept="text/html")
        assert (answer.status_code, answer.text) == (401, "<h1>Please log in.</h1>")


async def test_behind_a_proxy(app: App) -> None:
    """The application behind a proxy starts."""
    async with opened(run(app, PROXY)["app"]) as browser:
        assert (await browser.get("/")).status_code == 404


@pytest.mark.slow
async def test_its_test(tmp_path: Path) -> None:
    """The test of the guide passes, with the application, the fixture and the variable that the guide names."""
    target = 'target=os.environ.get("SESSIOND_TARGET", "127.0.0.1:7443")'
    assert target in PAGE.read_text(encoding="utf-8")
    application = INSTALLED.replace(f'target="{ADDRESS}"', target)
    assert application != INSTALLED
    (tmp_path / "app.py").write_text("\n".join(("import os", application, ENDPOINTS, MORE)))
    (tmp_path / "conftest.py").write_text(FIXTURE)
    (tmp_path / "test_app.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_what_it_names_exists() -> None:
    """Each option in the table exists, and each function of the module is on the page."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.partition("## Options")[2].partition("A path list")[0].splitlines() if "`" in line]
    options = {name.strip("` ") for row in rows if row.startswith("| `") for name in row.split("|")[1].split(",")}
    own = {"codec", "max_form_bytes"}
    assert options - own <= MiddlewareOptions.__optional_keys__
    for name in set(adapter.__all__) - {"Action", "ActivityRow", "DeviceRow"}:
        assert f"`{name}" in text or f"{name}(" in text or f" {name}" in text, name
