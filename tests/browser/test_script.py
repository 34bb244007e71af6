"""What the page script does in Chromium, under a strict content security policy."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Error, Page, Route

from sessiond_client.browser.streams import StreamRules
from tests.browser.site import Site, until, visited
from tests.support.browser import needs_browser

pytestmark = [needs_browser, pytest.mark.slow]

LOGIN = re.compile(r"/login(\?|$)")
TRIES = 5
"""Chromium keeps most pages for the back button, and not each one."""
SILENT = """
const ask = fetch;
window.fetch = (...arguments) => {
  if (localStorage.getItem("silent") === null) return ask(...arguments);
  localStorage.setItem("silent", "asked");
  return new Promise(() => {});
};
"""
"""Nothing is answered. Routes of Playwright would do that too, and then Chromium keeps no page."""


async def left(page: Page, seconds: float = 10) -> None:
    """Wait until a page has been left for the login page."""
    await page.wait_for_url(LOGIN, timeout=seconds * 1000)
    await says(page, "!document.documentElement.textContent.includes('private')")


async def who(page: Page) -> str:
    """Return what a page shows of its user."""
    return await page.inner_text("#who")


async def says(page: Page, expression: str, seconds: float = 10) -> None:
    """Wait until an expression is true on a page. Playwright's own way needs `eval`, which the site forbids."""
    await until(lambda: _holds(page, expression), seconds)


async def _holds(page: Page, expression: str) -> bool:
    try:
        return bool(await page.evaluate(expression))
    except Error:
        return False  # the page is being replaced by another one


# The end of the session


@pytest.mark.measured
async def test_a_revocation_reaches_all_pages(tmp_path: Path) -> None:
    """Within two seconds of a revocation, no page of the session is shown any more."""
    async with visited(tmp_path) as site:
        device, other = await site.device(), await site.device()
        pages = [await device.log_in(), await device.open(), await other.log_in("eve")]
        await until(lambda: site.streams == 2)
        await site.authority.revoke_all(subject="ada")
        async with asyncio.timeout(2):
            await asyncio.gather(left(pages[0]), left(pages[1]))
        assert await who(pages[2]) == "private: eve"


async def test_a_logout_reaches_all_tabs(tmp_path: Path) -> None:
    """A form that logs out in one tab logs out the others, also if the tab that logs out had the event stream."""
    async with visited(tmp_path) as site:
        device = await site.device()
        first, second = await device.log_in(), await device.open()
        await until(lambda: site.streams == 1)
        await first.click("#logout")
        await left(first)
        await left(second)
        assert await site.sessions() == []


async def test_the_response_of_a_logout_is_not_cancelled(tmp_path: Path) -> None:
    """The page learns of its end before the response to its own form, which deletes the cookie, and waits for it."""
    async with visited(tmp_path) as site:
        device = await site.device()
        page = await device.log_in()
        await until(lambda: site.streams == 1)
        failed: list[str] = []

        async def late(route: Route) -> None:
            response = await route.fetch(max_redirects=0)
            await asyncio.sleep(0.5)  # the event is faster
            with suppress(Error):  # cancelled
                await route.fulfill(response=response)

        page.on("requestfailed", lambda request: failed.append(request.url))
        await page.route("**/logout", late)
        await page.click("#logout")
        await left(page)
        assert [url for url in failed if url.endswith("/logout")] == []


async def test_the_idle_timeout_leaves_the_page(tmp_path: Path) -> None:
    """A page that nobody uses is left when its session has expired."""
    async with visited(tmp_path, idle_timeout="3s") as site:
        device = await site.device()
        page = await device.log_in(warnBefore=0)
        await left(page)
        assert await site.sessions() == []


async def test_without_event_streams(tmp_path: Path) -> None:
    """If there can be no event stream, the page asks for its status instead."""
    async with visited(tmp_path, rules=StreamRules(most=0)) as site:
        device = await site.device()
        page = await device.log_in(pollEvery=1)
        await site.authority.revoke_all(subject="ada")
        await left(page, 4)


