"""Exchanges against a real authority, with both clients: one question, and a response that does no harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import NotJson, SessiondError, Unavailable, Verdict
from sessiond_client.gateway import (
    Action,
    Ask,
    CookieNames,
    Exchange,
    Gateway,
    GatewaySettings,
    RouteRequirements,
    Steps,
    account,
    routes,
)
from tests.clients.either import Either
from tests.clients.gateway.visitor import ALICE, Counting, Visitor, copy_of, request_of
from tests.clients.test_secrets import frames_of
from tests.support.clock import ManualClock

COOKIE = "__Host-id"
MINUTE = 60_000


def _asked(visitor: Visitor) -> dict[str, int]:
    """What was asked since the last time."""
    assert isinstance(visitor.client, Counting)
    asked = dict(visitor.client.asked)
    visitor.client.asked.clear()
    return asked


def _cookies(headers: list[tuple[str, str]]) -> list[str]:
    return [value for name, value in headers if name == "Set-Cookie"]


async def _live(visitor: Visitor, subject: str = ALICE) -> int:
    return len(await visitor.client.all("list", subject=subject))


# One question


async def test_a_guest_costs_nothing(visitor: Visitor) -> None:
    """A request without a session cookie asks nothing, and its response has no headers."""
    _asked(visitor)
    exchange = await visitor.send(cookie="theme=dark")
    assert exchange.gate() is Action.PROCEED
    assert await visitor.end(exchange) == []
    assert _asked(visitor) == {}


async def test_one_question(visitor: Visitor) -> None:
    """A request with a session costs one question, with data, CSRF token and the user in its answer."""
    await visitor.log_in()
    exchange = await visitor.send()
    exchange.values["cart"] = ["tea"]
    await visitor.end(exchange)
    _asked(visitor)
    exchange = await visitor.send("POST", "/cart", form=exchange.csrf.reveal() if exchange.csrf else None)
    assert exchange.gate() is Action.PROCEED
    assert (exchange.subject, exchange.values["cart"]) == (ALICE, ["tea"])
    assert await visitor.do(routes.check(exchange, RouteRequirements(level=1))) is Action.PROCEED
    assert exchange.csrf is not None
    await visitor.end(exchange)
    assert _asked(visitor) == {"validate": 1}


async def test_only_changes_are_written(visitor: Visitor) -> None:
    """A guest's first value opens a session; later only requests that change something write."""
    exchange = await visitor.send()
    exchange.values["cart"] = ["tea"]
    headers = await visitor.end(exchange)
    assert len(_cookies(headers)) == 1
    assert ("Vary", "Cookie") in headers
    _asked(visitor)
    exchange = await visitor.send()
    assert exchange.values["cart"] == ["tea"]
    assert _cookies(await visitor.end(exchange)) == []
    assert _asked(visitor) == {"validate": 1}
    exchange = await visitor.send()
    exchange.values["cart"].append("cup")
    await visitor.end(exchange)
    assert _asked(visitor) == {"validate": 1, "update_data": 1}
    assert await visitor.data() == {"cart": ["tea", "cup"]}


async def test_ignored_paths(visitor: Visitor, another: Callable[..., Gateway]) -> None:
    """On an ignored path no session exists, whatever the request carries."""
    await visitor.log_in()
    static = Visitor(visitor.client, another(ignored_paths=["/static/"]), visitor.jar)
    _asked(visitor)
    exchange = await static.send("POST", "/static/x", origin="https://evil.example")
    assert (exchange.gate(), exchange.session, exchange.token) == (Action.PROCEED, None, None)
    assert _asked(visitor) == {}


async def test_passive_paths(visitor: Visitor, another: Callable[..., Gateway], clock: ManualClock) -> None:
    """Polling does not keep a session alive, also not by a route's second question."""
    await visitor.log_in()
    polling = Visitor(visitor.client, another(passive_paths=["/poll"]), visitor.jar)
    for _ in range(3):
        clock.advance(9 * MINUTE)
        exchange = await polling.send(path="/poll")
        needed = RouteRequirements(max_age=timedelta(hours=1))
        assert await polling.do(routes.check(exchange, needed)) is Action.PROCEED
    clock.advance(4 * MINUTE)
    assert (await visitor.send()).session is None


