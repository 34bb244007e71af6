"""Logins, logouts and devices through the gateway, against a real authority with both clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sessiond_client import Token, Verdict
from sessiond_client.gateway import Action, Exchange, Gateway, Refused, RouteRequirements, account, routes
from tests.clients.either import Either
from tests.clients.gateway.test_exchange import COOKIE, MINUTE, _asked, _cookies, _live
from tests.clients.gateway.visitor import ALICE, Counting, Visitor, copy_of
from tests.support.clock import ManualClock

BOB = "bob"


async def _put(visitor: Visitor, **values: Any) -> None:
    exchange = await visitor.send()
    exchange.values.update(values)
    await visitor.end(exchange)


# Logins


async def test_a_cart_survives_the_login(visitor: Visitor) -> None:
    """A guest's data is the user's after the login, without a further question."""
    await _put(visitor, cart=["tea"])
    _asked(visitor)
    exchange = await visitor.log_in()
    assert dict(exchange.values) == {"cart": ["tea"]}
    assert _asked(visitor) == {"validate": 2, "authenticate": 1}
    assert await visitor.data() == {"cart": ["tea"]}


async def test_a_planted_guest(visitor: Visitor) -> None:
    """Whoever planted a guest's token has nothing after the login (fixation)."""
    await visitor.form()
    attacker = copy_of(visitor)
    await visitor.log_in()
    assert visitor.jar != attacker.jar
    exchange = await attacker.send()
    assert (exchange.subject, exchange.session) == ("", None)


async def test_a_planted_session_of_another_user(visitor: Visitor) -> None:
    """A login in a session that somebody else planted ends it, and takes over nothing of its data."""
    attacker = Visitor(visitor.client, visitor.gateway)
    await attacker.log_in("mallory")
    await _put(attacker, address="Mallory's", cart=["poison"])
    visitor.jar = dict(attacker.jar)
    exchange = await visitor.send("POST", "/login", form=await visitor.form())
    exchange.values["before"] = "the login"
    await visitor.do(account.login(exchange, ALICE))
    assert dict(exchange.values) == {}
    exchange.values["cart"] = ["tea"]
    await visitor.end(exchange)
    assert await visitor.data() == {"cart": ["tea"]}
    assert (await attacker.send()).session is None
    assert (await _live(visitor), await _live(visitor, "mallory")) == (1, 0)


async def test_a_session_that_ends_during_the_login(visitor: Visitor) -> None:
    """If the guest's session ends between validation and login, its data goes into the fresh session."""
    await _put(visitor, cart=["tea"])
    exchange = await visitor.send("POST", "/login", form=await visitor.form())
    await visitor.client.revoke(token=visitor.jar[COOKIE])
    await visitor.do(account.login(exchange, ALICE))
    await visitor.end(exchange)
    assert (await visitor.send()).subject == ALICE
    assert await visitor.data() == {"cart": ["tea"]}


async def test_two_clicks(visitor: Visitor) -> None:
    """Two clicks on login give one session, whichever response comes last, and the cart is seen in both."""
    await _put(visitor, cart=["tea"])
    token = await visitor.form("/login")
    tabs = [copy_of(visitor), copy_of(visitor)]

    async def click(tab: Visitor) -> Exchange:
        exchange = await tab.send("POST", "/login", form=token)
        assert exchange.gate() is Action.PROCEED
        await tab.do(account.login(exchange, ALICE))
        exchange.values.setdefault("cart", [])
        await tab.end(exchange)
        return exchange

    for exchange in await asyncio.gather(*map(click, tabs)):
        assert dict(exchange.values) == {"cart": ["tea"]}
    assert await _live(visitor) == 1
    for tab in tabs:
        exchange = await tab.send()
        assert (exchange.subject, dict(exchange.values)) == (ALICE, {"cart": ["tea"]})


async def test_a_second_click_later(visitor: Visitor) -> None:
    """A second click after the first was carried out sees the user's data, and does not overwrite it."""
    await _put(visitor, cart=["tea"])
    token = await visitor.form("/login")
    second = copy_of(visitor)
    exchange = await visitor.send("POST", "/login", form=token)
    await visitor.do(account.login(exchange, ALICE))
    await visitor.end(exchange)
    exchange = await second.send("POST", "/login", form=token)
    assert exchange.validation is not None
    assert exchange.validation.verdict is Verdict.SUPERSEDED
    await second.do(account.login(exchange, ALICE))
    assert exchange.values.setdefault("cart", []) == ["tea"]
    exchange.values["clicks"] = 2
    await second.end(exchange)
    assert await visitor.data() == {"cart": ["tea"], "clicks": 2}


