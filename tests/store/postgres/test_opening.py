"""Opening a database: keys, migrations, and replicas that start at the same time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from sessiond.config.store_address import PostgresAddress
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import KEY_BYTES
from sessiond.store.contract import StoreRefused
from sessiond.store.migrations import load_migrations
from sessiond.store.postgres.connections import Connection
from sessiond.store.postgres.store import PostgresStore
from sessiond.store.sealed_data import StoreKeys
from tests.contracts import samples
from tests.contracts.store import write

ONE, TWO, THREE = (bytes([number]) * 16 for number in (1, 2, 3))


def keys_of(fingerprints: Sequence[bytes]) -> StoreKeys:
    """Return keys with these fingerprints, the sealing key's first."""
    return StoreKeys(DataCipher([bytes(KEY_BYTES)], os.urandom, encrypts=False), fingerprints)


Open = Callable[..., Awaitable[PostgresStore]]


@pytest.fixture
def open_with(database: str, closing: AsyncExitStack) -> Open:
    """Opens a store with the keys that have these fingerprints, or without keys. It is closed after the test."""

    async def open_with(
        fingerprints: Sequence[bytes] = (), name: str = "", load: Callable[[bool], StoreKeys] | None = None
    ) -> PostgresStore:
        load = load or (lambda _: keys_of(fingerprints))
        store = await PostgresStore.open(PostgresAddress(database), load, name=name)
        closing.push_async_callback(store.close)
        return store

    return open_with


async def tables(beside: Connection) -> list[str]:
    """Return the names of all tables in the database."""
    rows = await beside.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    return [row["tablename"] for row in rows]


# Keys


async def test_another_key_file_is_refused(open_with: Open) -> None:
    """A replica whose key file lacks the key that the database was written with is refused, and told to copy one."""
    await (await open_with([ONE])).close()
    with pytest.raises(StoreRefused, match=r"does not contain the key .*\(01010101\).*Copy the key file of a running"):
        await open_with([TWO])


async def test_a_sealing_key_that_a_running_replica_does_not_know_is_refused(open_with: Open) -> None:
    """A replica that would seal with a key unknown to a running one is refused, and told the order of the steps."""
    running = await open_with([ONE], "first of all")
    with pytest.raises(StoreRefused, match=r"\(02020202\) is unknown to the replica first of all.*second line first"):
        await open_with([TWO, ONE])
    await running.close()
    running = await open_with([ONE, TWO])
    await (await open_with([TWO, ONE])).close()
    await running.close()


async def test_a_key_that_a_running_replica_seals_with_cannot_be_missing(open_with: Open) -> None:
    """A replica that lacks the sealing key of a running one is refused, though the last one to start had another."""
    await (await open_with([ONE])).close()
    running = [await open_with([ONE, TWO], "the old one"), await open_with([TWO, ONE])]
    with pytest.raises(StoreRefused, match=r"does not contain the key \(01010101\) .* the old one.*second line"):
        await open_with([TWO])
    for store in running:
        await store.close()
    await (await open_with([TWO])).close()


async def test_of_two_replicas_with_new_keys_one_is_refused(open_with: Open) -> None:
    """Of two replicas that start at the same time with new sealing keys, the second one is refused."""
    await (await open_with([ONE])).close()
    opened = await asyncio.gather(open_with([TWO, ONE]), open_with([THREE, ONE]), return_exceptions=True)
    stores = [store for store in opened if isinstance(store, PostgresStore)]
    assert len(stores) == 1
    assert [type(error) for error in opened if error not in stores] == [StoreRefused]
    await stores[0].close()


# Migrations


async def test_replicas_that_start_together_make_one_schema(open_with: Open, beside: Connection) -> None:
    """Of several replicas that open an empty database at once, one creates the tables, and all use them."""
    stores = await asyncio.gather(*(open_with() for _ in range(6)))
    assert len({store.authority_id for store in stores}) == 1
    assert len({store.incarnations[-1] for store in stores}) == 1
    assert await beside.fetchval("SELECT count(*) FROM replicas") == 6
    versions = await beside.fetch("SELECT version FROM sessiond_schema")
    assert [row["version"] for row in versions] == [len(load_migrations("sessiond.store.postgres"))]
    for store in stores:
        await store.close()


