"""The server behind the address becomes a standby and is promoted, as in a failover."""

from __future__ import annotations

import asyncio
import signal

import pytest

from scripts.postgres import LocalPostgres
from sessiond.config.store_address import PostgresAddress
from sessiond.domain.values import Revision
from sessiond.store.contract import StoreUnavailable
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.contracts.store import append, put
from tests.support.pgbouncer import through, transaction_pool
from tests.support.postgres import new_database, start_again


def become_standby(server: LocalPostgres) -> None:
    """Start the server again as a standby that follows nobody."""
    server.stop()
    (server.folder / "data" / "standby.signal").touch()
    start_again(server)


async def test_a_standby_answers_nothing(server: LocalPostgres) -> None:
    """A standby may be behind, so nothing is read from it, and that is an outage and no failure of the store."""
    store = await PostgresStore.open(PostgresAddress(await new_database(server.url())))
    try:
        session = samples.session()
        await put(store, session)
        await append(store, samples.event(1))
        before = list(store.incarnations)
        await asyncio.to_thread(become_standby, server)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await store.head()
            with pytest.raises(StoreUnavailable):
                await store.session(session.id)
            with pytest.raises(StoreUnavailable):
                await append(store, samples.event(2))
            with pytest.raises(StoreUnavailable):
                await store.renew(Revision(1), "")
        await asyncio.to_thread(server.run, "pg_ctl", "promote", "-D", str(server.folder / "data"))
        assert (await store.head()).revision == 1
        assert await store.session(session.id) == session
        await append(store, samples.event(2))
        assert store.incarnations[:-1] == before
        assert store.incarnations[-1].first == 2
    finally:
        await store.close()


async def test_a_restart_behind_pgbouncer(server: LocalPostgres) -> None:
    """Behind PgBouncer a restart is an outage too: calls fail as unavailable, and the store recovers by itself."""
    with transaction_pool(server.url()) as port:
        database = through(await new_database(server.url()), port)
        store = await PostgresStore.open(PostgresAddress(database, pgbouncer=True))
        try:
            await append(store, samples.event(1))
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            with pytest.raises(StoreUnavailable):
                await store.head()
            with pytest.raises(StoreUnavailable):
                await append(store, samples.event(2, subject="lost"))
            await asyncio.to_thread(start_again, server)
            async with asyncio.timeout(30):
                while True:  # PgBouncer waits for some time before it connects again
                    try:
                        head = await store.head()
                        break
                    except StoreUnavailable:
                        await asyncio.sleep(0.05)
            await append(store, samples.event(head.revision + 1, subject="after"))
            assert (await store.events(head.revision, 10))[0].subject == "after"
        finally:
            await store.close()


async def test_a_standby_behind_pgbouncer_answers_nothing(server: LocalPostgres) -> None:
    """Behind PgBouncer a standby answers no reads either."""
    database = await new_database(server.url())
    with transaction_pool(server.url()) as port:
        store = await PostgresStore.open(PostgresAddress(through(database, port), pgbouncer=True))
        try:
            session = samples.session()
            await put(store, session)
            await asyncio.to_thread(become_standby, server)
            async with asyncio.timeout(30):
                while True:
                    with pytest.raises(StoreUnavailable) as failure:
                        await store.session(session.id)
                    if "during recovery" in str(failure.value):
                        break
                    await asyncio.sleep(0.05)
        finally:
            await store.close()
