"""A copy of an old token in front of the gateway: late answers keep the newer cookie, and no device is stuck."""

from __future__ import annotations

import pytest

from sessiond_client import NextStep, Verdict
from sessiond_client.gateway import Action, Exchange, Refused, account
from tests.clients.gateway.visitor import ALICE, Visitor, copy_of
from tests.support.clock import ManualClock

SECOND, MINUTE = 1_000, 60_000


def cookies(headers: list[tuple[str, str]]) -> list[str]:
    """The cookies that a response sets or deletes, without values."""
    return [value.partition("=")[0] for name, value in headers if name == "Set-Cookie"]


async def copied(visitor: Visitor, clock: ManualClock, *, renewed: bool) -> Visitor:
    """A device with a copy of the visitor's cookies, whose token is too old; the visitor uses a newer one."""
    await visitor.log_in()
    await visitor.send()
    device = copy_of(visitor)
    if renewed:
        for _ in range(3):
            clock.advance(25 * MINUTE)
            visitor.receive(await visitor.send())
    else:
        clock.advance(MINUTE)
        await visitor.log_in(level=2, elevate=True)
    clock.advance(1)
    await visitor.send()
    clock.advance(2 * MINUTE)
    return device


async def denied(device: Visitor, method: str = "GET", path: str = "/") -> Exchange:
    """A request of the device, which is denied as one with a copy."""
    exchange = await device.send(method, path)
    answer = exchange.validation
    assert answer is not None
    assert (answer.verdict, answer.next_step) == (Verdict.REPLAYED, NextStep.KEEP_TOKEN)
    assert (exchange.subject, exchange.session, exchange.without_user()) == ("", None, Action.LOGIN)
    return exchange


renewals = pytest.mark.parametrize("renewed", [False, True], ids=["rolled", "renewed"])


@renewals
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_late_answer_leaves_the_newer_cookie_alone(
    visitor: Visitor, clock: ManualClock, renewed: bool, method: str
) -> None:
    """A request that was sent with the old cookie is denied, and its answer does not touch the new one."""
    late = await denied(await copied(visitor, clock, renewed=renewed), method, "/upload")
    assert (late.keeps_cookie, late.may_create) == (True, False)
    assert await visitor.do(account.csrf_token(late)) == ""
    late.values["note"] = ["seen"]
    if method == "POST":
        with pytest.raises(Refused, match="login"):
            await visitor.do(late.save())
    else:
        assert await visitor.do(late.save()) is False
    assert cookies(visitor.receive(late)) == []
    assert (await visitor.send()).subject == ALICE


@renewals
async def test_a_device_that_has_only_the_copy(visitor: Visitor, clock: ManualClock, renewed: bool) -> None:
    """It is sent to the login page, whose form replaces its cookie by a guest's, and one login later its user is in."""
    device = await copied(visitor, clock, renewed=renewed)
    for _ in range(3):
        assert cookies(await device.end(await denied(device))) == []
    old = dict(device.jar)
    csrf = await device.form("/login")
    assert csrf
    assert device.jar.keys() == old.keys()
    assert device.jar != old
    guest = await device.send()
    assert guest.validation is not None
    assert guest.validation.verdict is Verdict.VALID
    guest.values["cart"] = ["tea"]
    await device.end(guest)
    form = await device.send("POST", "/login", form=csrf)
    assert form.gate() is Action.PROCEED
    await device.do(account.login(form, ALICE))
    await device.end(form)
    for browser in (device, visitor):
        assert (await browser.send()).subject == ALICE
    assert await device.data() == {"cart": ["tea"]}
    one, other = [(await browser.send()).session for browser in (device, visitor)]
    assert one is not None
    assert other is not None
    assert one.session_id != other.session_id


@renewals
async def test_a_login_form_without_a_token(visitor: Visitor, clock: ManualClock, renewed: bool) -> None:
    """A site whose login page is elsewhere has a form without a CSRF token, and its login replaces the copy as well."""
    device = await copied(visitor, clock, renewed=renewed)
    for path in ("/account/sign-in", "/"):
        assert await device.form(path) == ""
    form = await denied(device, "POST", "/account/sign-in")
    assert form.gate() is Action.PROCEED
    await device.do(account.login(form, ALICE))
    assert cookies(await device.end(form)) != []
    for browser in (device, visitor):
        assert (await browser.send()).subject == ALICE


