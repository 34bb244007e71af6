"""What one replica does is true on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond.changes.maintenance import PruneLog
from sessiond_client import AsyncClient, ClientContext, EventType, Requirements, Verdict
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


async def test_a_step_up_on_one_keeps_forms_good_on_the_other(clients: list[AsyncClient], clock: ManualClock) -> None:
    """A CSRF token from before a step-up on one replica is accepted on the other, and a roll there ends it on both."""
    one, other = clients
    login = await one.create(subject="ada")
    assert (await other.validate(login.token)).valid  # it has the session in its cache now
    raised = await one.authenticate(login.token, "ada")
    assert raised.token is not None
    needed = Requirements(csrf=login.csrf_token)
    at_least = raised.consistency_token
    assert (await other.validate(raised.token, requirements=needed, at_least=at_least)).valid
    rolled = await other.roll(raised.token)
    assert rolled.token is not None
    for client in clients:
        for csrf in (login.csrf_token, raised.csrf_token):
            assert csrf is not None
            seen = await client.validate(
                rolled.token, requirements=Requirements(csrf=csrf), at_least=rolled.consistency_token
            )
            assert seen.verdict is Verdict.INSUFFICIENT


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


async def test_an_awaited_revocation_is_everywhere(clients: list[AsyncClient]) -> None:
    """After a revocation that waits for caches, the other replica denies the session at once, every time."""
    one, other = clients
    for _ in range(50):
        token = (await one.create(subject="ada")).token.reveal()
        assert (await other.validate(token)).verdict is Verdict.VALID
        await one.revoke(token=token, wait_for_caches=True)
        assert (await other.validate(token)).verdict is Verdict.REVOKED


async def test_a_replica_that_is_gone_is_waited_for_until_its_lease_ends(
    both: list[App], clients: list[AsyncClient]
) -> None:
    """A replica that follows no more is waited for as long as it may answer from its cache, and not longer."""
    one, other = clients
    token = (await one.create(subject="ada")).token.reveal()
    assert (await other.validate(token)).verdict is Verdict.VALID
    assert both[1]._following is not None
    both[1]._following.cancel()
    revoking = asyncio.create_task(one.revoke(token=token, wait_for_caches=True))
    while not revoking.done():
        stale = (await other.validate(token)).verdict
    assert stale in (Verdict.VALID, Verdict.REVOKED)
    assert (await other.validate(token)).verdict is Verdict.REVOKED


async def test_a_lock_of_one_replica_holds_on_the_other(tmp_path: Path, database: str) -> None:
    """A source that guesses at one replica is locked on the other too, and either can unlock it."""
    text = "[applications.default.guessing]\nalarm_after = 2\nlock_after = 3\nlock_time = '1h'\ndeny_valid = true\n"
    client = ClientContext(ip_address="192.0.2.7")
    async with (
        replicas(tmp_path, database, text=text) as (first, second),
        AsyncClient(first.address) as one,
        AsyncClient(second.address) as other,
    ):
        token = (await one.create(subject="ada")).token.reveal()
        for _ in range(3):
            await one.validate("A" * 70, client=client)
        async with asyncio.timeout(5):
            while (await other.validate(token, client=client)).verdict is not Verdict.LOCKED:
                pass
        await other.clear_source_lock(source="192.0.2.7")
        async with asyncio.timeout(5):
            while (await one.validate(token, client=client)).verdict is not Verdict.VALID:
                pass


async def test_a_replica_that_was_away_for_longer_than_events_are_kept(
    both: list[App], clients: list[AsyncClient]
) -> None:
    """A replica that missed events for good goes on at the horizon, with nothing from before in its cache."""
    one, other = clients
    token = (await one.create(subject="ada")).token.reveal()
    assert (await other.validate(token)).verdict is Verdict.VALID
    following, away = both[1]._following, both[1].authority.parts
    assert following is not None
    following.cancel()
    await asyncio.wait([following])
    await one.revoke(token=token)
    revoked = both[0].authority.parts.feed.revision
    await one.create(subject="bob")
    await both[0].authority.parts.journal.submit(PruneLog(revoked))
    assert away.follower is not None
    await away.follower.step()
    assert away.feed.revision == both[0].authority.parts.feed.revision
    assert away.feed.horizon == revoked
    assert (await other.validate(token)).verdict is Verdict.REVOKED
