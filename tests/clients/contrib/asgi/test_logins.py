"""Logging in and out: double clicks, step-ups, other tabs, and responses that come late."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import anyio.from_thread
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from sessiond.app import App
from sessiond_client import AsyncClient, Session, Verdict
from sessiond_client.contrib.asgi import (
    current_session,
    end_other_devices,
    issue_companion,
    login,
    logout,
    recent_activity,
    requires,
    roll,
)
from tests.clients.contrib.asgi.shop import COOKIE, PAGE, Browser, Counter, opened, shop, visiting
from tests.support.clock import ManualClock

MINUTE = 60_000


async def sessions_of(app: App, subject: str) -> list[Session]:
    """The live sessions of a user."""
    async with AsyncClient(app.address) as client:
        return [session async for session in client.list(subject=subject)]


async def until_a_renewal_is_due(browser: Browser, clock: ManualClock) -> None:
    """Let time pass with a request now and then. The next request renews the token."""
    for _ in range(2):
        clock.advance(25 * MINUTE)
        await browser.seen()
    clock.advance(15 * MINUTE)


async def test_two_clicks_on_log_in(app: App) -> None:
    """Two logins at once with one cookie lead to one session, which is the user's."""
    async with visiting(app.address) as browser:
        token = (await browser.get("/login")).text
        answers = await asyncio.gather(*(browser.post("/login", token=token) for _ in range(2)))
        assert [answer.status_code for answer in answers] == [303, 303]
        assert (await browser.seen())["subject"] == "alice"
        assert len(await sessions_of(app, "alice")) == 1


async def test_two_clicks_on_log_out(app: App) -> None:
    """Two logouts at once both succeed, and the user is logged out."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        answers = await asyncio.gather(*(browser.post("/logout", token=token) for _ in range(2)))
        assert {answer.status_code for answer in answers} <= {303, 403}
        assert 303 in {answer.status_code for answer in answers}
        assert browser.cookies == {}
        assert await browser.seen() == {"subject": "", "cart": []}
        assert await sessions_of(app, "alice") == []


async def test_a_logout(app: App) -> None:
    """A logout ends the session and deletes the cookie; one more does no harm."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        cookie = browser.cookies[COOKIE]
        assert (await browser.post("/logout")).status_code == 303
        assert browser.cookies == {}
        assert (await browser.post("/logout")).status_code == 303
        async with AsyncClient(app.address) as client:
            assert (await client.validate(cookie)).verdict is Verdict.REVOKED


async def test_the_cookies_of_a_login_and_a_logout(app: App) -> None:
    """A login's response has the whole cookie; a logout's deletes it by name and path, and the site's data with it."""
    async with visiting(app.address) as browser:
        name, *attributes = (await browser.log_in()).headers["set-cookie"].split("; ")
        assert name.startswith(f"{COOKIE}=")
        assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]
        answer = await browser.post("/logout")
        assert answer.headers["set-cookie"].split("; ")[:2] == [f"{COOKIE}=", "Path=/"]
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert (answer.headers["cache-control"], "clear-site-data" in answer.headers) == ("no-store", True)


async def test_logging_out_everywhere(app: App) -> None:
    """All sessions of the user end, and none of anybody else."""
    shared = shop(app.address)
    async with opened(shared) as browser:
        other = Browser(shared)
        await browser.log_in()
        async with other.http:
            await other.log_in()
            assert (await browser.post("/logout-everywhere")).json() == 2
            assert browser.cookies == {}
            assert (await other.get("/account")).status_code == 401
            await other.log_in("bob")
            assert len(await sessions_of(app, "bob")) == 1


async def test_ending_the_other_devices(app: App) -> None:
    """After a change of password, `roll` and `end_other_devices` leave this session alone, with a new token."""

    async def change(request: Request) -> Response:
        await roll(request, "password changed")
        return JSONResponse(await end_other_devices(request))

    async with visiting(app.address, Route("/password", change, methods=["POST"])) as browser:
        async with AsyncClient(app.address) as client:
            await client.create(subject="alice")
        await browser.log_in()
        before = browser.cookies
        assert (await browser.post("/password")).json() == 1
        assert browser.cookies != before
        assert (await browser.seen())["subject"] == "alice"