# CSRF


async def test_csrf_tokens(visitor: Visitor) -> None:
    """A request with side effects needs the session's own token, in the form or in the header."""
    token = await visitor.form()
    assert (await visitor.send("POST", form=token)).gate() is Action.PROCEED
    assert (await visitor.send("POST", x_csrf_token=token)).gate() is Action.PROCEED
    stranger = Visitor(visitor.client, visitor.gateway)
    other = await stranger.form()
    for wrong in (None, "", "x", token[:-1], token + "A", other, "\ud800", token.swapcase()):
        exchange = await visitor.send("POST", form=wrong)
        assert exchange.gate() is Action.CSRF_ERROR, "a wrong token was accepted"
        assert exchange.session is None
        assert exchange.refusal(exchange.gate()).status == 403
    assert (await visitor.send("POST", form=token, x_csrf_token=other)).gate() is Action.CSRF_ERROR
    assert (await visitor.send("POST", form=token)).gate() is Action.PROCEED


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "post", "PURGE"])
async def test_other_sites(visitor: Visitor, method: str) -> None:
    """A page of another site gets nothing done, not even with a token, and the authority is not asked."""
    token = await visitor.form()
    _asked(visitor)
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "https://admin.shop.example"},
    ):
        exchange = await visitor.send(method, form=token, **headers)
        assert exchange.gate() is Action.CSRF_ERROR
        assert (exchange.session, exchange.token) == (None, None)
        with pytest.raises(Exception, match="csrf_failed"):
            await visitor.do(account.login(exchange, ALICE))
        exchange.values["cart"] = ["planted"]
        assert await visitor.do(exchange.save()) is False
        assert await visitor.do(account.csrf_token(exchange)) == ""
    assert _asked(visitor) == {}


async def test_login_from_another_site(visitor: Visitor) -> None:
    """Another site cannot log a guest in who has no session yet."""
    exchange = await visitor.send("POST", "/login", origin="https://evil.example")
    assert exchange.gate() is Action.CSRF_ERROR
    assert (await visitor.send("POST", "/login", origin="https://shop.example")).gate() is Action.PROCEED


async def test_exempt_paths(visitor: Visitor, another: Callable[..., Gateway]) -> None:
    """A webhook needs no CSRF token, and only the named paths are exempt."""
    await visitor.form()
    hooks = Visitor(visitor.client, another(csrf_exempt=["/hooks/"]), visitor.jar)
    assert (await hooks.send("POST", "/hooks/paid", sec_fetch_site="cross-site")).gate() is Action.PROCEED
    assert (await hooks.send("POST", "/hooks/../transfer")).gate() is Action.CSRF_ERROR
    assert (await hooks.send("POST", "/transfer")).gate() is Action.CSRF_ERROR


async def test_a_failed_check_is_no_guest(visitor: Visitor) -> None:
    """After a failed CSRF check no session is left to read, and nothing is created or written for the request."""
    await visitor.log_in()
    exchange = await visitor.send("POST", form="wrong")
    exchange.values["cart"] = ["planted"]
    assert await visitor.do(exchange.save()) is False
    assert await visitor.do(account.csrf_token(exchange)) == ""
    assert _cookies(exchange.headers()) == []
    assert await visitor.do(routes.check(exchange, RouteRequirements(guests=True))) is Action.CSRF_ERROR
    assert await visitor.data() == {}


# Cookies


@pytest.mark.parametrize("value", ["x\r\nSet-Cookie: id=planted", "x\nX: y", "\x00", "x" * 50_000, "\u00e9", "\ud800"])
async def test_strange_cookies(visitor: Visitor, value: str) -> None:
    """Whatever stands in the cookie, it is a guest's request, and nothing of it comes back in a header."""
    exchange = await visitor.send(cookie=f"{COOKIE}={value}")
    assert (exchange.gate(), exchange.subject) == (Action.PROCEED, "")
    headers = exchange.headers()
    assert _cookies(headers)
    assert all(text.isascii() and text.isprintable() and len(text) < 300 for pair in headers for text in pair)
    assert all("planted" not in text and "xxx" not in text for pair in headers for text in pair)


