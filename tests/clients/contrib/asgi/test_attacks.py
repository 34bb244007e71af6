"""Attacks on a shop that does nothing about them itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sessiond.app import App
from sessiond_client import AsyncClient, Verdict
from sessiond_client.contrib.asgi import SCOPE_KEY, RouteRequirements, login, require
from tests.clients.contrib.asgi.shop import COOKIE, PAGE, Browser, Counter, opened, plain, shop, visiting
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

EVIL = "https://evil.example"


# Requests that pages of other sites send


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "", "Origin": EVIL},
        {"Sec_Fetch_Site": "", "Origin": "null"},
        {"Sec_Fetch_Site": "", "Origin": "https://shop.example.evil.example"},
    ],
    ids=lambda headers: "-".join(headers.values()).strip("-"),
)
@pytest.mark.parametrize("path", ["/cart", "/login", "/logout"])
async def test_a_request_of_another_site(app: App, path: str, headers: dict[str, str]) -> None:
    """A request of another site's page is refused with 403, with the right CSRF token too, and asks nothing."""
    counter = Counter()
    async with visiting(app.address, interceptors=[counter]) as browser:
        await browser.log_in()
        token, before = (await browser.get("/token")).text, browser.cookies
        counter.calls.clear()
        answer = await browser.post(path, token=token, **headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "csrf_failed")
        assert counter.calls == []
        assert browser.cookies == before
        assert await browser.seen() == {"subject": "alice", "cart": []}


async def test_a_login_of_another_site_without_cookie(app: App) -> None:
    """Another site cannot log a visitor in who has no cookie yet."""
    async with visiting(app.address) as browser:
        assert (await browser.post("/login", token="", Sec_Fetch_Site="cross-site")).status_code == 403
        assert browser.cookies == {}


async def test_a_missing_token(app: App) -> None:
    """Without the CSRF token, a request with side effects is refused, and the handler does not run."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        assert (await browser.post("/cart", token="")).status_code == 403
        assert (await browser.seen())["cart"] == []


async def test_a_token_of_another_session(app: App) -> None:
    """The CSRF token of another session, of the same user too, is refused."""
    shared = shop(app.address)
    async with opened(shared) as browser:
        other = Browser(shared)
        await browser.log_in()
        async with other.http:
            await other.log_in()
            foreign = (await other.get("/token")).text
        assert foreign
        assert (await browser.post("/cart", token=foreign)).status_code == 403


async def test_a_failed_check_never_leads_to_the_login(app: App) -> None:
    """A page whose CSRF check failed is an error page with 403 and no redirect: logging in would not help."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        answer = await browser.post("/logout", token="wrong", **_named(PAGE))
        assert answer.status_code == 403
        assert "location" not in answer.headers
        assert answer.headers["content-type"].startswith("text/html")
        assert (await browser.seen())["subject"] == "alice"


async def test_a_webhook(app: App) -> None:
    """Below `csrf_exempt` other servers and sites may send requests; everywhere else they may not."""
    async with visiting(app.address, csrf_exempt=["/cart"]) as browser:
        await browser.log_in()
        assert (await browser.post("/cart", token="", Sec_Fetch_Site="cross-site")).status_code == 200
        assert (await browser.post("/logout", token="")).status_code == 403


async def test_an_origin_that_is_trusted(app: App) -> None:
    """A page of a trusted origin may send requests, with the CSRF token."""
    async with visiting(app.address, trusted_origins=["https://app.example"]) as browser:
        await browser.log_in()
        headers = {"Sec_Fetch_Site": "cross-site", "Origin": "https://app.example"}
        assert (await browser.post("/cart", **headers)).status_code == 200
        assert (await browser.post("/cart", token="", **headers)).status_code == 403


# Fixation