async def test_another_user(tmp_path: Path) -> None:
    """A page of one user is left when somebody else logs in in another tab."""
    async with visited(tmp_path) as site:
        device = await site.device()
        first = await device.log_in()
        second = await device.open("/login")
        await device.sign_in(second, "eve")
        await left(first)
        assert await who(second) == "private: eve"


async def test_a_page_may_handle_the_end_itself(tmp_path: Path) -> None:
    """With `onEnded`, the page stays, learns the reason, and can be left as usual."""
    async with visited(tmp_path) as site:
        device = await site.device()
        page = await device.log_in(onEnded=True)
        await until(lambda: site.streams == 1)
        await site.authority.revoke_all(subject="ada")
        await says(page, "window.endings.length === 1")
        assert await page.evaluate("window.endings[0].reason") == "revoked"
        assert await who(page) == "private: ada"
        await page.evaluate("window.endings[0].leave()")
        await left(page)


async def test_a_public_page_is_not_left(tmp_path: Path) -> None:
    """A page that was opened without a session stays, whatever happens in other tabs, unless it requires one."""
    async with visited(tmp_path) as site:
        device = await site.device()
        public = await device.open("/public", pollEvery=1)
        private = await device.log_in()
        await private.click("#logout")
        await left(private)
        await public.evaluate("window.watch.check()")
        assert await public.inner_text("h1") == "Public"
        required = await device.context.new_page()
        await required.goto(device.address("/public", required=True))
        await left(required)


async def test_an_outage_at_the_deadline(tmp_path: Path) -> None:
    """If nobody can say whether a session lives when its time is up, the page is hidden until somebody can."""
    async with visited(tmp_path, idle_timeout="3s") as site:
        device = await site.device()
        page = await device.log_in(warnBefore=0)
        await site.app.stop()
        await says(page, "getComputedStyle(document.documentElement).display === 'none'")
        assert "/account" in page.url


# The warning


async def test_the_warning(tmp_path: Path) -> None:
    """Before the idle timeout a dialog counts down. Whoever wants to stay does, and the dialog goes."""
    async with visited(tmp_path, idle_timeout="6s") as site:
        device = await site.device()
        page = await device.log_in(warnBefore=4)
        dialog = page.locator("dialog[open]")
        await dialog.wait_for()
        assert "You will be logged out in" in await dialog.inner_text()
        await dialog.get_by_text("Stay logged in").click()
        await dialog.wait_for(state="detached")
        await dialog.wait_for()  # and nobody does anything for another while
        await left(page)


async def test_a_logout_from_the_warning(tmp_path: Path) -> None:
    """The dialog has a button that logs out at once, in words that the page has chosen."""
    async with visited(tmp_path, idle_timeout="6s") as site:
        device = await site.device()
        page = await device.log_in(warnBefore=5, texts={"logout": "Abmelden"})
        await page.get_by_text("Abmelden").click()
        await left(page)
        assert await site.sessions() == []


async def test_activity_in_another_tab_takes_the_warning_back(tmp_path: Path) -> None:
    """A request of another tab extends the session, and the warnings of all tabs end."""
    async with visited(tmp_path, idle_timeout="6s") as site:
        device = await site.device()
        first = await device.log_in(warnBefore=4, onWarning=True)
        await says(first, "window.warnings.length === 1")
        warning: Any = await first.evaluate("({...window.warnings[0], over: window.warnings[0].signal.aborted})")
        assert warning["canStay"]
        assert not warning["over"]
        assert 0 < warning["secondsLeft"] <= 4
        await device.open(warnBefore=0)
        await says(first, "window.warnings[0].signal.aborted")


# Tabs


