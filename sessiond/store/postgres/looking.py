"""Looking at a database, also while servers use it: in one transaction that cannot change anything."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from sessiond.config.store_address import PostgresAddress
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant
from sessiond.store.contract import StoreRefused, StoreUnavailable
from sessiond.store.migrations import check_version
from sessiond.store.postgres.connections import Connections
from sessiond.store.postgres.errors import DATABASE_ERRORS, described
from sessiond.store.postgres.opening import newest_version, read_version
from sessiond.store.postgres.statements import STATEMENTS, own

__all__ = ["PostgresFacts", "ReplicaFacts", "look_at_postgres"]


@immutable
class ReplicaFacts:
    """A replica that runs.

    name      its name for operators
    policies  the fingerprint of its policies; empty: it has just started
    keys      the fingerprints of the keys that it holds
    behind    the revisions that its cache has not applied yet
    """

    name: str
    policies: str
    keys: Sequence[bytes]
    behind: int


@immutable
class PostgresFacts:
    """What was found.

    server, number      the version of Postgres as text, and as a number such as 180001
    synchronous_commit  the setting of that name, for the user and the database of the address
    fsync               whether the server writes to the disk at all
    connections         how many connections ordinary users may have open, all together
    open_connections    how many are open now, ours included
    version, newest     the schema version (0: there is no store yet), and that of this sessiond
    keys                the fingerprints of the recorded key ring, the sealing key's first
    sealing_since       since when the first of them seals, in milliseconds; None: that is not known
    replicas            the replicas that run now
    """

    server: str
    number: int
    synchronous_commit: str
    fsync: bool
    connections: int
    open_connections: int
    version: int
    newest: int
    keys: Sequence[bytes]
    sealing_since: Instant | None
    replicas: Sequence[ReplicaFacts]


async def look_at_postgres(address: PostgresAddress) -> PostgresFacts:
    """Look at the database.

    Raise `StoreRefused`, with the remedy, if a server could not use it, and `StoreUnavailable` if it does not respond.
    """
    try:
        connection = await Connections(address).open()
        try:
            # Not a setting of the connection, which behind a PgBouncer would be somebody else's next.
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await _look(connection, address)
        finally:
            connection.terminate()
    except DATABASE_ERRORS as error:
        raise StoreUnavailable(f"cannot use {address}: {described(error)}") from error


async def _look(connection: asyncpg.Connection[asyncpg.Record], address: PostgresAddress) -> PostgresFacts:
    server = await connection.fetchrow(own("look_at_server").sql)
    if server is None:
        raise StoreRefused(f"{address} does not show its settings; is it Postgres?")
    newest, version = newest_version(), 0
    keys: Sequence[asyncpg.Record] = ()
    replicas: Sequence[ReplicaFacts] = ()
    if await connection.fetchval("SELECT to_regclass('sessiond_schema')") is not None:
        version = await read_version(connection, address)
        check_version(address, version, newest)
    if version == newest:  # an older schema may lack what is read here
        keys = await connection.fetch(STATEMENTS["read_keys"].sql)
        replicas = [
            ReplicaFacts(row["name"], row["policies"], row["fingerprints"], max(0, row["behind"]))
            for row in await connection.fetch(own("look_at_replicas").sql)
        ]
    return PostgresFacts(
        server=server["version"],
        number=server["number"],
        synchronous_commit=server["synchronous_commit"],
        fsync=server["fsync"] == "on",
        connections=server["connections"],
        open_connections=server["open_connections"],
        version=version,
        newest=newest,
        keys=[row["fingerprint"] for row in keys],
        sealing_since=keys[0]["since"] if keys else None,
        replicas=replicas,
    )
