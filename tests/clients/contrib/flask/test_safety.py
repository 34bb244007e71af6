"""The site is safe without doing anything for it: forged requests, planted and stolen cookies, other users' devices."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask, session

from sessiond.app import App
from sessiond_client import AsyncClient, ClientContext, Verdict
from tests.clients.contrib.flask.site import Browser, running
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

MINUTE = 60_000


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "same-origin, same-origin"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost, http://localhost"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/cart?item=x", "/login", "/logout", "/logout-everywhere", "/devices/x/end"])
async def test_a_request_from_another_site(browser: Browser, headers: dict[str, str], path: str) -> None:
    """What a page of another site sends is refused with 403, even with the user's CSRF token, logins included."""
    await browser.log_in()
    csrf = await browser.csrf()
    answer = await browser.send("POST", path, {"X-CSRF-Token": csrf, "Accept": "text/html", **headers})
    assert (answer.status_code, "Location" in answer.headers, browser.seen) == (403, False, [])
    assert (await browser.get("/")).text == "alice"


async def test_a_login_from_another_site(browser: Browser) -> None:
    """A login form that another site submits logs nobody in, whether the browser has a cookie or not."""
    for _ in range(2):
        assert (await browser.send("POST", "/login", {"Origin": "https://evil.example"})).status_code == 403
        assert (await browser.get("/")).text == "guest"
        await browser.get("/form")  # now it has one


async def test_a_request_without_the_csrf_token(browser: Browser) -> None:
    """A missing, wrong or foreign CSRF token is refused with 403 and never sent to the login page."""
    other = Browser(browser.app)
    await other.log_in("bob")
    foreign = await other.csrf()
    await browser.log_in()
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": foreign}):
        answer = await browser.send("POST", "/logout", {"Accept": "text/html", **headers})
        assert (answer.status_code, "Location" in answer.headers, browser.seen) == (403, False, [])
        assert "form is too old" in answer.text
    program = await browser.send("POST", "/logout")
    assert (program.json or {})["error"] == "csrf_failed"
    assert (await browser.get("/")).text == "alice"


async def test_the_csrf_token_from_before_a_login(browser: Browser) -> None:
    """A guest's CSRF token is worthless after the login."""
    csrf = await browser.csrf()
    await browser.log_in()
    assert (await browser.send("POST", "/cart?item=x", {"X-CSRF-Token": csrf})).status_code == 403


async def test_a_form_in_another_tab_survives_a_step_up(browser: Browser, app: App, clock: ManualClock) -> None:
    """A form that was open during a step-up can be sent for as long as the policy's overlap says, and no longer."""
    await browser.log_in()
    csrf = await browser.csrf()
    await browser.log_in(level="2")
    assert (await browser.send("POST", "/cart?item=x", {"X-CSRF-Token": csrf})).status_code == 200
    clock.advance(11 * MINUTE)
    assert (await browser.send("POST", "/cart?item=x", {"X-CSRF-Token": csrf})).status_code == 403


async def test_a_token_that_was_planted_before_the_login(browser: Browser, app: App) -> None:
    """A guest's token that somebody else knows is worthless after the user has logged in with it."""
    async with AsyncClient(app.address) as client:
        planted = (await client.create()).token.reveal()
        browser.jar["__Host-id"] = planted
        await browser.log_in()
        thief = Browser(browser.app, {"__Host-id": planted})
        assert (await thief.get("/")).text == "guest"
        assert not (await client.validate(planted)).valid
    assert (await browser.get("/")).text == "alice"


