"""The Postgres store: replicas write one after another, in transactions that take the log's head first."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import asyncpg

from sessiond.config.store_address import PostgresAddress
from sessiond.domain.errors import BackupRefused
from sessiond.domain.key_ring import SealingKey
from sessiond.domain.position import Incarnation
from sessiond.domain.values import Entropy, Revision
from sessiond.store.answers import AnswerBudget
from sessiond.store.contract import Changes, Decision, Head, Snapshot, StoreFailed, StoreRefused, Transaction
from sessiond.store.postgres.announcements import Announcements
from sessiond.store.postgres.connections import MAX_READERS, Connections
from sessiond.store.postgres.errors import DATABASE_ERRORS, ValueRejected, described
from sessiond.store.postgres.known_log import KnownLog
from sessiond.store.postgres.opening import open_database
from sessiond.store.postgres.statements import STATEMENTS, own
from sessiond.store.postgres.writer import Writer
from sessiond.store.reads import StoreReads
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.shared import LEASE, ReplicaLease

__all__ = ["MOST_CONNECTIONS", "PostgresStore"]

T = TypeVar("T")
_REPLICA_BYTES = 16
_MEASURE_EVERY = 60
"""Rounds of the sweeper between two measurements of the kept answers."""
_LOG_READERS = 4
MOST_CONNECTIONS = MAX_READERS + _LOG_READERS + 2
"""What one replica may have open: for reads, for the log, for its writer, and to hear of announcements."""
_LOG_STATEMENTS = ("read_events", "read_incarnations", "read_keys")
_DEFAULT_ANSWER_BYTES = 256_000_000


class PostgresStore(StoreReads):
    """A `Store` in a Postgres database. Create one with `open`."""

    authority_id: bytes
    incarnations: Sequence[Incarnation]
    keys_before: Sequence[SealingKey] = ()
    """The key ring as it was recorded before this replica opened the store."""
    _walked_application = "application"

    def __init__(self, address: PostgresAddress, entropy: Entropy, max_answer_bytes: int, name: str) -> None:
        super().__init__()
        self.replica = entropy(_REPLICA_BYTES)
        self._address = address
        self._name = name
        self._entropy = entropy
        self._connections = Connections(address)
        # Leases and the log do not queue behind reads of sessions: without a lease every validation is such a read, and
        # a replica that cannot renew its lease because of them would never recover.
        self._log_connections = Connections(address, _LOG_READERS)
        self._answers = AnswerBudget(max_answer_bytes)
        self._log = KnownLog(self._set_incarnations)
        self._writer = Writer(self._connections, address, self.replica, entropy, self._answers, self._log)
        self._announcements = Announcements(self._connections)
        self._keeps_lease = False
        self._failed: StoreFailed | None = None
        self._fingerprints: Sequence[bytes] = ()
        self._tidied = 0

    @classmethod
    async def open(
        cls,
        address: PostgresAddress,
        load_keys: Callable[[bool], StoreKeys] | None = None,
        entropy: Entropy = os.urandom,
        max_answer_bytes: int = _DEFAULT_ANSWER_BYTES,
        name: str = "",
    ) -> PostgresStore:
        """Open the database, or create its tables. Raise `StoreRefused`, with the remedy, without changing any data.

        `load_keys` is called as by `SqliteStore.open`. `name` is shown to operators of other replicas.
        """
        store = cls(address, entropy, max_answer_bytes, name or f"process {os.getpid()}")
        try:
            opened = await open_database(store._connections, address, store.replica, store._name, load_keys, entropy)
            store.authority_id, store.incarnations = opened.authority_id, opened.incarnations
            store._cipher, store._fingerprints = opened.cipher, opened.fingerprints
            store.keys_before = opened.keys_before
            store._answers.load((await store._query("measure_answers", {}))[0])
        except DATABASE_ERRORS as error:
            await store._connections.close()
            remedy = "is it running, and is the address right?"
            if "startup parameter" in str(error):
                remedy = "if a PgBouncer is in between, add ?pgbouncer=true to the address"
            raise StoreRefused(f"cannot use {address}: {described(error)}; {remedy}") from error
        return store

    async def close(self) -> None:
        """Close all connections. The replica's lease ends with it, unless `keep_lease` was called."""
        await self._announcements.stop()
        await self._writer.close(*(() if self._keeps_lease else ("forget_replica",)), "delete_mark")
        await self._connections.close()
        await self._log_connections.close()

    def keep_lease(self) -> None:
        """See `SharedStore`."""
        self._keeps_lease = True

    # Reads

    async def head(self) -> Head:
        """See `Store`. Notices a new incarnation of the log, and begins one if the database was set back."""
        newest = self._log.newest
        (row,) = await self._read(own("see_head").sql, (), self._log_connections)
        if self._log.is_set_back(row, newest):
            await self.write(_decide_nothing)  # every write looks for that, while nobody else can write
            (row,) = await self._read(own("see_head").sql, (), self._log_connections)
        if not self._log.is_current(row):
            runs = await self._query("read_incarnations", {})
            self._log.enter(row, [Incarnation(run["incarnation"], Revision(run["first_revision"])) for run in runs])
        self._log.saw(row)
        return Head(Revision(row["revision"]), Revision(row["horizon"]))

    async def size(self) -> int:
        """See `Store`."""
        (row,) = await self._read(own("measure_database").sql, (), self._connections)
        return int(row["bytes"])

    async def snapshot(self) -> Snapshot:
        """See `Store`. Always refused."""
        raise BackupRefused("the store is in Postgres; back it up with pg_dump or pg_basebackup, and the key file too")

    async def tidy(self) -> None:
        """See `Store`. Postgres reuses the space by itself; this measures now and then what the kept answers take."""
        self._tidied += 1
        if self._tidied % _MEASURE_EVERY == 0:
            self._answers.load((await self._query("measure_answers", {}))[0])

    async def _query(self, name: str, values: Mapping[str, Any], **texts: str) -> Sequence[asyncpg.Record]:
        statement = STATEMENTS[name].fill(**texts) if texts else STATEMENTS[name]
        connections = self._log_connections if name in _LOG_STATEMENTS else self._connections
        return await self._read(statement.sql, statement.bind(values), connections)

    async def _by_keys(self, name: str, keys: Sequence[bytes]) -> Sequence[asyncpg.Record]:
        rows: list[asyncpg.Record] = []
        for statement, parameters in STATEMENTS[name].among(keys):
            rows += await self._read(statement.sql, parameters, self._connections)
        return rows

    async def _read(self, sql: str, parameters: Sequence[Any], connections: Connections) -> Sequence[asyncpg.Record]:
        self._check()
        try:
            return await connections.rows(sql, parameters)
        except DATABASE_ERRORS as error:
            raise self._failure(error) from None  # the error itself may show a value, in a traceback too

    # Replicas

    async def renew(self, acknowledged: Revision, policies: str) -> None:
        """See `SharedStore`."""
        values = {
            "replica": self.replica,
            "name": self._name,
            "milliseconds": LEASE,
            "acknowledged": acknowledged,
            "fingerprints": self._fingerprints,
            "policies": policies,
        }
        await self._change("renew_lease", values)

    async def acknowledge(self, revision: Revision) -> None:
        """See `SharedStore`."""
        await self._change("acknowledge", {"replica": self.replica, "acknowledged": revision}, durable=False)

    def hold_keys(self, fingerprints: Sequence[bytes]) -> None:
        """See `SharedStore`."""
        self._fingerprints = list(fingerprints)

    async def leases(self) -> Sequence[ReplicaLease]:
        """See `SharedStore`."""
        statement = own("read_leases")
        rows = await self._read(statement.sql, statement.bind({"milliseconds": LEASE}), self._log_connections)
        return [
            ReplicaLease(
                row["replica"],
                row["name"],
                row["version"],
                Revision(row["acknowledged"]),
                row["policies"],
                row["fingerprints"],
            )
            for row in rows
        ]

    def announce(self) -> None:
        """See `SharedStore`."""
        self._announcements.announce()

    def on_announcement(self, hint: Callable[[], None]) -> None:
        """See `SharedStore`."""
        self._announcements.start(hint)

    async def _change(self, name: str, values: Mapping[str, Any], *, durable: bool = True) -> None:
        self._check()
        statement = own(name)
        try:
            await self._log_connections.change(statement.sql, statement.bind(values), durable=durable)
        except DATABASE_ERRORS as error:
            raise self._failure(error) from None  # the error itself may show a value, in a traceback too

    # Writes

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]], *, quiet: bool = False) -> T:
        """See `Store`. Runs `decide` again after a conflict or a lost connection, for a few seconds."""
        self._check()
        try:
            return await self._writer.write(decide, self._cipher, quiet=quiet)
        except DATABASE_ERRORS as error:
            raise self._failure(error) from None  # the error itself may show a value, in a traceback too

    def _set_incarnations(self, incarnations: Sequence[Incarnation]) -> None:
        self.incarnations = incarnations

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _failure(self, error: BaseException) -> Exception:
        if isinstance(error, asyncpg.DataError):
            return ValueRejected(f"the store {self._address} does not take a value: {described(error)}")
        self._failed = StoreFailed(f"the store {self._address} failed: {described(error)}")
        return self._failed


async def _decide_nothing(_: Transaction) -> Decision[None]:
    return Decision(Changes(), None)
