"""What one replica does is true on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, EventType, Verdict
from tests.support.clock import ManualClock
from tests.support.replicas import replicas

MINUTE = 60_000


@pytest.fixture
async def both(tmp_path: Path, database: str, clock: ManualClock) -> AsyncIterator[list[App]]:
    async with replicas(tmp_path, database, clock=clock) as running:
        yield running


@pytest.fixture
async def clients(both: list[App]) -> AsyncIterator[list[AsyncClient]]:
    async with AsyncClient(both[0].address) as one, AsyncClient(both[1].address) as other:
        yield [one, other]


async def test_a_session_of_one_is_valid_on_the_other(clients: list[AsyncClient]) -> None:
    """A session that one replica opens is valid on the other, and ends everywhere when either revokes it."""
    one, other = clients
    login = await one.create(subject="ada")
    seen = await other.validate(login.token.reveal())
    assert seen.verdict is Verdict.VALID
    ended = await one.revoke(token=login.token.reveal())
    assert ended.revoked
    seen = await other.validate(login.token.reveal(), at_least=ended.consistency_token)
    assert seen.verdict is Verdict.REVOKED


async def test_a_revocation_is_seen_without_asking_for_it(clients: list[AsyncClient]) -> None:
    """A plain revocation on one replica reaches the other's cache by itself."""
    one, other = clients
    login = await one.create(subject="ada")
    assert (await other.validate(login.token.reveal())).verdict is Verdict.VALID
    await one.revoke(token=login.token.reveal())
    async with asyncio.timeout(3):
        while (await other.validate(login.token.reveal())).verdict is Verdict.VALID:
            pass


async def test_both_write_to_one_log(clients: list[AsyncClient]) -> None:
    """Sessions opened on both at the same time give one log: each subscriber gets every event once, in order."""
    one, other = clients

    async def follow(client: AsyncClient) -> list[int]:
        seen = []
        async for event in client.events(start="earliest"):
            if event.type is EventType.SESSION_CREATED:
                seen.append(event.revision)
            if len(seen) == 200:
                return seen
        raise AssertionError

    following = [asyncio.create_task(follow(client)) for client in clients]
    await asyncio.gather(*(client.create(subject=f"s{n}") for n in range(100) for client in (one, other)))
    async with asyncio.timeout(20):
        first, second = await asyncio.gather(*following)
    assert first == second == list(range(1, 201))


async def test_activity_on_one_keeps_the_session_alive_on_the_other(
    clients: list[AsyncClient], clock: ManualClock
) -> None:
    """A replica that has not seen a session for long asks the store before it calls the session idle."""
    one, other = clients
    login = await one.create(subject="ada")
    token = login.token.reveal()
    assert (await other.validate(token)).verdict is Verdict.VALID
    for _ in range(3):
        clock.advance(15 * MINUTE)
        assert (await one.validate(token)).verdict is Verdict.VALID
    assert (await other.get(session_id=login.session.session_id)).verdict is Verdict.VALID
    assert (await other.validate(token)).verdict is Verdict.VALID