@pytest.mark.parametrize("agent", ["x" * 20_000, "\x00Firefox", "Firef\u00f6x", "\ud800", ""])
async def test_strange_user_agents(visitor: Visitor, agent: str) -> None:
    """No user agent makes a request fail."""
    visitor.agent = agent
    await visitor.log_in()
    assert (await visitor.send()).subject == ALICE


async def test_two_cookies(visitor: Visitor) -> None:
    """With a second cookie of the name nobody is logged in or out, nothing is created, and both cookies stay."""
    await visitor.log_in()
    both = f"{COOKIE}={visitor.jar[COOKIE]}; {COOKIE}=planted"
    _asked(visitor)
    page = await visitor.send(cookie=both)
    assert (page.gate(), page.subject) == (Action.PROCEED, "")
    page.values["cart"] = ["tea"]
    assert await visitor.do(page.save()) is False
    assert await visitor.do(account.csrf_token(page)) == ""
    assert await visitor.do(routes.check(page, RouteRequirements())) is Action.AMBIGUOUS
    for steps in (account.login(page, ALICE), account.logout(page), account.devices(page)):
        with pytest.raises(Exception, match="ambiguous_cookie"):
            await visitor.do(steps)
    assert _cookies(page.headers()) == []
    form = await visitor.send("POST", "/login", cookie=both)
    assert form.gate() is Action.AMBIGUOUS
    assert _asked(visitor) == {}
    assert (await visitor.send()).subject == ALICE


async def test_late_responses(visitor: Visitor, clock: ManualClock) -> None:
    """A response that begins late leaves out the validation's cookies, and the next one has them again."""
    await visitor.log_in()
    clock.advance(29 * MINUTE)
    await visitor.send()
    clock.advance(29 * MINUTE)
    await visitor.send()
    clock.advance(4 * MINUTE)  # the token is older than an hour now
    for wait, kept in ((5_100, 0), (4_900, 1)):
        exchange = await visitor.send()
        assert exchange.subject == ALICE
        clock.advance(wait)
        headers = exchange.headers()
        assert len(_cookies(headers)) == kept
        assert ("Cache-Control", "no-store") in headers
    visitor.receive(exchange)
    assert (await visitor.send()).subject == ALICE


async def test_a_late_login(visitor: Visitor, clock: ManualClock) -> None:
    """The cookie of a login is sent however long the response takes: the user waits for it."""
    exchange = await visitor.send("POST", "/login", form=await visitor.form())
    await visitor.do(account.login(exchange, ALICE))
    clock.advance(MINUTE)
    assert len(_cookies(visitor.receive(exchange))) == 1
    assert (await visitor.send()).subject == ALICE


async def test_a_late_companion(visitor: Visitor, clock: ManualClock) -> None:
    """A companion's cookie is sent although the renewed session cookie beside it is too late."""
    await visitor.log_in()
    for _ in range(3):
        clock.advance(21 * MINUTE)
        exchange = await visitor.send()
    assert exchange.validation is not None
    assert exchange.validation.renewed_token is not None
    clock.advance(5_100)
    await visitor.do(account.issue_companion(exchange, "payment"))
    assert [line.partition("=")[0] for line in _cookies(exchange.headers())] == ["__Host-id-payment"]


async def test_a_dead_cookie_is_replaced(visitor: Visitor, clock: ManualClock) -> None:
    """A dead cookie is deleted, unless this response sets a new one; then only that one is sent."""
    await visitor.log_in()
    clock.advance(31 * MINUTE)
    await visitor.send()  # finds that it has expired
    clock.advance(MINUTE)
    page = await visitor.send()
    assert [("Max-Age=0" in line) for line in _cookies(page.headers())] == [True]
    page.values["cart"] = ["tea"]
    await visitor.do(page.save())
    assert [("Max-Age=0" in line) for line in _cookies(visitor.receive(page))] == [False]
    assert await visitor.data() == {"cart": ["tea"]}