async def test_the_activity_of_a_user(app: App) -> None:
    """A page of the activity shows what happened to the account of its user, newest first, and a guest none."""

    async def activity(request: Request) -> Response:
        return JSONResponse([[row.event, row.is_current] for row in await recent_activity(request, most=2)])

    async with visiting(app.address, Route("/activity", activity)) as browser:
        assert (await browser.get("/activity")).status_code == 401
        async with AsyncClient(app.address) as client:
            await client.create(subject="alice")
            await client.create(subject="bob")
        await browser.log_in()
        assert (await browser.get("/activity")).json() == [["login", True], ["login", False]]


async def test_a_step_up(app: App) -> None:
    """A page that needs level 2 asks the user to authenticate again, and is served afterwards."""
    async with visiting(app.address) as browser:
        assert (await browser.get("/payment")).json()["error"] == "login_required"
        await browser.log_in()
        denied = await browser.get("/payment")
        assert (denied.status_code, denied.json()) == (
            401,
            {"error": "step_up_required", "detail": "Please authenticate again.", "min_level": 2},
        )
        page = await browser.get("/payment", **{name.replace("-", "_"): value for name, value in PAGE.items()})
        assert (page.status_code, page.headers["location"]) == (303, "/login?next=/payment&min_level=2")
        await browser.log_in(level=2)
        assert (await browser.get("/payment")).text == "paid"


async def test_forms_in_other_tabs(app: App, clock: ManualClock) -> None:
    """A form that was open in another tab during a step-up is accepted for the policy's overlap, and then no more."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        form = (await browser.get("/token")).text
        await browser.log_in(level=2)
        clock.advance(9 * MINUTE)
        assert (await browser.post("/cart", token=form)).status_code == 200
        clock.advance(2 * MINUTE)
        assert (await browser.post("/cart", token=form)).status_code == 403


async def test_an_authentication_that_is_too_old(app: App, clock: ManualClock) -> None:
    """A page that needs a recent authentication asks for a new one, at the cost of a second question."""

    @requires(max_age=timedelta(minutes=5))
    async def secret(request: Request) -> Response:
        return PlainTextResponse("secret")

    counter = Counter()
    async with visiting(app.address, Route("/secret", secret), interceptors=[counter]) as browser:
        await browser.log_in()
        await browser.seen()
        counter.calls.clear()
        assert (await browser.get("/secret")).status_code == 200
        assert counter.calls == ["ValidateSession"] * 2
        clock.advance(6 * MINUTE)
        denied = await browser.get("/secret")
        assert denied.json()["max_authentication_age"] == 300
        await browser.log_in()
        assert (await browser.get("/secret")).status_code == 200


async def test_a_renewal_reaches_the_browser(app: App, clock: ManualClock) -> None:
    """A request during which a renewal is due sets the renewed token."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        await until_a_renewal_is_due(browser, clock)
        before = browser.cookies
        await browser.seen()
        assert browser.cookies != before
        clock.advance(2 * MINUTE)
        assert (await browser.seen())["subject"] == "alice"


