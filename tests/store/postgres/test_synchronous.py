"""With a synchronous standby a write counts once the standby has it, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from scripts.postgres import LocalPostgres
from sessiond.config.store_address import PostgresAddress
from sessiond.store.contract import StoreUnavailable
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.contracts.store import write


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    """A Postgres that the test may crash."""
    with tempfile.TemporaryDirectory(prefix="sessiond-postgres-") as folder:
        os.chmod(folder, 0o755)
        server = LocalPostgres(Path(folder) / "server")
        server.start()
        yield server
        server.stop(signal.SIGQUIT)


@pytest.fixture
async def store(server: LocalPostgres) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(PostgresAddress(server.url()))
    yield store
    await store.close()


async def wait_for_standby(server: LocalPostgres, name: str) -> None:
    """Let commits wait for a standby of this name, which does not exist; empty: for none."""
    connection = await asyncpg.connect(server.url())
    await connection.execute("SET synchronous_commit = local")
    await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await connection.execute("SELECT pg_reload_conf()")
    while await connection.fetchval("SHOW synchronous_standby_names") != name:
        pass
    while name and not await _does_wait(server, connection):
        pass
    await connection.close()


async def _does_wait(server: LocalPostgres, other: asyncpg.Connection) -> bool:
    """Return whether a commit waits. Each process of Postgres reads a new setting when it gets to it."""
    connection = await asyncpg.connect(server.url())
    committing = asyncio.ensure_future(connection.execute("SELECT pg_logical_emit_message(true, 'a', 'b')"))
    while not (waits := await waiting_commits(server) > 0) and not committing.done():
        pass
    if waits:
        await other.execute("SELECT pg_cancel_backend($1)", connection.get_server_pid())
    await committing
    await connection.close()
    return waits


async def waiting_commits(server: LocalPostgres) -> int:
    """Return how many commits wait for the standby."""
    connection = await asyncpg.connect(server.url())
    count: int = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    await connection.close()
    return count


async def revision_on_disk(server: LocalPostgres) -> int:
    """Return the newest revision that can be read on this server. Its store does not answer yet."""
    connection = await asyncpg.connect(server.url())
    revision: int = await connection.fetchval("SELECT revision FROM log_head")
    await connection.close()
    return revision


async def test_a_crash_does_not_acknowledge_what_no_standby_has(server: LocalPostgres, store: PostgresStore) -> None:
    """A write that is on the leader's disk alone after a crash is not acknowledged, although it can be read there."""
    await write(store, events=[samples.event(1)])
    await wait_for_standby(server, "gone")
    writing = asyncio.create_task(write(store, events=[samples.event(2)]))
    async with asyncio.timeout(10):
        while not await waiting_commits(server):
            assert not writing.done()
    server.stop(signal.SIGQUIT)
    server.start()
    assert await revision_on_disk(server) == 2
    with pytest.raises(StoreUnavailable):
        await writing


async def test_a_crash_acknowledges_what_the_standby_has_then(server: LocalPostgres, store: PostgresStore) -> None:
    """A write whose answer was lost in a crash is acknowledged, once, as soon as the standby has it."""
    await wait_for_standby(server, "gone")
    writing = asyncio.create_task(write(store, events=[samples.event(1)]))
    async with asyncio.timeout(10):
        while not await waiting_commits(server):
            assert not writing.done()
    server.stop(signal.SIGQUIT)
    server.start()
    await wait_for_standby(server, "")
    await writing
    assert (await store.head()).revision == 1
