"""Several servers in one address: the one that takes writes is found, whatever the others do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from scripts.postgres import free_port
from sessiond.config.store_address import PostgresAddress, parse_store
from sessiond.domain.values import Revision
from sessiond.store.contract import StoreRefused, StoreUnavailable
from sessiond.store.postgres.connections import Connections
from sessiond.store.postgres.errors import Meaning, meaning_of
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.contracts.store import write

_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """A server that accepts connections and never answers, as a machine behind a cut cable does to a client."""
    ending = asyncio.Event()

    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ending.wait()
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    ending.set()
    server.close()


def beside(database: str, *others: str) -> PostgresAddress:
    """Return the address of a database, with other servers before it."""
    parts = urlsplit(database)
    user, _, host = parts.netloc.rpartition("@")
    address = parse_store(f"{parts.scheme}://{user}@{','.join((*others, host))}{parts.path}")
    assert address is not None
    return address


async def set_read_only(database: str, value: str) -> None:
    """Let a database refuse writes on new connections, as a standby does, or accept them again; end the others."""
    connection = await asyncpg.connect(database)
    name = urlsplit(database).path.lstrip("/")
    await connection.execute("SET default_transaction_read_only = off; SET transaction_read_only = off")
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
    await connection.execute(_END_OTHERS)
    await connection.close()


async def test_a_dead_and_a_silent_server_are_passed_over(database: str, silent: str) -> None:
    """A server that refuses connections, and one that never answers, do not keep the store from the one that works."""
    store = await PostgresStore.open(beside(database, f"127.0.0.1:{free_port()}", silent))
    await write(store, events=[samples.event(1)])
    assert (await store.head()).revision == Revision(1)
    await store.close()


async def test_connections_that_were_not_chosen_are_closed(database: str) -> None:
    """If several servers accept, one connection stays open."""
    host = urlsplit(database).netloc.rpartition("@")[2]
    connections = Connections(beside(database, host, host))
    chosen = await connections.open()
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    async with asyncio.timeout(5):
        while await chosen.fetchval(count) > 1:
            pass
    chosen.terminate()


async def test_a_read_only_server_is_waited_for(database: str) -> None:
    """If no server takes writes, calls fail as unavailable, and the store works again as soon as one does."""
    store = await PostgresStore.open(beside(database))
    await set_read_only(database, "on")
    with pytest.raises(StoreUnavailable):
        await store.head()
    with pytest.raises(StoreUnavailable):
        await write(store, events=[samples.event(1)])
    await set_read_only(database, "off")
    await write(store, events=[samples.event(1)])
    assert (await store.head()).revision == Revision(1)
    await store.close()


async def test_connections_that_the_server_ends_are_replaced(database: str) -> None:
    """A server that shuts down says so on idle connections; a call at that very moment uses a new connection."""
    store = await PostgresStore.open(beside(database))
    ending = await asyncpg.connect(database)
    try:
        for revision in range(1, 31):
            outcomes = await asyncio.gather(
                *(store.head(), store.head(), ending.execute(_END_OTHERS)), return_exceptions=True
            )
            # The connection that took the place of the first one may have been ended too.
            failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            assert [failure for failure in failures if not isinstance(failure, StoreUnavailable)] == []
            await asyncio.gather(write(store, events=[samples.event(revision)]), ending.execute(_END_OTHERS))
    finally:
        await ending.close()
        await store.close()


async def test_an_error_names_every_server(database: str, silent: str) -> None:
    """If no server can be used, the error says of each why."""
    dead = f"127.0.0.1:{free_port()}"
    await set_read_only(database, "on")
    host = urlsplit(database).netloc.rpartition("@")[2]
    with pytest.raises(StoreRefused) as refusal:
        await PostgresStore.open(beside(database, dead, silent))
    assert f"{dead}: " in str(refusal.value)
    assert f"{silent}: timed out" in str(refusal.value)
    assert f"{host}: is a standby, or read-only" in str(refusal.value)


def test_a_server_that_changes_is_away() -> None:
    """A server that becomes a standby, or ends an idle connection, is away; it is no fault that stops the process."""
    recovering = asyncpg.ObjectNotInPrerequisiteStateError("recovery is in progress")
    assert meaning_of(recovering) is Meaning.AWAY
    assert meaning_of(asyncpg.InternalClientError("cannot switch to state 11")) is Meaning.AWAY
    assert meaning_of(asyncpg.ReadOnlySQLTransactionError("cannot execute in a read-only transaction")) is Meaning.AWAY