async def test_a_planted_guest_session(app: App) -> None:
    """A guest's cookie that an attacker planted is worthless after the login, and so is its CSRF token."""
    shared = shop(app.address)
    async with opened(shared) as victim:
        attacker = Browser(shared, address="203.0.113.9")
        async with attacker.http:
            await attacker.post("/cart")
            planted, known = attacker.cookies, (await attacker.get("/token")).text
            victim.cookies = planted
            await victim.log_in()
            assert victim.cookies != planted
            assert (await attacker.seen())["subject"] == ""
            attacker.cookies = planted
            assert (await attacker.get("/account")).status_code == 401
        assert (await victim.post("/cart", token=known)).status_code == 403


async def test_a_planted_session_of_the_attacker(app: App) -> None:
    """If an attacker plants a cookie of a session of his own, the victim's login gets another session without it."""
    shared = shop(app.address)
    async with opened(shared) as victim:
        attacker = Browser(shared, address="203.0.113.9")
        async with attacker.http:
            await attacker.log_in("mallory")
            await attacker.post("/cart")
            victim.cookies = attacker.cookies
            await victim.log_in("alice")
            assert await victim.seen() == {"subject": "alice", "cart": []}
            assert (await attacker.seen())["subject"] in ("", "mallory")


# Addresses in redirects and headers


@pytest.mark.parametrize(
    "target",
    [
        EVIL,
        "//evil.example",
        "/\\evil.example",
        "/%09/evil.example",
        "javascript:alert(1)",
        "/a%0d%0aSet-Cookie:%20x=y",
    ],
)
async def test_an_open_redirect_after_the_login(app: App, target: str) -> None:
    """The way back after a login leads to a path of the shop, whatever `next` says."""
    async with visiting(app.address) as browser:
        answer = await browser.post(f"/login?next={target}", token="")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert set(browser.cookies) == {COOKIE}


@pytest.mark.parametrize("path", ["/account?a=b&c=d", "/account"])
async def test_the_way_back(app: App, path: str) -> None:
    """A page that needs a login sends the browser to the login page with its own path and query as `next`."""
    async with visiting(app.address) as browser:
        answer = await browser.get(path, **_named(PAGE))
        assert answer.status_code == 303
        back = answer.headers["location"].removeprefix("/login?next=")
        assert (await browser.post(f"/login?next={back}", token="")).headers["location"] == path


@pytest.mark.parametrize(
    "path", ["/account%0d%0aSet-Cookie:%20x=y", "/account?x=%0d%0aSet-Cookie:%20x=y", "/.//evil.example"]
)
async def test_line_ends_in_the_path(app: App, path: str) -> None:
    """A path or query with line ends, and a path that looks like a host, cannot add a header or leave the site."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await require(scope, RouteRequirements())

    async with opened(plain(page, app.address)) as browser:
        answer = await browser.get(path, **_named(PAGE))
        assert answer.status_code == 303
        assert not set("\r\n") & set(answer.headers["location"])
        assert answer.headers["location"].startswith("/login")
        assert answer.headers.get_list("set-cookie") == []


@pytest.mark.parametrize("value", ["x\r\nSet-Cookie: a=b", "\x00", "é", "a" * 5000, '"quoted"', "a=b=c"])
async def test_a_cookie_with_anything_in_it(app: App, value: str) -> None:
    """A cookie that is no token is deleted, and none of its text is sent back."""
    async with visiting(app.address) as browser:
        raw = f"{COOKIE}={value}".encode()
        answer = await browser.http.get("/", headers=[(b"Cookie", raw)])
        assert answer.status_code == 200
        lines = answer.headers.get_list("set-cookie")
        assert all(line.startswith(f"{COOKIE}=;") and "Max-Age=0" in line for line in lines)
        assert "a=b;" not in str(answer.headers)


# Cookies


async def test_two_cookies_of_one_name(app: App) -> None:
    """With a second cookie of the session's name, planted from a sibling host, nothing is served as the user's."""
    async with visiting(app.address) as browser:
        await browser.log_in()
        own = browser.cookies[COOKIE]
        browser.cookies = {}
        async with AsyncClient(app.address) as client:
            planted = (await client.create(subject="mallory")).token.reveal()
        for pair in ((own, planted), (planted, own)):
            header = "; ".join(f"{COOKIE}={value}" for value in pair)
            answer = await browser.get("/", Cookie=header)
            assert answer.json()["subject"] == ""
            assert answer.headers.get_list("set-cookie") == []
            assert (await browser.post("/cart", token="", Cookie=header)).status_code == 400
            assert (await browser.get("/account", Cookie=header)).status_code == 400


async def test_other_cookie_names(tmp_path: Path, clock: ManualClock) -> None:
    """The names of the cookies come from the authority's policy, for users and guests."""
    text = '[applications.default.cookie]\nname = "sid"\nanonymous_name = "guest"\n'
    async with serving(config_for(tmp_path, text), clock) as app, visiting(app.address) as browser:
        await browser.post("/cart")
        (guest,) = browser.cookies
        assert guest.endswith("guest")
        await browser.log_in()
        (user,) = browser.cookies
        assert user.endswith("sid")
        assert await browser.seen() == {"subject": "alice", "cart": ["cup"]}


