"""The examples of the page about other frameworks work as they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from werkzeug.test import Client as Browser
from werkzeug.test import TestResponse

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.guard import AsyncConnectionGuard
from tests.support.clock import ManualClock
from tests.test_docs import ADDRESS, DOCS, blocks_of

PAGE = DOCS / "how-to/use-another-framework.md"
CORE, ADAPTER, SITE, GUARD = blocks_of(PAGE, "python")
MINUTE = 60_000


def names_of(*blocks: str, address: str = "") -> dict[str, Any]:
    """The names of blocks that were run one after the other, with nothing changed but the address."""
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.replace(ADDRESS, address), str(PAGE), "exec"), names)
    return names


class Site:
    """The application of the page, and a browser that visits it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.browser = Browser(app)

    async def send(self, method: str, path: str, **more: Any) -> TestResponse:
        """A request; the authority is in this thread."""
        return await asyncio.to_thread(self.browser.open, path, "https://localhost", method=method, **more)

    async def text(self, path: str) -> str:
        """What a page says."""
        return (await self.send("GET", path)).text

    async def form(self, path: str) -> TestResponse:
        """Send a form with the CSRF token of the login page."""
        return await self.send("POST", path, data={"csrf_token": await self.text("/login")})


@pytest.fixture
async def site(app: App) -> AsyncIterator[Site]:
    """The application of the page, connected to an authority."""
    found = names_of(CORE, ADAPTER, SITE, address=app.address)["app"]
    yield Site(found)
    await asyncio.to_thread(found.client.close)


async def test_a_users_life(site: Site) -> None:
    """A guest is counted, logs in, is still counted, and is a new guest after the logout."""
    assert await site.text("/") == "guest: visit 1"
    assert (await site.form("/login")).text == "welcome"
    assert await site.text("/") == "alice: visit 2"
    assert (await site.form("/logout")).text == "bye"
    assert await site.text("/") == "guest: visit 1"


async def test_a_form_without_the_token(site: Site) -> None:
    """A form without the session's CSRF token, or of another site, gets 403 and changes nothing."""
    await site.form("/login")
    answer = await site.send("POST", "/logout", data={"csrf_token": "wrong"})
    assert (answer.status_code, json.loads(answer.text)["error"]) == (403, "csrf_failed")
    other = await site.send("POST", "/logout", headers={"Origin": "https://elsewhere.example"})
    assert (other.status_code, await site.text("/")) == (403, "alice: visit 1")


async def test_a_page_that_needs_more(site: Site) -> None:
    """A page that needs a level leads to the login page, and a script gets the reason."""
    page = await site.send("GET", "/payment", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["Location"]) == (303, "/login?next=/payment")
    await site.form("/login")
    assert json.loads(await site.text("/payment"))["error"] == "step_up_required"


async def test_an_outage(site: Site, app: App) -> None:
    """A request with a cookie gets 503 with Retry-After and no cookie; a visitor without one is served."""
    await site.form("/login")
    await app.stop()
    answer = await site.send("GET", "/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "Set-Cookie" not in answer.headers
    assert (await Site(site.app).send("GET", "/nothing")).status_code == 404


async def test_an_outage_at_the_end(site: Site, app: App) -> None:
    """If the data of a guest cannot be stored, the response is a 503."""
    await app.stop()
    assert (await site.send("GET", "/")).status_code == 503


async def test_a_dead_cookie(site: Site, clock: ManualClock) -> None:
    """The cookie of a session that has expired is deleted, also by a response that refuses the page."""
    await site.form("/login")
    clock.advance(31 * MINUTE)
    answer = await site.send("GET", "/payment")
    assert (answer.status_code, "Max-Age=0" in answer.headers["Set-Cookie"]) == (401, True)


@pytest.mark.parametrize("when", ["before", "during"])
async def test_a_live_connection(app: App, when: str) -> None:
    """A connection is closed with the reason when its session ends, and at once if it had ended before."""
    while_session_lives, closed, begun = names_of(GUARD)["while_session_lives"], list[str](), asyncio.Event()

    async def talk() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def close(reason: str) -> None:
        closed.append(reason)

    async with AsyncClient(app.address) as client:
        guard = AsyncConnectionGuard(client)
        session = (await client.create(subject="alice")).session
        if when == "before":
            await client.revoke(session_id=session.session_id)
        living = asyncio.ensure_future(while_session_lives(guard, session, talk, close))
        if when == "during":
            await asyncio.wait_for(begun.wait(), 10)
            await client.revoke(session_id=session.session_id)
        await asyncio.wait_for(living, 10)
        await guard.close()
    assert (closed, begun.is_set()) == (
        [{"before": "the session has ended", "during": "ended"}[when]],
        when == "during",
    )


async def test_a_connection_that_ends_by_itself(app: App) -> None:
    """If the client ends the connection first, nothing is closed."""
    while_session_lives, closed = names_of(GUARD)["while_session_lives"], list[str]()
    async with AsyncClient(app.address) as client:
        guard = AsyncConnectionGuard(client)
        session = (await client.create(subject="alice")).session
        await while_session_lives(guard, session, lambda: asyncio.sleep(0), closed.append)
        await guard.close()
    assert closed == []
