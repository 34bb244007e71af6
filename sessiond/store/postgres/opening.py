"""Opening the store: schema, keys, and the incarnation of the log. One replica at a time does this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import asyncpg

from sessiond.config.store_address import PostgresAddress
from sessiond.crypto.session_data import DataCipher
from sessiond.domain.key_ring import SealingKey, reconciled
from sessiond.domain.position import INCARNATION_BYTES, Incarnation
from sessiond.domain.values import Entropy, Instant, Revision
from sessiond.store.contract import StoreRefused
from sessiond.store.migrations import check_version, load_migrations
from sessiond.store.postgres.connections import Connection, Connections
from sessiond.store.postgres.statements import STATEMENTS, own
from sessiond.store.rows import key_from_row, key_row
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.shared import LEASE

__all__ = [
    "Opened",
    "begin_incarnation",
    "create_schema_table",
    "incarnations_of",
    "migrate",
    "newest_version",
    "open_database",
    "read_version",
    "set_version",
]

_FIRST_TABLES = "CREATE TABLE sessiond_schema (log SMALLINT PRIMARY KEY, version BIGINT NOT NULL)"
_DUPLICATE = (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError)


class Opened:
    """What was found and set when the store was opened."""

    authority_id: bytes
    incarnations: Sequence[Incarnation]
    cipher: DataCipher | None = None
    fingerprints: Sequence[bytes] = ()
    keys_before: Sequence[SealingKey] = ()


async def open_database(
    connections: Connections,
    address: PostgresAddress,
    replica: bytes,
    name: str,
    load_keys: Callable[[bool], StoreKeys] | None,
    entropy: Entropy,
) -> Opened:
    """Migrate the schema, check the keys, and register the replica, all in one transaction.

    Raises `StoreRefused`, with the remedy; then nothing was changed. `load_keys` is called as `SqliteStore.open` does.
    """
    connection = await connections.open()
    try:
        await create_schema_table(connection, address)
        await connections.begin(connection)
        await connection.execute("LOCK TABLE sessiond_schema IN EXCLUSIVE MODE")
        version = await read_version(connection, address)
        check_version(address, version, newest_version())
        await migrate(connection, version)
        opened = await _prepare(connection, address, replica, name, load_keys, entropy)
        await connection.execute("COMMIT")
        return opened
    finally:
        connection.terminate()  # also rolls back


def newest_version() -> int:
    """Return the schema version after all migrations."""
    return len(load_migrations("sessiond.store.postgres"))


async def create_schema_table(connection: Connection, address: PostgresAddress) -> None:
    """Create the table with the schema's version, if it is missing. Raise `StoreRefused` beside foreign tables."""
    # Both at the same moment: another replica may create them between two statements.
    (found,) = await connection.fetch("SELECT to_regclass('sessiond_schema') AS own, to_regclass('sessions') AS other")
    if found["own"] is not None:
        return
    if found["other"] is not None:
        raise _of_another_program(address)
    with suppress(*_DUPLICATE):  # another replica was faster
        await connection.execute(_FIRST_TABLES)


def _of_another_program(address: PostgresAddress) -> StoreRefused:
    return StoreRefused(f"{address} has a table `sessions` of another program; give sessiond a database of its own")


async def read_version(connection: Connection, address: PostgresAddress) -> int:
    """Return the schema version; 0 if there is none. Raise `StoreRefused` for another program's database."""
    version: int = await connection.fetchval("SELECT version FROM sessiond_schema WHERE log = 0") or 0
    if version == 0 and await connection.fetchval("SELECT to_regclass('sessions')") is not None:
        raise _of_another_program(address)
    return version


async def migrate(connection: Connection, version: int) -> None:
    """Apply the migrations after `version`."""
    steps = load_migrations("sessiond.store.postgres")
    for step in steps[version:]:
        await connection.execute(step)
    if version < len(steps):
        await set_version(connection, len(steps))


async def set_version(connection: Connection, version: int) -> None:
    """Record the schema version."""
    await connection.execute(
        "INSERT INTO sessiond_schema (log, version) VALUES (0, $1) ON CONFLICT (log) DO UPDATE SET version = $1",
        version,
    )


