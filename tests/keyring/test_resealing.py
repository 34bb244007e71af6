"""Sealing stored data again after a promotion: nothing is lost, nothing is done twice, and keys wait for it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from sessiond.app import App
from sessiond.crypto.session_data import MARK_BYTES, DataCipher
from sessiond_client import AsyncClient, Created, InternalError
from tests.keyring.rings import key_file, keys_in, rotate, until_removed
from tests.support.clock import ManualClock
from tests.support.replicas import replicas
from tests.support.server import config_for, serving, sqlite_of
from tests.support.sidecars import until

MINUTES = 60_000


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    async with serving(config_for(tmp_path, encrypt_data=True), clock) as app:
        yield app


@pytest.fixture
async def client(app: App) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(app.address) as client:
        yield client


async def stored(app: App) -> Counter[bytes]:
    """How many stored values begin with each key's mark; plain ones are counted under an empty mark."""
    rows = await sqlite_of(app)._db.all("SELECT value, sealed FROM session_data")
    return Counter(row["value"][:MARK_BYTES] if row["sealed"] else b"" for row in rows)


def marks(app: App) -> list[bytes]:
    """The marks of the keys in a server's file, the first key's first."""
    return list(DataCipher(keys_in(key_file(app)), bytes, encrypts=True).marks())


async def opened(client: AsyncClient, count: int, keys: int = 4) -> list[Created]:
    """Sessions with some data each."""

    async def one(number: int) -> Created:
        data = {f"k{n}": f"value {number} {n}".encode() for n in range(keys)}
        return await client.create(subject=f"s{number}", data=data)

    return [
        created
        for start in range(0, count, 50)
        for created in await asyncio.gather(*map(one, range(start, min(count, start + 50))))
    ]


async def is_all_there(client: AsyncClient, sessions: list[Created], keys: int = 4) -> bool:
    """Whether each session has the data that it was opened with."""
    for number, created in enumerate(sessions):
        found = await client.get_data(token=created.token)
        if dict(found.data.items()) != {f"k{n}": f"value {number} {n}".encode() for n in range(keys)}:
            return False
    return True


async def test_values_move_to_the_promoted_key(app: App, client: AsyncClient) -> None:
    """After a promotion all values are sealed with the new key, the status counts them, and all are readable."""
    sessions = await opened(client, 60)
    assert await stored(app) == {marks(app)[0]: 240}
    await rotate(client)
    await until(lambda: len(keys_in(key_file(app))) == 2)

    async def is_moved() -> bool:
        return await stored(app) == {marks(app)[0]: 240}

    await until(is_moved)
    new, old = (await client.key_ring()).keys
    assert (new.sealed_values, old.sealed_values, old.moved_values) == (240, 0, 240)
    assert await is_all_there(client, sessions)


async def test_a_key_stays_until_its_values_have_moved(app: App, client: AsyncClient) -> None:
    """A key that is retired by force is removed only after the last value of it has moved: all data stays readable."""
    sessions = await opened(client, 200)
    old = await rotate(client)
    survivors = await opened(client, 20)
    await client.retire_sealing_key(old, log_out_sessions=True)
    await until_removed(client, old)
    assert await stored(app) == {marks(app)[0]: 880}
    await until(lambda: len(keys_in(key_file(app))) == 1)  # the file follows the store
    assert await is_all_there(client, survivors)
    for created in sessions:  # their tokens went with the key; the data did not
        found = await client.get_data(session_id=created.session.session_id)
        assert len(found.data) == 4


async def test_what_was_plain_is_encrypted(tmp_path: Path, clock: ManualClock) -> None:
    """After `encrypt_data` was switched on, values that were stored in plain are encrypted in the background."""
    config = config_for(tmp_path)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        sessions = await opened(client, 60)
        assert await stored(app) == {b"": 240}
        assert (await client.key_ring()).plain_values == 240
    async with serving(replace(config, encrypt_data=True), clock) as app, AsyncClient(app.address) as client:

        async def is_encrypted() -> bool:
            return (await client.key_ring()).plain_values == 0

        await until(is_encrypted)
        assert await stored(app) == {marks(app)[0]: 240}
        assert await is_all_there(client, sessions)
    # Switched off again: what is encrypted stays so, and stays readable.
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        await rotate(client)
        assert await is_all_there(client, sessions)


