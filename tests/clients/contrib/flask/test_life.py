"""Logins, logouts, requirements and outages, as users and browsers cause them."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from typing import Any

import pytest
from flask import Flask, session

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.contrib.flask import Refused, login
from tests.clients.contrib.flask.site import Browser, Calls, running
from tests.support.clock import ManualClock

MINUTE = 60_000


async def live_sessions(app: App, subject: str = "alice") -> int:
    """How many sessions of a subject are live."""
    async with AsyncClient(app.address) as client:
        return len([item async for item in client.list(subject=subject)])


async def test_a_guests_cart_survives_the_login(browser: Browser) -> None:
    """What a guest has put into the session is there after the login, and gone after the logout."""
    await browser.post("/cart?item=tea")
    await browser.log_in()
    await browser.post("/cart?item=cup")
    assert (await browser.get("/cart")).json == {"cart": ["tea", "cup"]}
    await browser.post("/logout")
    assert browser.jar == {}
    assert (await browser.get("/cart")).json == {"cart": []}
    assert (await browser.get("/")).text == "guest"


async def test_two_clicks_on_log_in(browser: Browser, app: App) -> None:
    """Two logins at once with one cookie lead to one live session, and whichever response is last, the user is in."""
    csrf = await browser.csrf()
    tabs = [browser.copy(), browser.copy()]
    answers = await asyncio.gather(*(tab.send("POST", "/login", {"X-CSRF-Token": csrf}) for tab in tabs))
    assert [answer.status_code for answer in answers] == [303, 303]
    assert await live_sessions(app) == 1
    for tab in tabs:
        assert (await tab.get("/")).text == "alice"


async def test_two_clicks_on_log_out(browser: Browser, app: App) -> None:
    """Two logouts at once leave no session and no cookie, and neither is an error."""
    await browser.log_in()
    csrf = await browser.csrf()
    tabs = [browser.copy(), browser.copy()]
    answers = await asyncio.gather(*(tab.send("POST", "/logout", {"X-CSRF-Token": csrf}) for tab in tabs))
    assert {answer.status_code for answer in answers} <= {303, 403}
    assert 303 in {answer.status_code for answer in answers}
    assert await live_sessions(app) == 0
    assert {} in [tab.jar for tab in tabs]


async def test_a_login_while_a_renewal_is_due(browser: Browser, clock: ManualClock) -> None:
    """A login sends its own cookie and not the renewal's of the validation before it."""
    await browser.log_in()
    csrf = await browser.csrf()
    for _ in range(2):
        clock.advance(25 * MINUTE)
        await browser.get("/")
    clock.advance(15 * MINUTE)
    await browser.send("POST", "/login", {"X-CSRF-Token": csrf})
    assert len(browser.seen) == 1
    assert (await browser.get("/")).text == "alice"


async def test_a_logout_while_a_renewal_is_due(browser: Browser, clock: ManualClock) -> None:
    """A logout deletes the cookie, and does not send the renewal's of the validation before it."""
    await browser.log_in()
    csrf, cookie = await browser.csrf(), browser.cookie
    for _ in range(2):
        clock.advance(25 * MINUTE)
        await browser.get("/")
    clock.advance(15 * MINUTE)
    await browser.send("POST", "/logout", {"X-CSRF-Token": csrf})
    assert (cookie != "", browser.jar) == (True, {})


async def test_the_cookies_of_a_login_and_a_logout(browser: Browser) -> None:
    """A login's response has the whole cookie; a logout's deletes it by name and path, and the site's data with it."""
    await browser.log_in()
    name, *attributes = browser.seen[0].split("; ")
    assert name.startswith("__Host-id=")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]
    answer = await browser.post("/logout")
    assert [line.split("; ")[:2] for line in browser.seen] == [["__Host-id=", "Path=/"]]
    assert "Max-Age=0" in browser.seen[0]
    assert (answer.headers["Cache-Control"], "Clear-Site-Data" in answer.headers) == ("no-store", True)


