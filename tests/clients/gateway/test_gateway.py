"""What a gateway knows of the policy: read now and then, and kept through outages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from sessiond_client import Unavailable
from sessiond_client.gateway import CookieNames, Gateway
from tests.clients.either import Either
from tests.clients.gateway.visitor import Visitor
from tests.support.clock import ManualClock


async def test_read_now_and_then(visitor: Visitor, clock: ManualClock) -> None:
    """The policy is read once, and again after five minutes."""
    asked: Any = visitor.client
    for wait, times in ((0, 1), (299_000, 1), (2_000, 2), (0, 2)):
        clock.advance(wait)
        await visitor.do(visitor.gateway.facts())
        assert asked.asked["authority"] == times


async def test_kept_through_an_outage(visitor: Visitor, unreachable: Either, clock: ManualClock) -> None:
    """What is known is kept if it cannot be read again; at first there is nothing to keep."""
    clock.advance(301_000)
    cut_off = Visitor(unreachable, visitor.gateway)
    facts = await cut_off.do(visitor.gateway.facts())
    assert facts.cookies == CookieNames("__Host-id", "__Host-id")
    assert visitor.gateway.lock_seconds == 900
    with pytest.raises(Unavailable):
        await cut_off.do(Gateway().facts())


async def test_an_application_that_does_not_exist(visitor: Visitor) -> None:
    """A wrong name of the application is reported with those that exist."""
    with pytest.raises(ValueError, match=re.escape("unknown application 'shopp' (configured: default)")):
        await visitor.do(Gateway("shopp").facts())


async def test_names_of_a_proxy(visitor: Visitor, another: Callable[..., Gateway]) -> None:
    """Names in the settings need no question, and the length of a lock is then not known."""
    gateway = another(cookie_names=CookieNames("a", "b"))
    asked: Any = visitor.client
    asked.asked.clear()
    facts = await visitor.do(gateway.facts())
    assert (facts.cookies, gateway.lock_seconds, asked.asked) == (CookieNames("a", "b"), 0, {})
