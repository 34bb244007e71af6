"""The examples for web frameworks: a login, a logout and a form behave as the pages promise, request after request."""

from __future__ import annotations

import asyncio
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, ClientContext, EventType, Verdict
from tests.clients.test_readme import blocks
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

ROOT = Path(__file__).parents[2]
COOKIE = "__Host-id"
MINUTE = 60_000
AGENT = "Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0"


@dataclass
class Answer:
    """What a browser sees: status, body, and the values of `Set-Cookie` in their order."""

    status: int
    text: str
    set_cookie: list[str]


class Site(ABC):
    """A running example."""

    csrf = r'name="csrf" value="([^"]+)"'
    host = "localhost"
    module: Any

    @abstractmethod
    def respond(self, method: str, path: str, headers: Mapping[str, str], fields: Mapping[str, str]) -> Answer:
        """The response to one request."""


@dataclass
class Browser:
    """One cookie, kept as browsers keep it: the last `Set-Cookie` of a response counts."""

    site: Site
    cookie: str = ""
    seen: list[str] = field(default_factory=list)

    async def send(self, method: str, path: str, fields: Mapping[str, str] = {}, **headers: str) -> Answer:
        sent = {"User-Agent": AGENT, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if self.cookie:
            sent["Cookie"] = f"{COOKIE}={self.cookie}"
        answer = await asyncio.to_thread(self.site.respond, method, path, sent, fields)
        self.seen = answer.set_cookie
        for line in answer.set_cookie:
            if line.startswith(f"{COOKIE}="):
                self.cookie = "" if "Max-Age=0" in line else line.removeprefix(f"{COOKIE}=").split(";")[0]
        return answer

    async def log_in(self, **headers: str) -> Answer:
        """Log in as a current browser does from the site's own page, unless headers are given."""
        headers = headers or {"Sec_Fetch_Site": "same-origin"}
        return await self.send("POST", "/login", {"user": "alice", "password": "teapot"}, **headers)

    async def csrf(self) -> str:
        found = re.search(self.site.csrf, (await self.send("GET", "/")).text)
        assert found is not None
        return found[1]


@contextmanager
def example(page: Path, block: str, address: str) -> Iterator[ModuleType]:
    """The module of an example, connected to an authority."""
    module = ModuleType(f"example_{page.stem.lower()}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(block.replace("127.0.0.1:7443", address), str(page), "exec"), vars(module))
        yield module
    finally:
        del sys.modules[module.__name__]


class FlaskSite(Site):
    def __init__(self, stack: ExitStack, address: str) -> None:
        page = ROOT / "README.md"
        (block,) = (block for block in blocks(page) if "from flask" in block)
        self.module = stack.enter_context(example(page, block, address))
        stack.callback(self.module.authority.close)
        self._app = self.module.app

    def respond(self, method: str, path: str, headers: Mapping[str, str], fields: Mapping[str, str]) -> Answer:
        client = self._app.test_client(use_cookies=False)
        answer = client.open(path, method=method, headers=dict(headers), data=dict(fields))
        return Answer(answer.status_code, answer.text, answer.headers.getlist("Set-Cookie"))


async def until_a_renewal_is_due(browser: Browser, clock: ManualClock) -> None:
    """Let time pass with a request now and then. The next request renews the token."""
    for _ in range(2):
        clock.advance(25 * MINUTE)
        assert (await browser.send("GET", "/")).status == 200
    clock.advance(15 * MINUTE)


@pytest.fixture(params=[FlaskSite], ids=lambda kind: kind.__name__)
async def browser(request: pytest.FixtureRequest, app: App) -> AsyncIterator[Browser]:
    """A browser that visits an example."""
    async with visit(request.param, app) as found:
        yield found


@asynccontextmanager
async def visit(kind: Callable[[ExitStack, str], Site], app: App) -> AsyncIterator[Browser]:
    """A browser that visits an example, connected to an authority."""
    stack = ExitStack()
    try:
        yield Browser(await asyncio.to_thread(kind, stack, app.address))
    finally:
        await asyncio.to_thread(stack.close)


async def test_a_login_and_the_next_request(browser: Browser) -> None:
    """A visitor without a cookie is denied, logs in, and the next request is the user's."""
    denied = await browser.send("GET", "/")
    assert (denied.status in (303, 401), browser.seen) == (True, [])
    assert (await browser.log_in()).status in (200, 303)
    answer = await browser.send("GET", "/")
    assert answer.status == 200
    assert "alice" in answer.text


async def test_a_login_after_an_expiry(browser: Browser, clock: ManualClock) -> None:
    """After an expiry the login sets the new cookie alone: the deletion of the old one is not sent after it."""
    await browser.log_in()
    clock.advance(31 * MINUTE)
    await browser.log_in()
    assert len(browser.seen) == 1
    assert (await browser.send("GET", "/")).status == 200


async def test_a_login_while_a_renewal_is_due(browser: Browser, app: App, clock: ManualClock) -> None:
    """A login whose validation renews the old token sends the login's token alone, and no alarm follows."""
    await browser.log_in()
    csrf = await browser.csrf()
    await until_a_renewal_is_due(browser, clock)
    await browser.log_in(Sec_Fetch_Site="same-origin", X_CSRF_Token=csrf)  # a denied validation would renew nothing
    assert len(browser.seen) == 1
    clock.advance(MINUTE)
    assert (await browser.send("GET", "/")).status == 200
    async with AsyncClient(app.address) as client:
        types = {event.type.name async for event in client.activity("alice")}
    assert types == {"SESSION_CREATED", "SESSION_AUTHENTICATED", "SESSION_ROLLED"}


async def test_a_renewal_reaches_the_browser(browser: Browser, clock: ManualClock) -> None:
    """A request during which a renewal is due sets the renewed token, which works."""
    await browser.log_in()
    await until_a_renewal_is_due(browser, clock)
    before = browser.cookie
    assert (await browser.send("GET", "/")).status == 200
    assert browser.cookie != before
    clock.advance(2 * MINUTE)
    assert (await browser.send("GET", "/")).status == 200


async def test_a_logout(browser: Browser, app: App, clock: ManualClock) -> None:
    """A logout with the CSRF token ends the session and deletes the cookie, even if a renewal was due."""
    await browser.log_in()
    csrf, cookie = await browser.csrf(), browser.cookie
    await until_a_renewal_is_due(browser, clock)
    assert (await browser.send("POST", "/logout", X_CSRF_Token=csrf)).status in (204, 303)
    assert browser.cookie == ""
    async with AsyncClient(app.address) as client:
        assert (await client.validate(cookie)).verdict is Verdict.REVOKED


@pytest.mark.parametrize(
    "headers", [{}, {"X_CSRF_Token": ""}, {"X_CSRF_Token": "x"}], ids=["missing", "empty", "wrong"]
)
async def test_a_request_with_side_effects_needs_the_csrf_token(browser: Browser, headers: dict[str, Any]) -> None:
    """Without the session's CSRF token a logout is denied with 403, and the session continues with its cookie."""
    await browser.log_in()
    assert (await browser.send("POST", "/logout", **headers)).status == 403
    assert browser.seen == []
    assert (await browser.send("GET", "/")).status == 200


@pytest.mark.parametrize("kind", [FlaskSite])
async def test_a_logout_by_the_form(kind: type[Site], app: App) -> None:
    """The form of the page logs the user out: the CSRF token arrives in the field `csrf`. A wrong one is denied."""
    async with visit(kind, app) as browser:
        await browser.log_in()
        csrf, cookie = await browser.csrf(), browser.cookie
        assert (await browser.send("POST", "/logout", {"csrf": "made up"})).status == 403
        assert (await browser.send("GET", "/")).status == 200
        assert (await browser.send("POST", "/logout", {"csrf": csrf})).status == 303
        assert browser.cookie == ""
        async with AsyncClient(app.address) as client:
            assert (await client.validate(cookie)).verdict is Verdict.REVOKED


async def test_a_link_does_not_log_out(browser: Browser) -> None:
    """A GET of the logout is answered with 405, and the session continues with its cookie."""
    await browser.log_in()
    assert (await browser.send("GET", "/logout")).status == 405
    assert browser.seen == []
    assert (await browser.send("GET", "/")).status == 200


@pytest.mark.parametrize("kind", [FlaskSite])
async def test_a_subject_is_text(kind: type[Site], app: App) -> None:
    """A subject that looks like HTML is shown as text."""
    async with visit(kind, app) as browser, AsyncClient(app.address) as client:
        browser.cookie = (await client.create(subject="<b>alice")).token.reveal()
        page = (await browser.send("GET", "/")).text
        assert "&lt;b&gt;alice" in page
        assert "<b>" not in page


async def test_what_is_seen_of_the_browser_arrives(browser: Browser, app: App, clock: ManualClock) -> None:
    """The login, later requests and the logout pass on the address and the user agent of the browser."""
    await browser.log_in()
    csrf = await browser.csrf()
    async with AsyncClient(app.address) as client:
        (session,) = [item async for item in client.list(subject="alice")]
        assert session.client == ClientContext(ip_address="127.0.0.1", user_agent=AGENT)
        clock.advance(10 * MINUTE)
        newer = AGENT.replace("143", "144")
        await browser.send("GET", "/", User_Agent=newer)
        (session,) = [item async for item in client.list(subject="alice")]
        assert session.last_client == ClientContext(ip_address="127.0.0.1", user_agent=newer)
        await browser.send("POST", "/logout", X_CSRF_Token=csrf, User_Agent=newer)
        (ended,) = [event async for event in client.activity("alice") if event.type is EventType.SESSION_REVOKED]
        assert ended.client == ClientContext(ip_address="127.0.0.1", user_agent=newer)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", ""])
async def test_a_login_from_another_site(browser: Browser, site: str) -> None:
    """A login form that another site submits is refused, a site of the same domain included, and sets no cookie."""
    own = f"https://{browser.site.host}"
    assert (await browser.log_in(Sec_Fetch_Site=site, Origin=own)).status == 403
    assert browser.cookie == ""
    assert (await browser.log_in(Sec_Fetch_Site="same-origin")).status in (200, 303)
    assert browser.cookie


@pytest.mark.parametrize("origin", ["https://evil.example", "https://evil-{}", "https://{}.evil.example", "null", ""])
async def test_a_login_without_fetch_metadata(browser: Browser, origin: str) -> None:
    """Without `Sec-Fetch-Site` a login is accepted only if `Origin` names the host of the request."""
    host = browser.site.host
    for headers in ({"Origin": origin.format(host)}, {"Accept": "*/*"}):  # the second has neither header
        assert (await browser.log_in(**headers)).status == 403
        assert browser.cookie == ""
    assert (await browser.log_in(Origin=f"http://{host}")).status in (200, 303)
    assert browser.cookie


@pytest.mark.parametrize("kind", [FlaskSite])
async def test_the_login_page_of_a_user_who_is_logged_in(kind: type[Site], app: App, clock: ManualClock) -> None:
    """The login page sends a logged-in user back to the start, and shows the form to everybody else."""
    async with visit(kind, app) as browser:
        assert (await browser.send("GET", "/login")).status == 200
        await browser.log_in()
        assert (await browser.send("GET", "/login")).status == 303
        async with AsyncClient(app.address) as client:
            guest = await client.create()
        user, browser.cookie = browser.cookie, guest.token.reveal()
        assert (await browser.send("GET", "/login")).status == 200
        browser.cookie = user
        clock.advance(31 * MINUTE)
        assert (await browser.send("GET", "/login")).status == 200


@pytest.mark.parametrize("kind", [FlaskSite])
async def test_a_request_that_a_login_overtook(kind: type[Site], app: App) -> None:
    """A request with the cookie from before a login leads to the login page, and from there back to the start."""
    async with visit(kind, app) as browser:
        await browser.log_in()
        old = browser.cookie
        await browser.log_in()
        new, browser.cookie = browser.cookie, old
        assert (await browser.send("GET", "/")).status == 303
        assert browser.cookie == old  # a browser would keep the new one
        browser.cookie = new
        assert (await browser.send("GET", "/login")).status == 303
        assert (await browser.send("GET", "/")).status == 200


@pytest.mark.parametrize("kind", [FlaskSite])
async def test_a_locked_source(kind: type[Site], tmp_path: Path, clock: ManualClock) -> None:
    """If the source is locked, requests and logins get 429, and the cookie stays: it works again after the lock."""
    text = "[applications.default.guessing]\nalarm_after = 1\nlock_after = 1\ndeny_valid = true\n"
    async with serving(config_for(tmp_path, text), clock) as app, visit(kind, app) as browser:
        await browser.log_in()
        csrf = await browser.csrf()
        async with AsyncClient(app.address) as client:
            guess = await client.validate("guess", client=ClientContext(ip_address="127.0.0.1"))
        assert not guess.valid
        for answer in (
            await browser.send("GET", "/"),
            await browser.send("POST", "/logout", X_CSRF_Token=csrf),
            await browser.log_in(),
        ):
            assert (answer.status, answer.set_cookie) == (429, [])
        assert (await browser.send("GET", "/login")).status == 429
        clock.advance(16 * MINUTE)
        assert (await browser.send("GET", "/")).status == 200


async def test_an_outage(browser: Browser, app: App) -> None:
    """If the authority is out of reach, requests and logins are answered with 503, and the cookie stays."""
    await browser.log_in()
    cookie = browser.cookie
    await app.stop()
    assert (await browser.send("GET", "/")).status == 503
    assert (await browser.log_in()).status == 503
    browser.cookie = ""
    assert (await browser.log_in()).status == 503
    assert cookie
    assert browser.seen == []


async def test_an_outage_while_a_renewal_is_pending(browser: Browser, app: App, clock: ManualClock) -> None:
    """If the authority fails after a validation that renewed the token, the response is 503 without a cookie."""
    await browser.log_in()
    csrf, cookie = await browser.csrf(), browser.cookie
    await until_a_renewal_is_due(browser, clock)
    loop = asyncio.get_running_loop()

    def stop(user: str, password: str) -> bool:
        asyncio.run_coroutine_threadsafe(app.stop(), loop).result()
        return True

    browser.site.module.password_is_correct = stop  # runs between the validation and the login
    answer = await browser.log_in(Sec_Fetch_Site="same-origin", X_CSRF_Token=csrf)
    assert (answer.status, answer.set_cookie, browser.cookie) == (503, [], cookie)