async def test_a_login_after_an_expiry(browser: Browser, clock: ManualClock) -> None:
    """After an expiry the login sets the new cookie alone: the deletion of the old one is not sent after it."""
    await browser.log_in()
    clock.advance(31 * MINUTE)
    await browser.send("POST", "/login")
    assert len(browser.seen) == 1
    assert (await browser.get("/")).text == "alice"


async def test_a_device_that_has_only_an_old_copy(browser: Browser, clock: ManualClock) -> None:
    """Late requests with an old token keep the cookie, and a device that has nothing else gets one to log in with."""
    await browser.log_in()
    await browser.get("/")
    device = browser.copy()
    for wait in (25, 25, 25, 1, 2):
        clock.advance(wait * MINUTE)
        await browser.get("/")
    old = dict(device.jar)
    for method, path in (("GET", "/"), ("GET", "/form"), ("GET", "/account"), ("POST", "/cart?item=x")):
        await device.send(method, path, {"Sec-Fetch-Site": "same-origin"})
        assert device.seen == []
    page = (await device.get("/login")).text
    assert device.jar != old
    (csrf,) = re.findall(r'value="([^"]+)"', page)
    assert (await device.send("POST", "/login", {"X-CSRF-Token": csrf})).status_code == 303
    for one in (device, browser):
        assert (await one.get("/")).text == "alice"


async def test_a_request_that_a_login_overtook(browser: Browser) -> None:
    """A request with the cookie from before a login is a guest's, and leaves the cookie alone."""
    await browser.log_in()
    late = browser.copy()
    await browser.log_in()
    answer = await late.get("/account", Accept="text/html")
    assert (answer.status_code, answer.headers["Location"], late.seen) == (303, "/login?next=/account", [])
    assert (await browser.get("/account")).text == "alice"


async def test_a_renewal_reaches_the_browser(browser: Browser, clock: ManualClock) -> None:
    """The response to an ordinary page carries a renewed token, also if the page does not use the session."""
    await browser.log_in()
    before = browser.cookie
    for _ in range(3):
        clock.advance(25 * MINUTE)
        assert (await browser.get("/plain")).status_code == 200
    assert browser.cookie != before
    assert (await browser.get("/")).text == "alice"


async def test_a_late_response(app: App, clock: ManualClock) -> None:
    """A response that begins long after the validation leaves out its cookies: a newer one may have been sent."""
    with running(app.address, late_after=0.05) as site:

        @site.get("/slow")
        def slow() -> str:
            time.sleep(0.2)  # longer than `late_after`
            return "slow"

        browser = Browser(site)
        await browser.log_in()
        for _ in range(2):
            clock.advance(25 * MINUTE)
            await browser.get("/")
        clock.advance(15 * MINUTE)
        assert (await browser.get("/slow")).text == "slow"
        assert browser.seen == []
        await browser.get("/")
        assert browser.seen != []


async def test_levels(browser: Browser) -> None:
    """A page that needs a level sends a user below it to the login page, and a script gets the reason."""
    assert (await browser.get("/secret", Accept="text/html")).headers["Location"] == "/login?next=/secret"
    await browser.log_in()
    page = await browser.get("/secret", Accept="text/html")
    assert (page.status_code, page.headers["Location"]) == (303, "/login?next=/secret&min_level=2")
    script = await browser.get("/secret")
    assert (script.status_code, (script.json or {})["min_level"]) == (401, 2)
    await browser.log_in(level="2", elevate="1")
    assert (await browser.get("/secret")).text == "secret"
    assert (await browser.get("/account")).text == "alice"


async def test_a_fresh_login(browser: Browser, clock: ManualClock) -> None:
    """A page that needs a fresh login asks for one when the login is too old."""
    await browser.log_in()
    assert (await browser.get("/fresh")).text == "fresh"
    clock.advance(6 * MINUTE)
    assert (await browser.get("/fresh")).status_code == 401
    await browser.log_in()
    assert (await browser.get("/fresh")).text == "fresh"