async def test_after_a_suspicion(configured: Any) -> None:
    """A user who must authenticate again can do so without a CSRF token, and finds the session's data again."""
    visitor: Visitor = await configured('[applications.default.reactions]\nreported = "step-up"\n')
    await visitor.log_in()
    await _put(visitor, cart=["tea"])
    await visitor.client.report_signal(token=visitor.jar[COOKIE], reason="tried")
    page = await visitor.send(path="/account")
    assert (page.gate(), page.subject, dict(page.values)) == (Action.PROCEED, "", {})
    assert await visitor.do(routes.check(page, RouteRequirements())) is Action.STEP_UP
    for steps in (account.devices(page), account.logout_everywhere(page)):
        with pytest.raises(Refused, match="step_up_required"):
            await visitor.do(steps)
    page.values["cart"] = ["planted"]
    assert await visitor.do(page.save()) is False
    form = await visitor.send("POST", "/login", form=await visitor.form("/login"))
    assert form.gate() is Action.PROCEED
    await visitor.do(account.login(form, ALICE))
    assert dict(form.values) == {"cart": ["tea"]}
    form.values["cart"].append("cup")
    await visitor.end(form)
    assert await visitor.data() == {"cart": ["tea", "cup"]}


async def test_step_up(visitor: Visitor) -> None:
    """A step-up raises the level of the session, keeps its data, and replaces its token."""
    await visitor.log_in()
    await _put(visitor, cart=["tea"])
    exchange = await visitor.send("POST", "/elevate", form=await visitor.form())
    assert await visitor.do(routes.check(exchange, RouteRequirements(level=2))) is Action.STEP_UP
    before = dict(visitor.jar)
    await visitor.do(account.login(exchange, ALICE, level=2, methods=["otp"], elevate=True))
    await visitor.end(exchange)
    assert visitor.jar != before
    exchange = await visitor.send()
    assert await visitor.do(routes.check(exchange, RouteRequirements(level=2))) is Action.PROCEED
    assert dict(exchange.values) == {"cart": ["tea"]}


async def test_step_up_of_a_guest(visitor: Visitor) -> None:
    """Only a user who is logged in can step up: a guest must log in, with or without a session."""
    for cookies in (False, True):
        exchange = await visitor.send("POST", "/elevate", form=await visitor.form() if cookies else None)
        with pytest.raises(Refused, match="login_required"):
            await visitor.do(account.login(exchange, ALICE, level=2, elevate=True))
    assert await _live(visitor) == 0


async def test_step_up_of_another_user(visitor: Visitor) -> None:
    """A step-up in the session of another user logs nobody in, and that session goes on."""
    await visitor.log_in(BOB)
    exchange = await visitor.send("POST", "/elevate", form=await visitor.form())
    with pytest.raises(Refused, match="login_required"):
        await visitor.do(account.login(exchange, ALICE, level=2, elevate=True))
    exchange = await visitor.send()
    assert exchange.subject == BOB
    assert await visitor.do(routes.check(exchange, RouteRequirements(level=2))) is Action.STEP_UP


async def test_login_logout_write(visitor: Visitor) -> None:
    """What is written after a login and a logout in one request is a guest's, without anything of the user."""
    await _put(visitor, cart=["tea"])
    exchange = await visitor.send("POST", "/x", form=await visitor.form())
    await visitor.do(account.login(exchange, ALICE))
    exchange.values["address"] = "Alice's"
    await visitor.do(account.logout(exchange))
    assert dict(exchange.values) == {}
    exchange.values["notice"] = "bye"
    await visitor.end(exchange)
    exchange = await visitor.send()
    assert (exchange.subject, dict(exchange.values)) == ("", {"notice": "bye"})
    assert await _live(visitor) == 0


# Logouts


async def test_logout(visitor: Visitor) -> None:
    """A logout ends the session and deletes the cookie, and a second click does the same."""
    await visitor.log_in()
    token = await visitor.form()
    second = copy_of(visitor)
    exchange = await visitor.send("POST", "/logout", form=token)
    exchange.values["cart"] = ["tea"]
    await visitor.do(account.logout(exchange))
    headers = await visitor.end(exchange)
    assert visitor.jar == {}
    assert any(name == "Clear-Site-Data" for name, _ in headers)
    assert await _live(visitor) == 0
    again = await second.send("POST", "/logout", form=token)
    assert again.gate() is Action.PROCEED
    await second.do(account.logout(again))
    await second.end(again)
    assert second.jar == {}


async def test_a_logout_deletes_companion_cookies(visitor: Visitor) -> None:
    """A logout deletes the companion cookies that the browser has sent, and no cookie of the application."""
    await visitor.log_in()
    for purpose in ("payment", "profile"):
        exchange = await visitor.send()
        await visitor.do(account.issue_companion(exchange, purpose))
        await visitor.end(exchange)
    visitor.jar["theme"] = "dark"
    assert len(visitor.jar) == 4
    exchange = await visitor.send("POST", "/logout", form=await visitor.form())
    await visitor.do(account.logout(exchange))
    await visitor.end(exchange)
    assert visitor.jar == {"theme": "dark"}