async def test_a_restart_continues(tmp_path: Path, clock: ManualClock) -> None:
    """A server that is stopped amid the work goes on with it after its next start, and each value moves once."""
    config = config_for(tmp_path, encrypt_data=True)
    async with serving(config, clock) as app, AsyncClient(app.address) as client:
        sessions = await opened(client, 300)
        old = await rotate(client)

        async def has_begun() -> bool:
            return (await stored(app))[marks(app)[0]] > 0

        await until(has_begun)
    with closing(sqlite3.connect(config.data / "sessiond.db")) as database:
        values = database.execute("SELECT value FROM session_data").fetchall()
    assert len({value[:MARK_BYTES] for (value,) in values}) == 2, "the work had ended before the server was stopped"
    async with serving(config, clock) as app, AsyncClient(app.address) as client:

        async def is_moved() -> bool:
            return await stored(app) == {marks(app)[0]: 1200}

        await until(is_moved)
        (moved,) = [key for key in (await client.key_ring()).keys if key.fingerprint == old]
        assert moved.moved_values == 1200
        assert await is_all_there(client, sessions)


async def test_what_is_written_meanwhile_counts(app: App, client: AsyncClient) -> None:
    """Values that clients write while older ones are moved keep the newest content."""
    sessions = await opened(client, 150)
    versions = {created.session.session_id: 0 for created in sessions}
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            for created in sessions:
                number = versions[created.session.session_id] + 1
                await client.update_data(session_id=created.session.session_id, set={"k0": str(number).encode()})
                versions[created.session.session_id] = number

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        old = await rotate(client)
        await client.retire_sealing_key(old, log_out_sessions=True)
        await until_removed(client, old)
        done.set()
    for session_id, number in versions.items():
        found = await client.get_data(session_id=session_id)
        assert found.data["k0"] == (str(number).encode() if number else found.data["k0"])
        assert len(found.data) == 4


async def test_a_value_that_no_key_opens_keeps_no_key(app: App, client: AsyncClient) -> None:
    """A value that was altered in the database stays as it is, and keeps neither other values nor the key back."""
    sessions = await opened(client, 10)
    broken = sessions[3].session.session_id
    await sqlite_of(app)._db.all(
        "UPDATE session_data SET value = CAST(substr(value, 1, 10) || x'00' || substr(value, 12) AS BLOB) "
        f"WHERE key = 'k1' AND session_id = x'{broken.replace('-', '')}'"
    )
    old = await rotate(client)
    await client.retire_sealing_key(old, log_out_sessions=True)
    await until_removed(client, old)
    assert (await stored(app))[marks(app)[0]] == 39
    with pytest.raises(InternalError):
        await client.get_data(session_id=broken)


async def test_a_kept_answer_outlives_its_key(app: App, client: AsyncClient, clock: ManualClock) -> None:
    """A call that is retried after the key of its kept answer was removed gets that answer."""
    request = "7d7b3a52-4b9e-4a41-9a61-0b6a5d0f5a77"
    first = await client.create(subject="ada", request_id=request)
    old = await rotate(client)
    await client.retire_sealing_key(old, log_out_sessions=True)
    await until_removed(client, old)
    again = await client.create(subject="ada", request_id=request)
    assert again.session.session_id == first.session.session_id


async def test_replicas_do_it_once(tmp_path: Path, database: str, clock: ManualClock) -> None:
    """Over one Postgres each value is moved once, by one replica, and the status of both shows it."""
    async with (
        replicas(tmp_path, database, clock=clock, encrypt_data=True) as both,
        AsyncClient(both[0].address) as one,
        AsyncClient(both[1].address) as other,
    ):
        sessions = await opened(one, 100)
        old = await rotate(other)

        async def is_moved() -> bool:
            ring = await one.key_ring()
            return [key.sealed_values for key in ring.keys] == [400, 0]

        await until(is_moved)
        for client in (one, other):
            (moved,) = [key for key in (await client.key_ring()).keys if key.fingerprint == old]
            assert moved.moved_values == 400
        await other.retire_sealing_key(old, log_out_sessions=True)
        await until_removed(one, old)
        for created in sessions:
            assert len((await other.get_data(session_id=created.session.session_id)).data) == 4
        connection = await asyncpg.connect(database)
        try:
            left = await connection.fetchval("SELECT count(DISTINCT substr(value, 1, 4)) FROM session_data")
        finally:
            await connection.close()
        assert left == 1