async def _prepare(
    connection: Connection,
    address: PostgresAddress,
    replica: bytes,
    name: str,
    load_keys: Callable[[bool], StoreKeys] | None,
    entropy: Entropy,
) -> Opened:
    opened, take = Opened(), own("take_head")
    head = await connection.fetchrow(take.sql)
    keys = None if load_keys is None else load_keys(head is None)
    others = await connection.fetch(own("live_replicas").sql)
    opened.keys_before = [key_from_row(row) for row in await connection.fetch(STATEMENTS["read_keys"].sql)]
    fingerprints = [] if keys is None else list(keys.known(opened.keys_before))
    if keys is not None and keys.fingerprints:
        await _check_keys(connection, address, fingerprints, others, keys)
    if head is None:
        create = own("create_head")
        await connection.execute(create.sql, *create.bind({"authority_id": entropy(16)}))
        (head,) = await connection.fetch(take.sql)
    if keys is not None and keys.fingerprints:
        await _record_keys(connection, opened.keys_before, fingerprints, keys.now, others)
    opened.cipher, opened.fingerprints = None if keys is None else keys.cipher, fingerprints
    opened.authority_id = head["authority_id"]
    if not others or head["lineage"] != head["lineage_now"]:
        await begin_incarnation(connection, Revision(head["revision"]), Revision(head["horizon"]), entropy)
    opened.incarnations = await incarnations_of(connection)
    for forgetting in ("forget_dead_replicas", "forget_dead_marks"):
        await connection.execute(own(forgetting).sql)
    register = own("register_replica")
    values = {"replica": replica, "name": name, "milliseconds": LEASE, "fingerprints": fingerprints}
    await connection.execute(register.sql, *register.bind(values))
    return opened


async def _check_keys(
    connection: Connection,
    address: PostgresAddress,
    fingerprints: Sequence[bytes],
    others: Sequence[asyncpg.Record],
    keys: StoreKeys,
) -> None:
    """Raise `StoreRefused` unless every replica can open the tokens of every other one."""
    name = keys.name or "the key file"
    row = await connection.fetchrow(STATEMENTS["read_sealing_key"].sql)
    if row is not None and row["fingerprint"] not in fingerprints:
        raise StoreRefused(
            f"{name} does not contain the key that {address} was last written with "
            f"({row['fingerprint'].hex()[:8]}): it is a different file or an older copy. Copy the key file of a "
            "running replica, or use an empty database to start over"
        )
    for other in others:
        if other["fingerprints"] and other["fingerprints"][0] not in fingerprints:
            raise StoreRefused(
                f"{name} does not contain the key ({other['fingerprints'][0].hex()[:8]}) of the tokens that "
                f"the replica {other['name']}, which is running, issues: they would be FORGED here. "
                "Keep that key as the second line until no replica has it as its first"
            )
        if other["fingerprints"] and fingerprints[0] not in other["fingerprints"] and not keys.waits:
            raise StoreRefused(
                f"the first key of the key file ({fingerprints[0].hex()[:8]}) is unknown to the replica "
                f"{other['name']}, which is running: this replica's tokens would be FORGED there. Add the key "
                "to every replica as its second line first, and move it to the first line afterwards"
            )


async def _record_keys(
    connection: Connection,
    recorded: Sequence[SealingKey],
    fingerprints: Sequence[bytes],
    now: Instant,
    others: Sequence[asyncpg.Record],
) -> None:
    may_promote = all(fingerprints[0] in other["fingerprints"] for other in others if other["fingerprints"])
    keys = reconciled(recorded, fingerprints, now, alone=not others, may_promote=may_promote)
    if keys == recorded:
        return
    await connection.execute(STATEMENTS["delete_keys"].sql)
    put = STATEMENTS["put_key"]
    for number, key in enumerate(keys):
        await connection.execute(put.sql, *put.bind(key_row(number, key)))


async def begin_incarnation(
    connection: Connection, head: Revision, horizon: Revision, entropy: Entropy, *, set_back: bool = False
) -> None:
    """Begin a new incarnation of the log after `head`. The connection must hold the head.

    `set_back`: the log had a later revision before. Without it the server's lineage tells.
    """
    read, begin = STATEMENTS["read_incarnations"], STATEMENTS["begin_incarnation"]
    number = max((row["number"] for row in await connection.fetch(read.sql)), default=0) + 1
    values = {"number": number, "incarnation": entropy(INCARNATION_BYTES), "first_revision": head + 1}
    await connection.execute(begin.sql, *begin.bind(values))
    change, delete = own("change_incarnation"), STATEMENTS["delete_incarnations"]
    await connection.execute(change.sql, *change.bind({"number": number, "set_back": set_back, "milliseconds": LEASE}))
    await connection.execute(delete.sql, *delete.bind({"horizon": horizon}))


async def incarnations_of(connection: Connection) -> list[Incarnation]:
    """Return the incarnations of the log, oldest first."""
    rows = await connection.fetch(STATEMENTS["read_incarnations"].sql)
    return [Incarnation(row["incarnation"], Revision(row["first_revision"])) for row in rows]
