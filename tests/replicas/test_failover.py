"""The server behind the address becomes a standby and is promoted, as in a failover."""

from __future__ import annotations

import asyncio

import pytest

from scripts.postgres import LocalPostgres
from sessiond.config.store_address import PostgresAddress
from sessiond.domain.values import Revision
from sessiond.store.contract import StoreUnavailable
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples
from tests.contracts.store import append, put
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