async def test_two_clicks_with_a_copy(visitor: Visitor, clock: ManualClock) -> None:
    """Two clicks on "log in" with the same copy lead to one session, whichever response is the last."""
    device = await copied(visitor, clock, renewed=True)
    clicks = [await device.send("POST", "/sign-in") for _ in range(2)]
    for click in clicks:
        await device.do(account.login(click, ALICE))
    sessions = {click.session.session_id for click in clicks if click.session is not None}
    assert len(sessions) == 1
    for click in clicks:
        device.receive(click)
        assert (await device.send()).subject == ALICE


async def test_the_login_page_of_a_request_in_flight(visitor: Visitor) -> None:
    """A login page keeps a cookie that a login has just replaced: the new one is on its way."""
    await visitor.form()
    other_tab = copy_of(visitor)
    await visitor.log_in()
    assert await other_tab.form("/login") == ""


async def test_a_late_login(visitor: Visitor, clock: ManualClock) -> None:
    """If the answer to a login takes half a minute, another tab's answer just after it leaves the new cookie alone."""
    await visitor.form()
    other_tab = copy_of(visitor)
    await visitor.log_in()
    clock.advance(30 * SECOND)
    late = await denied(other_tab)
    assert late.validation is not None
    assert late.validation.signals == ()
    late.values["note"] = ["seen"]
    assert cookies(await visitor.end(late)) == []
    assert (await visitor.send()).subject == ALICE


async def test_a_lost_answer(visitor: Visitor, clock: ManualClock) -> None:
    """If it never arrives, the login form works without a CSRF token, and the same login gets the same session."""
    guest = await visitor.send()
    await visitor.do(account.csrf_token(guest))
    visitor.receive(guest)
    lost = await visitor.send("POST", "/login", form=await visitor.form())
    await visitor.do(account.login(lost, ALICE))
    clock.advance(30 * SECOND)
    await visitor.end(await denied(visitor))
    assert await visitor.form("/login") == ""
    again = await denied(visitor, "POST", "/login")
    await visitor.do(account.login(again, ALICE))
    await visitor.end(again)
    page = await visitor.send()
    assert lost.session is not None
    assert page.session is not None
    assert page.session.session_id == lost.session.session_id


async def test_a_lost_answer_after_its_time(visitor: Visitor, clock: ManualClock) -> None:
    """A minute after a login whose answer was lost, the old cookie is deleted, and the login page gives a new one."""
    await visitor.form()
    device = copy_of(visitor)
    await visitor.log_in()
    clock.advance(30 * SECOND)
    await device.end(await denied(device))
    clock.advance(30 * SECOND)
    exchange = await device.send()
    assert exchange.validation is not None
    assert (exchange.validation.verdict, exchange.validation.next_step) == (Verdict.REPLAYED, NextStep.DISCARD_TOKEN)
    assert len(cookies(await device.end(exchange))) == 1
    assert await device.form("/login") != ""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_the_answer_to_a_form_deletes_no_cookie(visitor: Visitor, clock: ManualClock, method: str) -> None:
    """An upload may arrive after its session has ended and its user has logged in again: only pages delete cookies."""
    await visitor.log_in()
    upload = copy_of(visitor)
    logout = await visitor.send("POST", "/logout", form=await visitor.form())
    await visitor.do(account.logout(logout))
    await visitor.end(logout)
    await visitor.log_in()
    clock.advance(MINUTE)
    late = await upload.send(method, "/upload")
    assert late.validation is not None
    assert (late.validation.verdict, late.validation.next_step) == (Verdict.REVOKED, NextStep.DISCARD_TOKEN)
    assert cookies(visitor.receive(late)) == []
    assert (await visitor.send()).subject == ALICE
    page = await upload.send()
    assert len(cookies(upload.receive(page))) == 1
    assert upload.jar == {}
