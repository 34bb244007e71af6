"""Clients at a limit on calls: they wait as long as the authority asks, within the deadline, and name the limit."""

from __future__ import annotations

import asyncio
import copy
import pickle
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond.domain.call_limits import CallLimit, CallLimits
from sessiond_client import AsyncClient, ResourceExhausted
from tests.clients.either import CLIENTS, Either, Kind
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

SLOW = "[limits]\nrate_per_caller = 5\nburst = '200ms'\n"


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_client_waits_as_long_as_it_is_asked_to(tmp_path: Path, clock: ManualClock, kind: Kind) -> None:
    """Calls of every kind beyond the rate succeed a little later, those without a request id included."""
    async with serving(config_for(tmp_path, SLOW), clock) as app:
        async with Either(kind, app.address, safe_retries=False, timeout=30.0, coalesce=False) as client:
            created = [await client.create(subject="ada") for _ in range(3)]
            assert len({one.session.session_id for one in created}) == 3
            for one in created:
                assert (await client.validate(one.token)).valid
        assert app.authority.parts.feed.revision == 3


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_client_that_may_not_wait(tmp_path: Path, clock: ManualClock, kind: Kind) -> None:
    """If the deadline is too near, or retries are off, the exception has limit and time, and nothing has changed."""
    async with serving(config_for(tmp_path, "[limits]\nrate_per_caller = 1\n"), clock) as app:
        async with Either(kind, app.address, timeout=0.5) as client:
            await client.create(subject="ada")
            with pytest.raises(ResourceExhausted) as raised:
                await client.create(subject="ada")
        assert raised.value.setting == "limits.rate_per_caller"
        assert raised.value.retry_after is not None
        assert 0.5 < raised.value.retry_after <= 1.1
        assert not raised.value.outcome_unknown
        for again in (copy.copy(raised.value), pickle.loads(pickle.dumps(raised.value))):
            assert (again.setting, again.retry_after) == (raised.value.setting, raised.value.retry_after)
        async with Either(kind, app.address, retries=0) as client:
            await client.create(subject="ada")
            with pytest.raises(ResourceExhausted):
                await client.create(subject="ada")
        assert app.authority.parts.feed.revision == 2


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_limit_is_no_outage(app: App, kind: Kind) -> None:
    """A refused call does not make the client believe that the authority is out of reach: the next one is sent."""
    async with Either(kind, app.address, retries=0) as client:
        created = await client.create(subject="ada")
        app._limiter.replace(CallLimits(CallLimit(rate=1), burst=app._limiter._limits.burst))
        await client.validate(created.token)
        with pytest.raises(ResourceExhausted):
            await client.validate(created.token)
        assert client.client._flows.circuit.cause == ""
        app._limiter.replace(CallLimits())
        assert (await client.validate(created.token)).valid


async def test_questions_on_a_stream(tmp_path: Path, clock: ManualClock) -> None:
    """Validations that share a stream are repeated one by one as each is told, until all of them are answered."""
    config = config_for(tmp_path, "[limits]\nrate_per_caller = 50\nburst = '200ms'\n")
    async with serving(config, clock) as app, AsyncClient(app.address, timeout=30.0) as client:
        created = await client.create(subject="ada")
        answers = await asyncio.gather(*(client.validate(created.token) for _ in range(60)))
    assert all(one.valid for one in answers)


async def test_many_callers_of_one_key_are_served_one_after_the_other(tmp_path: Path, clock: ManualClock) -> None:
    """Of many calls that are refused at the same time each is told another time, so that few retries are enough."""
    async with serving(config_for(tmp_path, "[limits]\nrate_per_caller = 40\nburst = '200ms'\n"), clock) as app:
        async with AsyncClient(app.address, timeout=30.0) as client:
            await asyncio.gather(*(client.create(subject="ada") for _ in range(60)))
        assert app.authority.parts.feed.revision == 60


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_subscription_waits(tmp_path: Path, clock: ManualClock, kind: Kind) -> None:
    """A subscription that is refused because of a limit is begun again, and delivers everything."""
    async with serving(config_for(tmp_path, SLOW), clock) as app, Either(kind, app.address) as client:
        created = await client.create(subject="ada")
        async with client.follow(start="earliest") as events:
            assert (await events.next()).session_id == created.session.session_id