async def test_an_attackers_own_session_that_was_planted(browser: Browser) -> None:
    """A login over another user's planted session leaves nothing of it, and needs that session's CSRF token."""
    mallory = Browser(browser.app)
    await mallory.log_in("mallory")
    await mallory.post("/cart?item=poison")
    browser.jar.update(mallory.jar)
    assert (await browser.send("POST", "/login")).status_code == 403
    await browser.log_in()
    assert (await browser.get("/")).text == "alice"
    assert (await browser.get("/cart")).json == {"cart": []}
    assert (await mallory.get("/")).text == "guest"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\r\nSet-Cookie: a=b",
        "/x\r\n\r\n<script>",
        "javascript:alert(1)",
        "http:evil.example",
        "",
    ],
)
async def test_a_redirect_after_the_login(browser: Browser, target: str) -> None:
    """`safe_path` sends nobody to another site, and writes no line end into a header."""
    answer = await browser.post(f"/login?next={quote(target, safe='')}")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert "a" not in browser.jar


async def test_the_way_to_the_login_and_back(browser: Browser) -> None:
    """A page that needs a login leads to the login page and from there back, query included."""
    answer = await browser.get("/account?a=1&b=%0d%0aX:y", Accept="text/html")
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/login?next=/account%3Fa%3D1%26b%3D%250d%250aX%3Ay"
    back = await browser.post(answer.headers["Location"])
    assert back.headers["Location"] == "/account?a=1&b=%0d%0aX:y"
    odd = await browser.send("GET", "/", {"Accept": "text/html"}, environ={"PATH_INFO": "//evil.example/../account"})
    assert (odd.status_code, "Location" in odd.headers) == (404, False)


async def test_line_ends_in_a_cookie(browser: Browser) -> None:
    """A cookie with control characters is nothing but a bad token: a guest's request, and no header of ours has it."""
    for cookie in ("__Host-id=a\rb", "__Host-id=%0d%0aSet-Cookie:x=y", "__Host-id=\x00"):
        answer = await browser.send("GET", "/", environ={"HTTP_COOKIE": cookie})
        assert (answer.status_code, answer.text) == (200, "guest")
        assert all("\n" not in value and "x=y" not in value for _, value in answer.headers)


async def test_two_cookies_of_one_name(browser: Browser) -> None:
    """With two session cookies nobody is logged in, and what has effects is refused: one may have been planted."""
    mallory = Browser(browser.app)
    await mallory.log_in("mallory")
    await browser.log_in()
    csrf = await browser.csrf()
    for joined in ("; ", ", "):
        both = f"__Host-id={browser.cookie}{joined}__Host-id={mallory.cookie}"
        assert (await browser.get("/", Cookie=both)).text == "guest"
        for path in ("/cart?item=x", "/login", "/logout"):
            answer = await browser.send("POST", path, {"Cookie": both, "X-CSRF-Token": csrf})
            assert (answer.status_code, browser.seen) == (400, [])
        assert (await browser.get("/account", Cookie=both)).status_code == 400
        assert (await browser.get("/form", Cookie=both)).headers.getlist("Set-Cookie") == []
    assert (await browser.get("/")).text == "alice"


async def test_names_of_cookies_come_from_the_policy(tmp_path: Path, clock: ManualClock) -> None:
    """With other names in the authority's configuration the site works without a change."""
    text = '[applications.shop.cookie]\nname = "sid"\nanonymous_name = "guest"\n'
    async with serving(config_for(tmp_path, text), clock) as app:
        with running(app.address, application="shop") as site:
            browser = Browser(site)
            await browser.post("/cart?item=tea")
            assert list(browser.jar) == ["__Host-guest"]
            await browser.log_in()
            assert list(browser.jar) == ["__Host-sid"]
            assert (await browser.get("/cart")).json == {"cart": ["tea"]}
            await browser.post("/logout")
            assert browser.jar == {}