async def test_tabs_share_one_stream(tmp_path: Path) -> None:
    """Of all tabs one has the event stream; when it closes another one does, and still all learn of the end."""
    async with visited(tmp_path) as site:
        device = await site.device()
        tabs = [await device.log_in(), *[await device.open() for _ in range(5)]]
        await until(lambda: site.streams == 1)
        await tabs[0].close()
        await asyncio.sleep(1)  # of the others, only one may open one
        assert site.streams == 1
        await site.authority.revoke_all(subject="ada")
        await asyncio.gather(*(left(tab) for tab in tabs[1:]))


async def test_separate_tabs(tmp_path: Path) -> None:
    """With `separateTabs`, a session is only shown in the tab in which the user has logged in."""
    async with visited(tmp_path) as site:
        device = await site.device()
        public = await device.open("/public", separateTabs=True)
        await says(public, "sessionStorage.length === 1")
        await public.goto(f"{site.url}/login")
        await device.sign_in(public, separateTabs=True)
        assert await who(public) == "private: ada"
        other = await device.open(separateTabs=True)
        await left(other)
        await asyncio.sleep(1.1)  # logins are told apart by their time
        await device.sign_in(other, separateTabs=True)
        assert await who(other) == "private: ada"


async def test_the_token_is_out_of_reach(tmp_path: Path) -> None:
    """Scripts of the page cannot read the cookie, and nothing of it is in what the endpoints say or the page stores."""
    async with visited(tmp_path) as site:
        device = await site.device()
        page = await device.log_in(logoutOnClose=True, separateTabs=False)
        cookies = {cookie["name"]: cookie for cookie in await device.context.cookies()}
        cookie = cookies["__Host-id"]
        assert cookie["httpOnly"]
        assert cookie["secure"]
        everything = await page.evaluate(
            "(async () => document.cookie + JSON.stringify([localStorage, sessionStorage]) +"
            " await (await fetch('/session/status')).text())()"
        )
        assert "ada" in everything
        assert cookie["value"] not in everything


# The last window


async def test_the_last_window_logs_out(tmp_path: Path) -> None:
    """With `logoutOnClose`, closing one of two tabs changes nothing, and closing the last one ends the session."""
    async with visited(tmp_path) as site:
        device = await site.device()
        first, second = await device.log_in(logoutOnClose=True), await device.open(logoutOnClose=True)
        await until(lambda: site.streams == 1)
        await first.close(run_before_unload=False)
        await asyncio.sleep(4)  # nothing tells that something does not happen
        assert len(await site.sessions()) == 1
        await second.close(run_before_unload=False)
        await until(lambda: nobody(site))


async def test_a_reload_does_not_log_out(tmp_path: Path) -> None:
    """With `logoutOnClose`, a reload and a way to another page of the site leave the session alone."""
    async with visited(tmp_path) as site:
        device = await site.device()
        page = await device.log_in(logoutOnClose=True)
        await page.reload()
        await page.goto(device.address(logoutOnClose=True, warnBefore=1))
        await asyncio.sleep(4)  # nothing tells that something does not happen
        assert len(await site.sessions()) == 1
        assert await who(page) == "private: ada"


async def nobody(site: Site) -> bool:
    """Whether the user has no session any more."""
    return await site.sessions() == []


# The back button


async def test_the_back_button_after_a_logout(tmp_path: Path) -> None:
    """After a logout the back button shows no private page, however often it is used."""
    async with visited(tmp_path, keeps_pages=True) as site:
        device = await site.device()
        page = await device.log_in()
        await page.goto(device.address(warnBefore=1))
        assert await who(page) == "private: ada"
        await page.click("#logout")
        await left(page)
        for _ in range(3):
            await go_back(page)
            await page.wait_for_timeout(500)  # nothing tells that nothing more is shown
            await says(page, "!document.documentElement.textContent.includes('private')", 2)