async def test_a_newer_cookie_is_on_its_way(visitor: Visitor) -> None:
    """While a newer cookie is on its way, the old one is a guest's, and nothing is created in its place."""
    await visitor.form()
    other_tab = copy_of(visitor)
    await visitor.log_in()
    page = await other_tab.send()
    assert (page.gate(), page.subject) == (Action.PROCEED, "")
    assert page.validation is not None
    assert page.validation.verdict is Verdict.SUPERSEDED
    page.values["cart"] = ["tea"]
    assert await other_tab.do(page.save()) is False
    assert await other_tab.do(account.csrf_token(page)) == ""
    assert _cookies(page.headers()) == []


async def test_a_dead_cookie_was_replaced_just_now(visitor: Visitor, clock: ManualClock) -> None:
    """A page that was sent with a dead cookie before a login does not delete the login's cookie if it arrives after."""
    await visitor.form("/login")
    clock.advance(40 * MINUTE)
    await visitor.send()  # finds that it has expired
    clock.advance(MINUTE)
    other_tab = copy_of(visitor)
    form = await visitor.send("POST", "/login")
    await visitor.do(account.login(form, ALICE))
    for wait, kept in ((0, True), (19_000, True), (2_000, False)):
        clock.advance(wait)
        page = await other_tab.send()
        assert page.keeps_cookie is kept
        assert (_cookies(page.headers()) == []) is kept
    assert await other_tab.do(account.csrf_token(page))


async def test_a_late_page_creates_nothing(visitor: Visitor, clock: ManualClock) -> None:
    """A page that took long opens no session by itself: the user may have logged in meanwhile. A form does."""
    for method, created in (("GET", 0), ("POST", 1)):
        exchange = await Visitor(visitor.client, visitor.gateway).send(method)
        exchange.values["seen"] = True
        clock.advance(5_100)
        assert await visitor.do(exchange.save()) is bool(created)
        assert len(_cookies(exchange.headers())) == created


@pytest.mark.parametrize("names", [("sid", "sid"), ("sid", "guest")])
async def test_cookie_names(configured: Any, names: tuple[str, str]) -> None:
    """The names of the cookies are those of the policy, and at most one of them is left after each step."""
    text = f'[applications.default.cookie]\nname = "{names[0]}"\nanonymous_name = "{names[1]}"\n'
    visitor: Visitor = await configured(text)
    await visitor.form()
    assert list(visitor.jar) == [f"__Host-{names[1]}"]
    await visitor.log_in()
    assert list(visitor.jar) == [f"__Host-{names[0]}"]
    assert (await visitor.send()).subject == ALICE
    exchange = await visitor.send()
    await visitor.do(account.logout(exchange))
    exchange.values["cart"] = ["tea"]
    await visitor.end(exchange)
    assert list(visitor.jar) == [f"__Host-{names[1]}"]
    assert await visitor.data() == {"cart": ["tea"]}


# Data


async def test_save_after_the_end(visitor: Visitor) -> None:
    """A write for a session that has ended meanwhile is not carried out, and revives nothing."""
    await visitor.log_in()
    late, ending = await visitor.send(), await visitor.send()
    await visitor.do(account.logout(ending))
    late.values["cart"] = ["tea"]
    assert await visitor.do(late.save()) is False
    assert _cookies(late.headers()) == []
    assert await _live(visitor) == 0


async def test_two_requests_at_once(visitor: Visitor) -> None:
    """Two requests that change different keys keep both changes; for one key the last one to save wins."""
    await visitor.log_in()
    one, two = await visitor.send(), await visitor.send()
    one.values.update(cart=["tea"], name="Ada")
    two.values.update(cart=["cup"], seen=True)
    await visitor.do(one.save())
    await visitor.do(two.save())
    assert await visitor.data() == {"cart": ["cup"], "name": "Ada", "seen": True}


