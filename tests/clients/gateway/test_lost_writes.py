"""What a user wanted stored is stored, or the response says that it is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sessiond_client.gateway import Action, Refused, RouteRequirements, account, routes
from tests.clients.gateway.visitor import Visitor
from tests.support.clock import ManualClock


async def test_a_form_right_after_the_end_is_refused_and_not_lost(visitor: Visitor, clock: ManualClock) -> None:
    """A guest's form with the cookie of a session that has just ended is refused, because its cookie must stay."""
    await visitor.log_in()
    old = dict(visitor.jar)
    leaving = await visitor.send("POST", "/logout", form=await visitor.form())
    await visitor.do(account.logout(leaving))
    visitor.jar = old  # another tab sends its form before it has noticed
    form = await visitor.send("POST", "/cart")
    form.values["cart"] = ["tea"]
    with pytest.raises(Refused) as refused:
        await visitor.do(form.save())
    assert refused.value.action is Action.LOGIN
    assert [name for name, _ in form.headers()] == ["Vary"]
    page = await visitor.send("GET", "/")
    page.values["seen"] = 1
    assert await visitor.do(page.save()) is False, "what a page notes by itself is no reason to refuse it"
    clock.advance(21_000)
    later = await visitor.send("POST", "/cart")
    later.values["cart"] = ["tea"]
    await visitor.end(later)
    assert await visitor.data() == {"cart": ["tea"]}


async def test_nobody_logs_in_as_nobody(visitor: Visitor) -> None:
    """A step-up of a user who is not logged in any more is a refusal that leads to the login, and no fault."""
    again = await visitor.send("POST", "/login")
    with pytest.raises(Refused) as refused:
        await visitor.do(account.login(again, again.subject, level=2))
    assert refused.value.action is Action.LOGIN


async def test_a_refusal_names_what_is_not_met(visitor: Visitor, clock: ManualClock) -> None:
    """The login page learns whether the level is too low or the authentication too old, and not what is met."""
    needed = RouteRequirements(level=2, max_age=timedelta(minutes=5))

    async def details() -> object:
        page = await visitor.send()
        with pytest.raises(Refused) as refused:
            await visitor.do(routes.require(page, needed))
        assert refused.value.action is Action.STEP_UP
        return refused.value.refusal.details

    await visitor.log_in()
    assert await details() == {"min_level": 2}
    await visitor.log_in(level=2)
    await visitor.do(routes.require(await visitor.send(), needed))
    clock.advance(6 * 60_000)
    assert await details() == {"max_authentication_age": 300}