async def test_a_page_that_the_browser_has_kept(tmp_path: Path) -> None:
    """A page that the browser kept comes back hidden. It is left if its session has ended, and shown otherwise."""
    hidden = "display:none "
    async with visited(tmp_path, keeps_pages=True, cache_control="private") as site:
        for _ in range(TRIES):
            device = await site.device()
            page = await device.log_in()
            await until(lambda: site.streams == 1)
            await page.evaluate("scrollTo(0, 500); window.isKept = true")
            await page.goto(f"{site.url}/home")
            await go_back(page)
            await says(page, "location.pathname === '/account' && document.querySelector('#who') !== null")
            if not await page.evaluate("window.isKept === true"):
                continue
            await says(page, f"localStorage.getItem('seen') === '{hidden}'")
            await says(page, "getComputedStyle(document.documentElement).display !== 'none'")
            assert await who(page) == "private: ada"
            assert await page.evaluate("scrollY") == 500
            await page.goto(f"{site.url}/home")
            await site.authority.revoke_all(subject="ada")
            await go_back(page)
            await left(page)
            if await page.evaluate("localStorage.getItem('seen')") == 2 * hidden:
                return
        raise AssertionError("Chromium has kept no page")


async def test_a_kept_page_that_never_knew_its_session(tmp_path: Path) -> None:
    """A page that was left before it knew who is logged in is not shown again after the session has ended."""
    async with visited(tmp_path, keeps_pages=True, cache_control="private") as site:
        for _ in range(TRIES):
            device = await site.device()
            await device.log_in()
            page = await device.context.new_page()
            await page.add_init_script(SILENT)
            await page.goto(f"{site.url}/home")
            await page.evaluate("localStorage.removeItem('seen'); localStorage.setItem('silent', 'yes')")
            await page.goto(device.address("/account"))
            await says(page, "localStorage.getItem('silent') === 'asked'")
            await page.goto(f"{site.url}/home")
            await page.evaluate("localStorage.removeItem('silent')")
            await site.authority.revoke_all(subject="ada")
            await go_back(page)
            await left(page)
            # The page's own script notes that it comes back, and how: only of a page that was kept.
            if await page.evaluate("localStorage.getItem('seen')") == "display:none ":
                return
        raise AssertionError("Chromium has kept no page")


async def test_without_the_script_a_kept_page_is_shown(tmp_path: Path) -> None:
    """A page without the script comes back as it was left, although its session has ended: that is the danger."""
    async with visited(tmp_path, keeps_pages=True, cache_control="private") as site:
        for _ in range(TRIES):
            device = await site.device()
            page = await device.log_in()
            await page.goto(f"{site.url}/home")
            await page.goto(device.address("/public"))
            await site.authority.revoke_all(subject="ada")
            await go_back(page)
            with suppress(TimeoutError):
                return await says(page, "document.querySelector('#who').textContent === 'ada'", 4)
        raise AssertionError("Chromium has kept no page")


async def go_back(page: Page) -> None:
    """Use the back button. Playwright's own way waits for a page to load, and one that was kept does not."""
    with suppress(Error):  # the page is gone before it has answered
        await page.evaluate("history.back()")


# Mistakes


async def test_wrong_options(tmp_path: Path) -> None:
    """A wrong option is an error that names it."""
    wrong: dict[str, Any] = {
        "endpont": "/session/",
        "endpoint": "https://evil.example/",
        "loginPath": "//evil.example",
        "warnBefore": -1,
        "pollEvery": 0,
        "onWarning": "warn",
        "onEnded": {},
    }
    async with visited(tmp_path) as site:
        device = await site.device()
        page = await device.open("/home")
        for name, value in wrong.items():
            text = await tried(page, {name: value})
            assert text.startswith("TypeError: watchSession: ")
            assert name in text
        assert "must end in /" in await tried(page, {"endpoint": "/session"})
        assert await tried(page, {}) == "fine"


async def tried(page: Page, options: dict[str, Any]) -> str:
    """Return what comes of watching with these options."""
    return str(
        await page.evaluate(
            "async (options) => { const { watchSession } = await import('/session/session.js');"
            " try { watchSession(options).stop(); return 'fine' } catch (error) { return String(error) } }",
            options,
        )
    )