async def test_save_fails_after_a_login(visitor: Visitor, unreachable: Either) -> None:
    """If the data cannot be saved after a login, the login's cookie is sent nevertheless."""
    exchange = await visitor.send("POST", "/login", form=await visitor.form())
    await visitor.do(account.login(exchange, ALICE))
    exchange.values["cart"] = ["tea"]
    with pytest.raises(Unavailable):
        await Visitor(unreachable, visitor.gateway).do(exchange.save())
    visitor.receive(exchange)
    assert (await visitor.send()).subject == ALICE


async def test_a_slow_handler(visitor: Visitor, clock: ManualClock) -> None:
    """A handler that takes minutes saves its data, and the token that it began with raises no alarm."""
    await visitor.log_in()
    for _ in range(3):
        clock.advance(21 * MINUTE)
        slow = await visitor.send()
    assert slow.validation is not None
    assert slow.validation.renewed_token is not None
    visitor.receive(slow)
    await visitor.send()  # uses the renewed token
    slow.values["report"] = "done"
    clock.advance(3 * MINUTE)
    assert await visitor.do(slow.save()) is True
    assert await visitor.data() == {"report": "done"}
    assert (await visitor.send()).subject == ALICE


async def test_a_slow_handler_of_a_guest(visitor: Visitor, clock: ManualClock) -> None:
    """A slow request of a guest, who may be planted, writes nothing into the session of a user who has logged in."""
    await visitor.form()
    planted = copy_of(visitor)
    slow, slower = await planted.send(), await planted.send()
    await visitor.log_in()
    slow.values["cart"] = ["planted"]
    assert await visitor.do(slow.save()) is False
    clock.advance(MINUTE)
    slower.values["cart"] = ["planted"]
    assert await visitor.do(slower.save()) is False
    assert await visitor.data() == {}
    assert (await visitor.send()).subject == ALICE


# Outage


async def test_an_outage(visitor: Visitor, unreachable: Either, another: Callable[..., Gateway]) -> None:
    """In an outage, requests with a session get 503 and keep their cookie; public paths are served as for guests."""
    await visitor.log_in()
    gateway = another(public_paths=["/public/"], cookie_names=CookieNames(COOKIE, COOKIE))
    cut_off = Visitor(unreachable, gateway, dict(visitor.jar))
    private = await cut_off.send()
    assert private.gate() is Action.RETRY_LATER
    refusal = private.refusal(private.gate())
    assert (refusal.status, dict(refusal.headers)) == (503, {"Retry-After": "2"})
    assert private.headers() == []
    public = await cut_off.send(path="/public/x")
    assert (public.gate(), public.subject) == (Action.PROCEED, "")
    public.values["seen"] = 1
    assert await cut_off.do(public.save()) is False
    assert await cut_off.do(account.csrf_token(public)) == ""
    assert _cookies(public.headers()) == []
    assert await cut_off.do(routes.check(public, RouteRequirements())) is Action.RETRY_LATER
    with pytest.raises(Unavailable):
        await cut_off.do(account.logout(public))
    guest = Visitor(unreachable, gateway)
    assert (await guest.send()).gate() is Action.PROCEED
    assert (await visitor.send()).subject == ALICE


async def test_an_outage_of_the_second_question(visitor: Visitor, unreachable: Either) -> None:
    """If a route's own question gets no answer, the request is refused with 503."""
    await visitor.log_in()
    exchange = await visitor.send()
    needed = RouteRequirements(max_age=timedelta(minutes=5))
    assert await Visitor(unreachable, visitor.gateway).do(routes.check(exchange, needed)) is Action.RETRY_LATER
    assert exchange.gate() is Action.RETRY_LATER


