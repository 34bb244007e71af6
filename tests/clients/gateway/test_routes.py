"""What a route requires, checked locally where the answer tells, and by a second question where it does not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sessiond_client.gateway import Action, Refused, RouteRequirements, account, routes
from tests.clients.gateway.test_exchange import MINUTE, _asked
from tests.clients.gateway.visitor import ALICE, Visitor
from tests.support.clock import ManualClock


async def _check(visitor: Visitor, needed: RouteRequirements, method: str = "GET", **more: str) -> Action:
    return await visitor.do(routes.check(await visitor.send(method, **more), needed))


async def test_guests(visitor: Visitor) -> None:
    """A guest must log in, with or without a session, unless the route serves guests."""
    for _ in range(2):
        assert await _check(visitor, RouteRequirements()) is Action.LOGIN
        assert await _check(visitor, RouteRequirements(guests=True, level=2)) is Action.PROCEED
        await visitor.form()


async def test_levels_cost_nothing(visitor: Visitor, clock: ManualClock) -> None:
    """The level is that of the answer: no second question, also after an elevation has run out."""
    await visitor.log_in()
    exchange = await visitor.send("POST", form=await visitor.form())
    await visitor.do(account.login(exchange, ALICE, level=2, elevate=True))
    await visitor.end(exchange)
    _asked(visitor)
    assert await _check(visitor, RouteRequirements(level=2)) is Action.PROCEED
    assert await _check(visitor, RouteRequirements(level=3)) is Action.STEP_UP
    clock.advance(16 * MINUTE)
    assert await _check(visitor, RouteRequirements(level=2)) is Action.STEP_UP
    assert _asked(visitor)["validate"] == 3


async def test_the_age_of_a_login(visitor: Visitor, clock: ManualClock) -> None:
    """The age of the login is asked for, and a login that is too old is a step-up."""
    await visitor.log_in()
    needed = RouteRequirements(max_age=timedelta(minutes=5))
    _asked(visitor)
    assert await _check(visitor, needed) is Action.PROCEED
    assert _asked(visitor) == {"validate": 2}
    clock.advance(6 * MINUTE)
    assert await _check(visitor, needed) is Action.STEP_UP


async def test_a_csrf_token_for_a_page(visitor: Visitor) -> None:
    """A route may demand the token for a GET, from guests with a session too; forms are not read for it."""
    needed = RouteRequirements(csrf=True, guests=True)
    for log_in in (False, True):
        if log_in:
            await visitor.log_in()
        token = await visitor.form()
        assert await _check(visitor, needed) is Action.CSRF_ERROR
        assert await _check(visitor, needed, x_csrf_token="x") is Action.CSRF_ERROR
        assert await _check(visitor, needed, x_csrf_token=token) is Action.PROCEED
        exchange = await visitor.send(form=token)
        assert await visitor.do(routes.check(exchange, needed)) is Action.CSRF_ERROR


async def test_a_page_of_another_site(visitor: Visitor) -> None:
    """A route that demands the token serves no request of another site, of guests without a session neither."""
    needed = RouteRequirements(csrf=True, guests=True)
    assert await _check(visitor, needed) is Action.PROCEED
    assert await _check(visitor, needed, sec_fetch_site="cross-site") is Action.CSRF_ERROR
    assert await _check(visitor, needed, origin="https://evil.example") is Action.CSRF_ERROR


async def test_the_first_check_counts(visitor: Visitor) -> None:
    """A request that the gate refuses meets no requirements."""
    await visitor.log_in()
    assert await _check(visitor, RouteRequirements(guests=True), "POST") is Action.CSRF_ERROR


async def test_a_session_that_ends_between_the_questions(visitor: Visitor) -> None:
    """If the session ends between the two questions, the user must log in."""
    await visitor.log_in()
    exchange, ending = await visitor.send(), await visitor.send()
    await visitor.do(account.logout(ending))
    assert await visitor.do(routes.check(exchange, RouteRequirements(max_age=timedelta(hours=1)))) is Action.LOGIN


async def test_require(visitor: Visitor) -> None:
    """`require` raises the refusal, with what the login page must know."""
    await visitor.log_in()
    await visitor.do(routes.require(await visitor.send(), RouteRequirements(level=1)))
    exchange = await visitor.send(path="/pay", sec_fetch_mode="navigate")
    with pytest.raises(Refused, match="step_up_required") as refused:
        await visitor.do(routes.require(exchange, RouteRequirements(level=2)))
    assert refused.value.refusal.status == 303
    assert dict(refused.value.refusal.headers) == {"Location": "/login?next=/pay&min_level=2"}
    with pytest.raises(Refused, match="login_required") as refused:
        await visitor.do(routes.require(await Visitor(visitor.client, visitor.gateway).send(), RouteRequirements()))
    assert refused.value.refusal.status == 401


async def test_the_login_page_itself(visitor: Visitor) -> None:
    """A refused login page does not ask to return to itself."""
    exchange = await visitor.send(path="/login", sec_fetch_mode="navigate")
    with pytest.raises(Refused) as refused:
        await visitor.do(routes.require(exchange, RouteRequirements()))
    assert dict(refused.value.refusal.headers) == {"Location": "/login"}