async def test_a_download_that_needs_the_csrf_token(browser: Browser) -> None:
    """With `requires(csrf=True)` a GET needs the token too."""
    await browser.log_in()
    csrf = await browser.csrf()
    assert (await browser.get("/export")).status_code == 403
    assert (await browser.get("/export", X_CSRF_Token=csrf)).text == "export"


async def test_a_page_for_guests_and_stronger_users(browser: Browser) -> None:
    """With `guests=True` a guest is served, and a user must meet the other requirements."""
    assert (await browser.get("/offers")).text == "offers"
    await browser.log_in()
    assert (await browser.get("/offers")).status_code == 401


async def test_log_out_everywhere(browser: Browser, app: App) -> None:
    """All devices of the user are logged out, this one included; `end_other_devices` spares it."""
    others = [browser.copy() for _ in range(3)]
    for device in (browser, *others):
        await device.log_in()
    assert (await browser.post("/end-others")).json == {"ended": 3}
    assert (await browser.get("/")).text == "alice"
    await others[0].log_in()
    assert (await browser.post("/logout-everywhere")).json == {"ended": 2}
    assert browser.jar == {}
    assert (await others[0].get("/")).text == "guest"
    assert await live_sessions(app) == 0


async def test_a_change_of_role(browser: Browser) -> None:
    """`roll` replaces the token, keeps the data, and needs a session."""
    assert (await Browser(browser.app).send("POST", "/roll")).status_code == 401
    await browser.post("/cart?item=tea")
    await browser.log_in()
    before = browser.cookie
    assert (await browser.post("/roll")).text == "rolled"
    assert browser.cookie != before
    assert (await browser.get("/cart")).json == {"cart": ["tea"]}


async def test_a_fault_of_the_application(browser: Browser) -> None:
    """What was stored before the fault is kept, as with Flask's own sessions, and the page is Flask's 500."""
    await browser.log_in()
    answer = await browser.get("/fault")
    assert (answer.status_code, "Internal Server Error" in answer.text) == (500, True)
    assert (await browser.get("/")).text == "alice"


async def test_a_value_that_cannot_be_stored(site: Flask, browser: Browser) -> None:
    """Such a value is a 500, and the login of the same request still reaches the browser."""

    @site.post("/bad")
    def bad() -> str:
        login("alice")
        session["bad"] = object()
        return "never seen"

    assert (await browser.send("POST", "/bad")).status_code == 500
    assert (await browser.get("/")).text == "alice"


# Outages


