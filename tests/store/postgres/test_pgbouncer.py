"""The Postgres store fulfils its contract through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessiond.config.store_address import PostgresAddress
from sessiond.domain.values import Revision
from sessiond.store.contract import StoreRefused
from sessiond.store.postgres.store import PostgresStore
from sessiond_client import AsyncClient, Verdict
from tests.contracts import samples
from tests.contracts.store import Opener, StoreContract, append
from tests.support.pgbouncer import through, transaction_pool
from tests.support.replicas import replicas


@pytest.fixture(scope="module")
def pool(postgres: str) -> Iterator[int]:
    """The port of a PgBouncer in front of the tests' Postgres."""
    with transaction_pool(postgres) as port:
        yield port


class TestThroughPgBouncer(StoreContract):
    """The contract, with a database of its own for each test, and another server connection for each transaction."""

    @pytest.fixture
    def open_store(self, database: str, pool: int) -> Opener:
        return lambda: PostgresStore.open(PostgresAddress(through(database, pool), pgbouncer=True))


async def test_an_address_that_does_not_mention_pgbouncer(database: str, pool: int) -> None:
    """A store that does not know of the PgBouncer in between is refused, and the message names the parameter."""
    with pytest.raises(StoreRefused, match=r"add \?pgbouncer=true to the address"):
        await PostgresStore.open(PostgresAddress(through(database, pool)))


async def test_many_stores_at_once(database: str, pool: int) -> None:
    """Stores that open, read, write and close at the same time share few connections to the server, and none fails."""
    address = PostgresAddress(through(database, pool), pgbouncer=True)
    first = await PostgresStore.open(address)
    await append(first, samples.event(1))
    for _ in range(5):
        stores = await asyncio.gather(*(PostgresStore.open(address) for _ in range(8)))
        found = await asyncio.gather(*(store.events(Revision(0), 10) for store in stores for _ in range(10)))
        assert all(len(events) == 1 for events in found)
        await asyncio.gather(*(store.renew(Revision(1), "") for store in stores))
        assert len(await first.leases()) == len(stores) + 1
        await asyncio.gather(*(store.close() for store in stores))
        assert len(await first.leases()) == 1
    await first.close()


async def test_two_replicas(tmp_path: Path, database: str, pool: int) -> None:
    """Two replicas behind PgBouncer follow one log: a revocation that waits for caches is everywhere."""
    async with (
        replicas(tmp_path, f"{through(database, pool)}?pgbouncer=true") as (first, second),
        AsyncClient(first.address, timeout=30) as one,
        AsyncClient(second.address, timeout=30) as other,
    ):
        for _ in range(10):
            login = await one.create(subject="ada")
            token = login.token.reveal()
            seen = await other.validate(token, at_least=login.consistency_token)
            assert seen.verdict is Verdict.VALID
            await one.revoke(token=token, wait_for_caches=True)
            assert (await other.validate(token)).verdict is Verdict.REVOKED