async def test_a_login_while_a_renewal_is_due(app: App, clock: ManualClock) -> None:
    """A login in a request that also renewed the old token sends the login's cookie alone."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        token = (await browser.get("/token")).text
        await until_a_renewal_is_due(browser, clock)
        answer = await browser.post("/login", token=token)
        assert len(answer.headers.get_list("set-cookie")) == 1
        clock.advance(MINUTE)
        assert (await browser.seen())["subject"] == "alice"


@pytest.mark.parametrize(("seconds", "sent"), [(0.3, 0), (0.0, 1)])
async def test_a_late_response(app: App, clock: ManualClock, seconds: float, sent: int) -> None:
    """A response that begins later than `late_after` leaves out the renewed cookie; an earlier one sends it."""

    async def slow(request: Request) -> Response:
        await asyncio.sleep(seconds)
        return PlainTextResponse("done")

    async with visiting(app.address, Route("/slow", slow), late_after=0.1) as browser:
        await browser.log_in()
        await until_a_renewal_is_due(browser, clock)
        answer = await browser.get("/slow")
        assert len(answer.headers.get_list("set-cookie")) == sent


async def test_a_device_that_has_only_an_old_copy(app: App, clock: ManualClock) -> None:
    """Late requests with an old token keep the cookie, and a device that has nothing else gets one to log in with."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        await browser.seen()
        old = browser.cookies
        for wait in (25, 25, 25, 1, 2):
            clock.advance(wait * MINUTE)
            await browser.seen()
        newer, browser.cookies = browser.cookies, old
        for late in (await browser.get("/"), await browser.get("/token"), await browser.post("/cart", token="")):
            assert late.headers.get_list("Set-Cookie") == []
        assert (await browser.get("/account", **PAGE)).status_code == 303
        assert browser.cookies == old
        form = (await browser.get("/login")).text
        assert form
        assert browser.cookies != old
        assert (await browser.post("/login", token=form)).status_code == 303
        assert (await browser.seen())["subject"] == "alice"
        browser.cookies = newer
        assert (await browser.seen())["subject"] == "alice"


async def test_an_expired_session(app: App, clock: ManualClock) -> None:
    """After the idle timeout the cookie is deleted, and a page that needs a user leads to the login."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        clock.advance(31 * MINUTE)
        await browser.get("/account")
        clock.advance(5 * MINUTE)
        assert (await browser.get("/account")).status_code == 401
        assert browser.cookies == {}


async def test_a_companion_token(app: App) -> None:
    """A companion token has a cookie of its own, which is sent in addition."""

    async def confirm(request: Request) -> Response:
        await issue_companion(request, "payment")
        return PlainTextResponse("confirmed")

    async with visiting(app.address, Route("/confirm", confirm)) as browser:
        assert (await browser.get("/confirm")).status_code == 401
        await browser.log_in()
        await browser.get("/confirm")
        assert COOKIE in browser.cookies
        assert len(browser.cookies) == 2


async def test_an_endpoint_in_a_thread(app: App) -> None:
    """An endpoint that is not a coroutine reads and writes the session, and logs in by `anyio.from_thread.run`."""

    def threaded(request: Request) -> Response:
        request.session["thread"] = True
        anyio.from_thread.run(login, request, "alice")
        session = current_session(request)
        assert session is not None
        return JSONResponse({"subject": session.subject, **request.session})

    def gone(request: Request) -> Response:
        anyio.from_thread.run(logout, request)
        return PlainTextResponse("gone")

    async with visiting(app.address, Route("/thread", threaded), Route("/gone", gone)) as browser:
        assert (await browser.get("/thread")).json() == {"subject": "alice", "thread": True}
        assert (await browser.seen())["subject"] == "alice"
        await browser.get("/gone")
        assert browser.cookies == {}


async def test_a_client_behind_a_proxy(app: App) -> None:
    """The address that a trusted proxy names is recorded, and what the client wrote itself is not."""
    from sessiond_client.contrib.asgi import TrustedProxies

    trusted: Any = TrustedProxies(networks=("192.0.2.0/24",))
    async with visiting(app.address, trusted_proxies=trusted) as browser:
        await browser.post("/login", token="", X_Forwarded_For="198.51.100.66, 203.0.113.7")
        (session,) = await sessions_of(app, "alice")
        assert session.client is not None
        assert session.client.ip_address == "203.0.113.7"


async def test_a_form_right_after_the_logout_is_not_lost_silently(app: App) -> None:
    """A form with the cookie of a session that has just ended is answered as if a login were needed."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        token, old = (await browser.get("/token")).text, dict(browser.cookies)
        await browser.post("/logout")
        browser.cookies = old
        answer = await browser.post("/cart?item=tea", token=token)
        assert (answer.status_code, answer.json()["error"]) == (401, "login_required")
        assert "set-cookie" not in answer.headers
