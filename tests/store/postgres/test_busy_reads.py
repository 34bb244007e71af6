"""Reads that wait for the database do not keep a replica from following the log."""

from __future__ import annotations

import asyncio

from sessiond.domain.values import Revision, SessionId
from sessiond.store.postgres.connections import Connection
from sessiond.store.postgres.store import PostgresStore

READS = 30
"""More than the store makes at a time."""


async def test_slow_reads_of_sessions_do_not_keep_a_replica_from_its_lease(
    store: PostgresStore, beside: Connection
) -> None:
    """While many reads of sessions wait for the database, leases are renewed and the log is read."""
    await beside.execute("BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
    reads = [asyncio.create_task(store.session(SessionId(bytes([number] * 16)))) for number in range(READS)]
    while not await beside.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass
    async with asyncio.timeout(3):  # the reads wait for longer
        await store.renew(Revision(0), "")
        assert [lease.replica for lease in await store.leases()] == [store.replica]
        assert await store.events((await store.head()).revision, 10) == []
        await store.acknowledge(Revision(0))
    assert not any(read.done() for read in reads)
    await beside.execute("COMMIT")
    assert await asyncio.gather(*reads) == [None] * READS
