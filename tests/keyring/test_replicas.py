"""Rotating keys over one Postgres: a change at one replica reaches the others, without the keys in the database."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from sessiond.app import App
from sessiond.crypto.tokens import KeyRing
from sessiond_client import AsyncClient, EventType, FailedPrecondition, SealingKeyState, Token
from tests.keyring.rings import key_file, keys_in, prints_in, rotate, until_removed
from tests.support.clock import ManualClock
from tests.support.replicas import replica, replicas
from tests.support.sidecars import until

QUARTER = 900_000


@pytest.fixture
async def both(tmp_path: Path, database: str, clock: ManualClock) -> AsyncIterator[list[App]]:
    async with replicas(tmp_path, database, clock=clock) as running:
        yield running


@pytest.fixture
async def clients(both: list[App]) -> AsyncIterator[list[AsyncClient]]:
    async with AsyncClient(both[0].address) as one, AsyncClient(both[1].address) as other:
        yield [one, other]


async def test_a_new_key_is_in_every_file_when_the_call_returns(both: list[App], clients: list[AsyncClient]) -> None:
    """When adding a key returns, each replica has it in its own key file, and says so."""
    added = (await clients[0].add_sealing_key()).key
    assert [prints_in(key_file(app))[1] for app in both] == [added.fingerprint] * 2
    for client in clients:
        ring = await client.key_ring()
        assert [key.state for key in ring.keys] == [SealingKeyState.SEALING, SealingKeyState.ADDED]
        assert [len(key.holding_replicas) for key in ring.keys] == [2, 2]
        assert not any(key.lacking_replicas for key in ring.keys)


async def test_no_key_is_in_the_database(both: list[App], clients: list[AsyncClient], database: str) -> None:
    """Of a key, the database has the fingerprint, and the key itself only encrypted under the key before."""
    await clients[0].add_sealing_key()
    old, new = keys_in(key_file(both[0]))
    connection = await asyncpg.connect(database)
    try:
        rows = await connection.fetch("SELECT * FROM keys ORDER BY number")
        dump = await connection.fetchval("SELECT string_agg(keys::text, '') FROM keys")
    finally:
        await connection.close()
    assert len(rows) == 2
    for part in (old[:16], old[-16:], new[:16], new[-16:]):
        assert part.hex() not in dump
    assert KeyRing([old]).unwrap(rows[1]["wrapped"], rows[1]["fingerprint"]) == new
    assert KeyRing([new]).unwrap(rows[1]["wrapped"], rows[1]["fingerprint"]) is None


async def test_a_local_key_is_copied_by_hand(both: list[App], clients: list[AsyncClient], database: str) -> None:
    """A key that was added for one replica alone is not in the database; others get it by their file and a reload."""
    added = (await clients[0].add_sealing_key(local=True)).key
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT max(length(wrapped)) FROM keys") == 0
    finally:
        await connection.close()
    with pytest.raises(FailedPrecondition, match="do not hold the key"):
        await clients[0].promote_sealing_key()
    shutil.copy(key_file(both[0]), key_file(both[1]))
    await both[1].reload(both[1]._config)

    async def is_held() -> bool:
        return not any(key.lacking_replicas for key in (await clients[0].key_ring()).keys)

    await until(is_held)
    assert (await clients[1].promote_sealing_key()).key.fingerprint == added.fingerprint


async def test_a_promotion_counts_at_every_replica(both: list[App], clients: list[AsyncClient]) -> None:
    """After a promotion at one replica both seal with the new key, and each opens the tokens of the other."""
    await rotate(clients[0])
    new = keys_in(key_file(both[0]))[0]

    async def seals_with_new() -> bool:
        token = (await clients[1].create(subject="ada")).token
        assert (await clients[0].validate(token)).valid
        try:
            KeyRing([new]).open(token.reveal())
        except Exception:  # noqa: BLE001 - of the ring: another key has sealed it
            return False
        return True

    await until(seals_with_new)
    await until(lambda: keys_in(key_file(both[1]))[0] == new)


async def test_a_promotion_waits_for_a_replica_that_lags(both: list[App], clients: list[AsyncClient]) -> None:
    """As long as a replica cannot store the new key, promoting it is refused, with the name of the replica."""
    file = key_file(both[1])
    moved = file.with_name("moved")
    file.rename(moved)
    file.mkdir()  # a file cannot take the place of a folder
    added = (await clients[0].add_sealing_key()).key
    (shown,) = [key for key in (await clients[0].key_ring()).keys if key.fingerprint == added.fingerprint]
    assert len(shown.lacking_replicas) == 1
    for client in clients:
        with pytest.raises(FailedPrecondition, match=shown.lacking_replicas[0]):
            await client.promote_sealing_key(added.fingerprint)
    file.rmdir()
    moved.rename(file)

    async def is_held() -> bool:
        return not any(key.lacking_replicas for key in (await clients[0].key_ring()).keys)

    await until(is_held)
    await clients[0].promote_sealing_key(added.fingerprint)


async def test_a_replica_that_was_stopped_learns_the_key(tmp_path: Path, database: str) -> None:
    """A replica that did not run during a rotation learns the new key when it starts, and keeps it in its file."""
    async with replica(tmp_path, database, 0) as first:
        async with replica(tmp_path, database, 1):
            pass
        async with AsyncClient(first.address) as client:
            await rotate(client)
            token = (await client.create(subject="ada")).token
        async with replica(tmp_path, database, 1) as again, AsyncClient(again.address) as client:
            assert (await client.validate(token)).valid
            assert prints_in(key_file(again)) == prints_in(key_file(first))


async def test_a_replica_with_a_file_from_before_is_refused_once_the_key_is_gone(tmp_path: Path, database: str) -> None:
    """A replica that has only a removed key cannot learn the others any more: it is told to copy the key file."""
    async with replica(tmp_path, database, 0) as first:
        before = tmp_path / "before.key"
        shutil.copy(key_file(first), before)
        async with AsyncClient(first.address) as client:
            old = await rotate(client)
            await client.retire_sealing_key(old, log_out_sessions=True)
            await until_removed(client, old)
        data = tmp_path / "replica-1" / "data"
        data.mkdir(parents=True, mode=0o700)
        shutil.copy(before, data / "sessiond.key")
        with pytest.raises(Exception, match="Copy the key file of a running replica"):
            async with replica(tmp_path, database, 1):
                pass


async def test_a_rotation_under_load_fails_no_call_and_ends_no_session(
    both: list[App], clients: list[AsyncClient], clock: ManualClock
) -> None:
    """While clients log in, validate and renew at both replicas, a whole rotation fails no call and ends no session."""
    tokens: list[Token] = [(await clients[0].create(subject=f"s{n}")).token for n in range(8)]
    rotated, calls = asyncio.Event(), 0

    async def use(number: int) -> None:
        nonlocal calls
        turn = number
        while not rotated.is_set():
            turn += 1
            answer = await clients[turn % 2].validate(tokens[number])
            assert answer.valid, answer.verdict
            tokens[number] = answer.renewed_token or tokens[number]
            fresh = await clients[turn % 2].create(subject=f"s{number}")
            assert (await clients[1 - turn % 2].validate(fresh.token)).valid
            await clients[turn % 2].revoke(token=fresh.token)
            calls += 4

    async with asyncio.TaskGroup() as group:
        for number in range(len(tokens)):
            group.create_task(use(number))
        before = calls
        old = await rotate(clients[0])
        for _ in range(10):  # past a renewal, and the idle timeout after it
            clock.advance(QUARTER // 2)
            before = calls
            await until(lambda reached=before + 64: calls > reached)  # type: ignore[misc]
        async with asyncio.timeout(30):
            while True:
                try:
                    await clients[1].retire_sealing_key(old)
                    break
                except FailedPrecondition:
                    clock.advance(QUARTER // 2)
                    await asyncio.sleep(0.2)
        await until_removed(clients[0], old)
        before = calls
        await until(lambda: calls > before + 64)
        rotated.set()
    for token in tokens:
        assert [(await client.validate(token)).valid for client in clients] == [True, True]
    assert [len(keys_in(key_file(app))) for app in both] == [1, 1]


async def test_one_replica_removes_a_key(tmp_path: Path, database: str, clock: ManualClock) -> None:
    """Of several replicas one removes a retired key, once, and the others drop it from their files."""
    async with replicas(tmp_path, database, count=3, clock=clock) as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(app.address)) for app in running]
        old = await rotate(clients[0])
        await clients[1].retire_sealing_key(old, log_out_sessions=True)
        for client in clients:
            await until_removed(client, old)
        await until(lambda: all(len(keys_in(key_file(app))) == 1 for app in running))
        await clients[0].create(subject="last")
        reasons = []
        async for event in clients[2].events(start="earliest", applications=()):
            if event.type is EventType.SESSION_CREATED:
                break
            reasons.append(event.cause.reason.split()[0])
        assert reasons == ["added", "promoted", "began", "removed"]