async def test_logout_of_a_guest(visitor: Visitor) -> None:
    """Nothing happens to a guest without a session, and one with a session loses it."""
    exchange = await visitor.send("POST", "/logout")
    await visitor.do(account.logout(exchange))
    assert _cookies(await visitor.end(exchange)) == []
    await _put(visitor, cart=["tea"])
    exchange = await visitor.send("POST", "/logout", form=await visitor.form())
    await visitor.do(account.logout(exchange))
    await visitor.end(exchange)
    assert (visitor.jar, await visitor.data()) == ({}, {})


@pytest.mark.parametrize("everywhere", [False, True])
async def test_logout_despite_a_near_cache(configured: Any, everywhere: bool) -> None:
    """After a logout the same process accepts the old cookie no more, although its near cache may not know yet."""
    visitor: Visitor = await configured("", near_cache=True)
    for _ in range(20):
        await visitor.log_in()
        old = copy_of(visitor)
        while (await old.send()).subject != ALICE:
            pass
        await old.send()  # from memory
        exchange = await visitor.send("POST", "/logout", form=await visitor.form())
        await visitor.do(account.logout_everywhere(exchange) if everywhere else account.logout(exchange))
        assert visitor.gateway.recent.at_least(Token(old.jar[COOKIE]))
        after = await old.send()
        assert after.subject == ""
        visitor.jar.clear()


async def test_a_login_despite_a_near_cache(configured: Any) -> None:
    """After a login the same process takes the guest's old token for what it is."""
    visitor: Visitor = await configured("", near_cache=True)
    for number in range(20):
        await visitor.form()
        old = copy_of(visitor)
        await old.send()
        await old.send()
        await visitor.log_in(f"user-{number}")
        assert visitor.gateway.recent.at_least(Token(old.jar[COOKIE]))
        assert (await old.send()).session is None
        visitor.jar.clear()


async def test_writes_despite_a_near_cache(configured: Any) -> None:
    """The next request of the same process sees what the last one wrote."""
    visitor: Visitor = await configured("", near_cache=True)
    await visitor.log_in()
    for number in range(30):
        await _put(visitor, number=number)
        assert await visitor.data() == {"number": number}


async def test_logout_everywhere(visitor: Visitor) -> None:
    """All sessions of the user end, and none of anybody else's."""
    devices = [Visitor(visitor.client, visitor.gateway) for _ in range(3)]
    for device in devices:
        await device.log_in()
    await visitor.log_in(BOB)
    exchange = await devices[0].send("POST", form=await devices[0].form())
    assert await visitor.do(account.logout_everywhere(exchange)) == 3
    await devices[0].end(exchange)
    assert devices[0].jar == {}
    assert (await _live(visitor), await _live(visitor, BOB)) == (0, 1)


async def test_other_devices(visitor: Visitor) -> None:
    """All other sessions of the user end, and this one goes on."""
    other = Visitor(visitor.client, visitor.gateway)
    await other.log_in()
    await visitor.log_in()
    exchange = await visitor.send("POST", form=await visitor.form())
    assert await visitor.do(account.end_other_devices(exchange)) == 1
    await visitor.end(exchange)
    assert ((await visitor.send()).subject, (await other.send()).subject) == (ALICE, "")


async def test_only_users_have_devices(visitor: Visitor) -> None:
    """For a guest, with or without a session, there are no devices to list or to end."""
    stranger = Visitor(visitor.client, visitor.gateway)
    await _put(stranger, cart=["tea"])
    for cookies in (False, True):
        if cookies:
            await _put(visitor, cart=["cup"])
        exchange = await visitor.send()
        for steps in (
            account.devices(exchange),
            account.end_device(exchange, "x"),
            account.end_other_devices(exchange),
            account.logout_everywhere(exchange),
        ):
            with pytest.raises(Refused, match="login_required"):
                await visitor.do(steps)
    assert await stranger.data() == {"cart": ["tea"]}


# Devices


async def test_devices(visitor: Visitor, clock: ManualClock) -> None:
    """The list has the user's sessions, newest first, with the one of this request marked."""
    phone = Visitor(visitor.client, visitor.gateway, agent="")
    await phone.log_in()
    clock.advance(MINUTE)
    await visitor.log_in()
    await Visitor(visitor.client, visitor.gateway).log_in(BOB)
    rows = await visitor.do(account.devices(await visitor.send()))
    assert [row.is_current for row in rows] == [True, False]
    assert "Firefox" in rows[0].description
    assert rows[1].description == "unknown device"
    assert {row.ip_address for row in rows} == {"192.0.2.7"}
    assert rows[0].login_time > rows[1].login_time
    assert await visitor.do(account.end_device(await visitor.send(), rows[1].session_id)) is True
    assert (await phone.send()).session is None
    assert await visitor.do(account.end_device(await visitor.send(), rows[1].session_id)) is False