async def test_an_outage(browser: Browser, app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Requests with a cookie get 503 with Retry-After, quickly, the cookie stays, and others are served as guests'.
    The log says why, once.
    """
    await browser.log_in()
    csrf, before = await browser.csrf(), dict(browser.jar)
    await app.stop()
    await browser.get("/")  # the one that finds out, after its retries
    begun = time.monotonic()
    for answer in (
        await browser.get("/"),
        await browser.get("/plain"),
        await browser.send("POST", "/login", {"X-CSRF-Token": csrf}),
        await browser.send("POST", "/logout", {"X-CSRF-Token": csrf}),
    ):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert answer.headers.getlist("Set-Cookie") == []
    assert time.monotonic() - begun < 15
    assert browser.jar == before
    stranger = Browser(browser.app)
    assert (await stranger.get("/")).text == "guest"
    assert (await stranger.send("POST", "/login")).status_code == 503
    assert (await stranger.get("/form")).status_code == 503  # its CSRF token would need a session
    assert caplog.text.count(f"no answer from sessiond at {app.address}: ") == 1


async def test_public_pages_during_an_outage(app: App) -> None:
    """Pages in `public_paths` are served as for a guest, and what they store replaces nobody's cookie."""
    with running(app.address, public_paths=["/cart", "/news/"], retries=0) as site:

        @site.get("/news/<int:number>")
        def news(number: int) -> str:
            session["seen"] = number
            return "news"

        browser = Browser(site)
        await browser.log_in()
        await app.stop()
        assert (await browser.get("/cart")).json == {"cart": []}
        assert (await browser.get("/news/1")).text == "news"
        assert browser.seen == []
        assert (await browser.get("/account")).status_code == 503


async def test_an_outage_while_a_page_is_made(browser: Browser, site: Flask, app: App) -> None:
    """If the data cannot be stored any more, the page is replaced by a 503, with nothing left of it."""
    loop = asyncio.get_running_loop()

    @site.get("/page")
    def page() -> Any:
        session["seen"] = True
        asyncio.run_coroutine_threadsafe(app.stop(), loop).result()
        return "page", {"Content-Disposition": "attachment", "Location": "/elsewhere"}

    await browser.log_in()
    answer = await browser.get("/page", Accept="text/html")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "page" not in answer.text
    assert not {"Content-Disposition", "Location", "Set-Cookie"} & set(answer.headers.keys())


async def test_an_outage_is_answered_by_the_applications_own_handler(app: App) -> None:
    """A handler for `Refused` sees outages too: of the first question, of a call in a view, and of storing."""
    with running(app.address, retries=0) as site:
        site.register_error_handler(Refused, lambda error: (f"own: {error.refusal.error}", error.refusal.status))
        site.add_url_rule("/store", "store", lambda: session.update(x=1) or "ok")
        browser = Browser(site)
        await browser.log_in()
        await app.stop()
        assert (await browser.get("/")).text == "own: unavailable"
        stranger = Browser(site)
        assert (await stranger.send("POST", "/login")).text == "own: unavailable"
        answer = await stranger.get("/store")
        assert (answer.status_code, answer.text) == (503, "own: unavailable")


async def test_an_outage_after_a_validation_that_renewed(
    browser: Browser, site: Flask, app: App, clock: ManualClock
) -> None:
    """If a login fails after a validation that renewed the token, no cookie is sent: the login may have replaced it."""
    loop = asyncio.get_running_loop()

    @site.post("/late-login")
    def late() -> str:
        asyncio.run_coroutine_threadsafe(app.stop(), loop).result()
        login("alice")
        return "never seen"

    await browser.log_in()
    csrf = await browser.csrf()
    for _ in range(2):
        clock.advance(25 * MINUTE)
        await browser.get("/")
    clock.advance(15 * MINUTE)
    answer = await browser.send("POST", "/late-login", {"X-CSRF-Token": csrf})
    assert (answer.status_code, browser.seen) == (503, [])


async def test_an_authority_that_was_never_there(calls: Calls) -> None:
    """A site starts without its authority, and serves guests."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
    with running(target, retries=0) as site:
        browser = Browser(site, {"__Host-id": "x"})
        assert (await browser.get("/")).status_code == 503
        assert (await Browser(site).get("/")).text == "guest"


@pytest.mark.parametrize("path", ["/none", "/login/"])
async def test_a_path_that_does_not_exist(browser: Browser, path: str) -> None:
    """A path without a view is Flask's 404, with and without a session."""
    assert (await browser.get(path)).status_code == 404
    await browser.log_in()
    assert (await browser.get(path)).status_code == 404


async def test_a_form_right_after_the_logout_is_not_lost_silently(browser: Browser) -> None:
    """A form with the cookie of a session that has just ended is answered as if a login were needed."""
    await browser.log_in()
    tab = browser.copy()
    csrf = await tab.csrf()
    await browser.post("/logout")
    answer = await tab.send("POST", "/cart?item=tea", {"X-CSRF-Token": csrf})
    assert (answer.status_code, answer.json) == (
        401,
        {"error": "login_required", "detail": "Please log in."},
    )
    assert tab.seen == []