async def test_devices_of_somebody_else(browser: Browser, app: App) -> None:
    """A devices page shows and ends the sessions of its user only; for any other id nothing happens."""
    bob = Browser(browser.app)
    await bob.log_in("bob")
    (theirs,) = (await bob.get("/devices")).json or []
    await browser.log_in()
    phone = Browser(browser.app)
    await phone.log_in()
    rows = sorted((await browser.get("/devices")).json or [], key=lambda row: bool(row["current"]))
    assert [row["current"] for row in rows] == [False, True]
    assert {row["text"] for row in rows} == {"Firefox 143 on Linux"}
    for other in (theirs["id"], "no-session", "0197b5a0-0000-7000-8000-000000000000"):
        assert (await browser.post(f"/devices/{other}/end")).json == {"ended": False}
    assert (await bob.get("/")).text == "bob"
    assert (await browser.post(f"/devices/{rows[0]['id']}/end")).json == {"ended": True}
    assert (await phone.get("/")).text == "guest"
    assert (await browser.post(f"/devices/{rows[1]['id']}/end")).json == {"ended": True}
    assert browser.jar == {}


async def test_the_activity_of_a_user(browser: Browser) -> None:
    """A page of the activity shows what happened to the account of its user, newest first, and a guest none."""
    assert (await browser.get("/activity")).status_code == 401
    bob, phone = Browser(browser.app), Browser(browser.app)
    await bob.log_in("bob")
    await phone.log_in()
    await phone.post("/logout")
    await browser.log_in()
    rows = (await browser.get("/activity")).json or []
    assert [[row[0], row[3]] for row in rows] == [["login", True], ["ended", False], ["login", False]]
    assert rows[0][1]
    assert "Firefox" in rows[0][2]


async def test_a_guest_has_no_devices(browser: Browser) -> None:
    """A guest, with or without a session, can list and end nothing: also not the sessions of all other guests."""
    other = Browser(browser.app)
    await other.post("/cart?item=tea")
    for _ in range(2):
        assert (await browser.get("/devices")).status_code == 401
        for path in ("/devices/x/end", "/logout-everywhere", "/end-others"):
            assert (await browser.post(path)).status_code == 401
    assert (await other.get("/cart")).json == {"cart": ["tea"]}


async def test_a_guessing_network(tmp_path: Path, clock: ManualClock) -> None:
    """A locked network gets 429 with Retry-After, logins included, and its cookies work again after the lock."""
    text = "[applications.default.guessing]\nalarm_after = 1\nlock_after = 1\ndeny_valid = true\n"
    async with serving(config_for(tmp_path, text), clock) as app, AsyncClient(app.address) as client:
        with running(app.address) as site:
            browser = Browser(site)
            await browser.log_in()
            csrf = await browser.csrf()
            await client.validate("guess", client=ClientContext(ip_address="127.0.0.1"))
            for answer in (
                await browser.get("/"),
                await browser.send("POST", "/login", {"X-CSRF-Token": csrf}),
                await Browser(site).send("POST", "/login"),
            ):
                assert answer.status_code == 429
            assert int((await browser.get("/")).headers["Retry-After"]) > 0
            clock.advance(16 * MINUTE)
            assert (await browser.get("/")).text == "alice"


async def test_no_token_is_shown(browser: Browser, site: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """The page and the log of a fault of the application, and the objects of the request, show no token."""
    caplog.set_level(logging.DEBUG)
    reprs: list[Any] = []

    @site.after_request
    def look(response: Any) -> Any:
        kept: Any = session._get_current_object()  # type: ignore[attr-defined]
        exchange = kept.exchange
        reprs.append(repr((kept, exchange, exchange.request, exchange.values, exchange.token, exchange.csrf)))
        return response

    await browser.log_in()
    csrf = await browser.csrf()
    page = await browser.get("/fault")
    assert page.status_code == 500
    shown = page.text + caplog.text + str(reprs)
    assert "ZeroDivisionError" in shown
    assert browser.cookie not in shown
    assert csrf not in shown


async def test_a_session_that_was_ended_elsewhere(browser: Browser, app: App) -> None:
    """After a revocation the next request is a guest's."""
    await browser.log_in()
    async with AsyncClient(app.address) as client:
        await client.revoke_all(subject="alice")
        assert (await client.validate(browser.cookie)).verdict is Verdict.REVOKED
    assert (await browser.get("/")).text == "guest"
    assert (await browser.get("/account")).status_code == 401