async def test_a_locked_network(configured: Any) -> None:
    """A network that guesses is refused with the time that its lock lasts; logins are refused too."""
    text = '[applications.default.guessing]\nalarm_after = 2\nlock_after = 3\nlock_time = "7m"\ndeny_valid = true\n'
    visitor: Visitor = await configured(text)
    good = await visitor.form()
    token = visitor.jar[COOKIE]
    for _ in range(5):
        guess = "B" + token[1:] if token[0] != "B" else "C" + token[1:]
        exchange = await visitor.send(cookie=f"{COOKIE}={guess}")
    assert exchange.gate() is Action.LOCKED
    refusal = exchange.refusal(exchange.gate())
    assert (refusal.status, dict(refusal.headers)) == (429, {"Retry-After": "420"})
    form = await visitor.send("POST", "/login", form=good)
    with pytest.raises(Exception, match="locked"):
        await visitor.do(account.login(form, ALICE))
    assert await _live(visitor) == 0


# The steps themselves


async def test_run_throws_errors_in(visitor: Visitor, unreachable: Either) -> None:
    """An error of a call is thrown into the steps, which may go on; what they return is returned."""

    def steps() -> Steps[str]:
        try:
            yield Ask("authority")
        except Unavailable:
            return "handled"
        return "answered"

    assert await Visitor(unreachable, visitor.gateway).do(steps()) == "handled"
    assert await visitor.do(steps()) == "answered"


async def test_no_token_in_any_repr(visitor: Visitor) -> None:
    """Nothing that a request leaves in a log shows a token or data."""
    exchange = await visitor.log_in()
    exchange.values["name"] = "Ada-secret"
    token, csrf = visitor.jar[COOKIE], exchange.csrf.reveal() if exchange.csrf else ""
    shown = f"{exchange!r} {exchange.request!r} {exchange.values!r} {exchange.session!r} {exchange.token!r}"
    shown += f"{exchange.validation!r} {next(exchange.save())!r} {visitor.gateway!r} {exchange._presented!r}"
    for secret in (token, csrf, "Ada-secret"):
        assert secret not in shown, "a secret is shown"


async def test_no_secret_in_a_traceback(app: App, visitor: Visitor, unreachable: Either) -> None:
    """What an error tracker shows of the frames of an error has no token and no session data."""
    exchange = await visitor.log_in()
    exchange.values["name"] = "Ada-secret"
    secrets = (visitor.jar[COOKIE], exchange.csrf.reveal() if exchange.csrf else "", "Ada-secret")
    async with Either(type(visitor.client.client), app.address, application="nobody") as stranger:
        gateway = Gateway(settings=GatewaySettings(cookie_names=CookieNames(COOKIE, COOKIE)))
        with pytest.raises(SessiondError) as opening:
            await Visitor(stranger, gateway, visitor.jar).send("POST", form=secrets[1])
    with pytest.raises(Unavailable) as saving:
        await Visitor(unreachable, visitor.gateway).do(exchange.save())
    exchange.values["name"] = ["Ada-secret", object()]
    with pytest.raises(NotJson) as writing:
        await visitor.do(exchange.save())
    for error in (opening.value, saving.value, writing.value):
        for frame in frames_of(error):
            if "sessiond_client" in frame.f_code.co_filename:
                for name, value in frame.f_locals.items():
                    shown = repr(value)
                    assert all(secret not in shown for secret in secrets), f"{frame.f_code.co_qualname}: {name}"


async def test_concurrent_exchanges(visitor: Visitor) -> None:
    """Many requests at once share a gateway, and each gets its own session."""
    visitors = [Visitor(visitor.client, visitor.gateway) for _ in range(12)]
    await asyncio.gather(*(one.log_in(f"user-{number}") for number, one in enumerate(visitors)))
    exchanges = await asyncio.gather(*(one.send() for one in visitors))
    assert [exchange.subject for exchange in exchanges] == [f"user-{number}" for number in range(12)]


def test_an_exchange_before_it_is_opened() -> None:
    """Before the question was asked there is no session, and nothing is sent."""
    exchange = Exchange(Gateway(), request_of())
    assert (exchange.subject, exchange.gate(), dict(exchange.values)) == ("", Action.PROCEED, {})