async def test_one_key_is_made(open_with: Open) -> None:
    """Of several replicas that open an empty database at once, one may make a key."""
    asked: list[bool] = []

    async def start() -> PostgresStore:
        own = os.urandom(16)

        def load(is_new: bool) -> StoreKeys:
            asked.append(is_new)
            return keys_of([own] if is_new else [])

        return await open_with(load=load)

    stores = await asyncio.gather(*(start() for _ in range(4)))
    assert sorted(asked) == [False, False, False, True]
    for store in stores:
        await store.close()


async def test_a_newer_schema_is_refused(store: PostgresStore, beside: Connection, open_with: Open) -> None:
    """A database of a newer version is refused with both versions and the remedy."""
    newest = len(load_migrations("sessiond.store.postgres"))
    await beside.execute("UPDATE sessiond_schema SET version = version + 1")
    before = await tables(beside)
    refusal = rf"schema version {newest + 1}, but .* up to {newest}\. Run the newer sessiond, or restore a backup"
    with pytest.raises(StoreRefused, match=refusal):
        await open_with()
    assert await tables(beside) == before


async def test_a_database_of_another_program_is_refused(open_with: Open, beside: Connection) -> None:
    """A database with a foreign table `sessions` is refused, and nothing is created in it."""
    await beside.execute("CREATE TABLE sessions (theirs TEXT)")
    with pytest.raises(StoreRefused, match="a table `sessions` of another program; give sessiond a database of its"):
        await open_with()
    assert await tables(beside) == ["sessions"]


async def test_a_migration_that_fails_changes_nothing(open_with: Open, beside: Connection) -> None:
    """If a migration fails, its error is reported, and nothing of it stays."""
    await beside.execute("CREATE TABLE keys (theirs TEXT)")
    with pytest.raises(StoreRefused, match='relation "keys" already exists'):
        await open_with()
    assert set(await tables(beside)) <= {"keys", "sessiond_schema"}
    await beside.execute("DROP TABLE keys")
    await (await open_with()).close()


async def test_leases_that_may_be_lost_count_after_the_next_start_too(open_with: Open, beside: Connection) -> None:
    """For the time of a lease after the database was set back, a replica that starts does not hide that."""
    await (await open_with()).close()
    await beside.execute("UPDATE log_head SET lineage = 'another'")
    for _ in range(2):
        store = await open_with()
        assert b"" in {lease.replica for lease in await store.leases()}
        await store.close()
    await beside.execute("UPDATE log_head SET incarnation_began = incarnation_began - INTERVAL '1 hour'")
    store = await open_with()
    assert b"" not in {lease.replica for lease in await store.leases()}
    await store.close()


async def test_what_killed_replicas_leave_is_deleted(database: str, beside: Connection) -> None:
    """A replica that starts deletes what replicas have left that have been gone for a day, and nothing of others."""
    stores = [await PostgresStore.open(PostgresAddress(database)) for _ in range(2)]
    for number, store in enumerate(stores, 1):
        await write(store, events=[samples.event(number)])
    gone = "UPDATE replicas SET lease_until = clock_timestamp() - INTERVAL '25 hours' WHERE replica = $1"
    await beside.execute(gone, stores[0].replica)
    third = await PostgresStore.open(PostgresAddress(database))
    replicas = await beside.fetch("SELECT replica FROM replicas")
    assert {row["replica"] for row in replicas} == {stores[1].replica, third.replica}
    marks = await beside.fetch("SELECT replica FROM commit_marks")
    assert [row["replica"] for row in marks] == [stores[1].replica]
    for store in (*stores, third):
        await store.close()