async def test_ending_this_device(visitor: Visitor) -> None:
    """Ending the own session is a logout."""
    await visitor.log_in()
    exchange = await visitor.send("POST", form=await visitor.form())
    [row] = await visitor.do(account.devices(exchange))
    assert await visitor.do(account.end_device(exchange, row.session_id)) is True
    await visitor.end(exchange)
    assert (visitor.jar, await _live(visitor)) == ({}, 0)


async def test_devices_of_others(visitor: Visitor) -> None:
    """Nobody can end a session of another user or of a guest, or learn whether it exists."""
    bob, guest = Visitor(visitor.client, visitor.gateway), Visitor(visitor.client, visitor.gateway)
    await bob.log_in(BOB)
    await guest.form()
    await visitor.log_in()
    others = [exchange.session.session_id for exchange in [await bob.send(), await guest.send()] if exchange.session]
    assert len(others) == 2
    for session_id in (*others, "", "x", "x" * 10_000, "\x00", "../x", others[0].upper(), f" {others[0]}"):
        assert await visitor.do(account.end_device(await visitor.send(), session_id)) is False
    assert ((await bob.send()).subject, (await guest.send()).session is not None) == (BOB, True)


# Tokens for pages


async def test_csrf_token_of_a_guest(visitor: Visitor) -> None:
    """A guest gets a session for a form, and the next page has the same token; the login page's is short-lived."""
    token = await visitor.form()
    assert token
    assert await visitor.form() == token
    login_page = Visitor(visitor.client, visitor.gateway)
    _asked(visitor)
    await login_page.form("/login")
    assert _asked(visitor) == {"create": 1}
    short, long = (await login_page.send()).session, (await visitor.send()).session
    assert short is not None
    assert long is not None
    assert short.absolute_expire_time is not None
    assert long.absolute_expire_time is not None
    assert short.absolute_expire_time < long.absolute_expire_time


async def test_csrf_token_of_a_late_page(visitor: Visitor, clock: ManualClock) -> None:
    """A page that took long opens no session for its form, because its cookie could replace that of a login."""
    exchange = await visitor.send(path="/login")
    clock.advance(5_100)
    assert await visitor.do(account.csrf_token(exchange)) == ""
    assert _cookies(exchange.headers()) == []
    form = await visitor.send("POST", "/login", form="")
    assert form.gate() is Action.PROCEED
    await visitor.do(account.login(form, ALICE))
    visitor.receive(form)
    assert (await visitor.send("POST", "/login", form="")).gate() is Action.CSRF_ERROR


async def test_roll(visitor: Visitor) -> None:
    """After a privilege change the old token is worth nothing, and the response has the new one."""
    await visitor.log_in()
    old = copy_of(visitor)
    exchange = await visitor.send("POST", "/password", form=await visitor.form())
    await visitor.do(account.roll(exchange, "password"))
    await visitor.end(exchange)
    assert ((await visitor.send()).subject, (await old.send()).subject) == (ALICE, "")
    with pytest.raises(Refused, match="login_required"):
        await visitor.do(account.roll(await Visitor(visitor.client, visitor.gateway).send(), "password"))


async def test_companions(visitor: Visitor) -> None:
    """A companion token is sent as a cookie of its own and meets the route that asks for it; guests get none."""
    await visitor.log_in()
    exchange = await visitor.send("POST", form=await visitor.form())
    needed = RouteRequirements(companion=("payment", None))
    assert await visitor.do(routes.check(exchange, needed)) is Action.COMPANION
    token = await visitor.do(account.issue_companion(exchange, "payment"))
    assert any(line.startswith("__Host-id-payment=") for line in _cookies(await visitor.end(exchange)))
    needed = RouteRequirements(companion=("payment", token.reveal()))
    assert await visitor.do(routes.check(await visitor.send(), needed)) is Action.PROCEED
    with pytest.raises(Refused, match="login_required"):
        await visitor.do(account.issue_companion(await Visitor(visitor.client, visitor.gateway).send(), "payment"))


async def test_another_gateway_of_the_same_process(client: Either, gateway: Gateway) -> None:
    """Two gateways do not share what they know: each reads the policy once."""
    counting = Counting(client)
    for number in (1, 2):
        visitor = Visitor(counting, Gateway(clock=gateway.clock))
        await visitor.log_in()
        await visitor.send()
        assert counting.asked["authority"] == number