# What belongs to other users


async def test_the_devices_of_others(app: App) -> None:
    """The devices page can end the user's own sessions and nobody else's."""
    shared = shop(app.address)
    async with opened(shared) as browser:
        await browser.log_in("alice")
        async with AsyncClient(app.address) as client:
            own = await client.create(subject="alice")
            other = await client.create(subject="bob")
            guest = await client.create()
            rows = (await browser.get("/devices")).json()
            assert len(rows) == 2
            assert [row["current"] for row in rows].count(True) == 1
            for session, ended in ((other, False), (guest, False), (own, True)):
                answer = await browser.post(f"/devices?id={session.session.session_id}")
                assert answer.json() is ended
            assert (await browser.post("/devices?id=nonsense")).json() is False
            assert (await client.validate(other.token)).valid
            assert (await client.validate(guest.token)).valid
            assert (await client.validate(own.token)).verdict is Verdict.REVOKED


@pytest.mark.parametrize("path", ["/devices", "/logout-everywhere"])
async def test_a_guest_has_no_devices(app: App, path: str) -> None:
    """A guest with a session can neither list nor end sessions: those of all guests would be meant."""
    async with visiting(app.address) as browser:
        await browser.post("/cart")
        answer = await (browser.get(path) if path == "/devices" else browser.post(path))
        assert (answer.status_code, answer.json()["error"]) == (401, "login_required")
        assert (await browser.seen())["cart"] == ["cup"]


# What must be seen nowhere


async def test_no_token_is_shown(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """No repr, log record, error page or traceback text has a token."""
    reprs: list[str] = []

    async def broken(request: Request) -> Response:
        connection: Any = request.scope[SCOPE_KEY]
        exchange = connection.exchange
        for thing in (connection, exchange, exchange.request, exchange.session, exchange.validation, request.session):
            reprs.append(repr(thing))
        reprs.append(repr([name for name, _ in exchange.headers()]))
        await login(request, "x" * 300)  # too long: raises
        return PlainTextResponse("never")

    caplog.set_level(logging.DEBUG)
    async with visiting(app.address, Route("/broken", broken)) as browser:
        await browser.post("/cart")
        await browser.log_in()
        csrf, cookie = (await browser.get("/token")).text, browser.cookies[COOKIE]
        with pytest.raises(Exception, match="subject") as failed:
            await browser.get("/broken")
        forged = await browser.post("/cart", token="wrong")
    texts = [*reprs, str(failed.value), repr(failed.value), forged.text, caplog.text]
    for secret in (csrf, cookie):
        assert len(secret) > 20
        assert [text for text in texts if secret in text] == []


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in headers.items()}
