"""The SQLite store: embedded, owned by one process, durable at every commit.

All statements use one connection, which locks the file exclusively. So a second process fails immediately, and the
WAL-reset bug of SQLite before 3.51.3, which needs two connections to one file, cannot occur.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sessiond.crypto.session_data import DataCipher
from sessiond.domain.event import Event
from sessiond.domain.position import INCARNATION_BYTES, Incarnation
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Session, SessionState
from sessiond.domain.values import CauseKind, Entropy, Instant, Revision, SessionId, VersionedData
from sessiond.store.contract import Decision, Head, StoreFailed, StoreRefused, Transaction
from sessiond.store.rows import event_from_row, session_from_row
from sessiond.store.sealed_data import SealedValues, StoreKeys
from sessiond.store.sqlite.answers import AnswerBudget
from sessiond.store.sqlite.connection import Connection
from sessiond.store.sqlite.file_lock import FileLock
from sessiond.store.sqlite.files import check_keys, check_ours, migrate, open_file, record_keys, set_pragmas
from sessiond.store.sqlite.transaction import SqliteTransaction, Writes
from sessiond.store.statements import STATEMENTS

__all__ = ["SqliteStore"]

T = TypeVar("T")
DEFAULT_ANSWER_BYTES = 256_000_000
_MAX_REVISION = 2**63 - 1
_LAST_ID = b"\xff" * 17
_MAX_FREE_PAGES = 2_000  # 8 MB, kept for reuse
_PAGES_PER_RELEASE = 500
_EXPIRED_KINDS = ", ".join(
    f"'{kind.value}'" for kind in (CauseKind.IDLE_TIMEOUT, CauseKind.ABSOLUTE_TIMEOUT, CauseKind.LOGIN_TIMEOUT)
)
_STATE_CONDITIONS = {
    SessionState.ACTIVE: "ended_at IS NULL AND (due_at IS NULL OR due_at > :due_after)",
    SessionState.EXPIRED: f"((ended_at IS NULL AND due_at <= :now) OR end_kind IN ({_EXPIRED_KINDS}))",
    SessionState.REVOKED: f"ended_at IS NOT NULL AND end_kind NOT IN ({_EXPIRED_KINDS})",
}
_LABEL_CONDITION = (
    "session_id IN (SELECT session_id FROM session_labels "
    "WHERE application = :application AND key = :label_key_{letter} AND value = :label_value_{letter}{window})"
)
_LETTERS = "abcdefgh"


class SqliteStore:
    """A `Store` in one SQLite file. Create one with `open`."""

    authority_id: bytes
    incarnations: Sequence[Incarnation]

    def __init__(self, path: Path, db: Connection, lock: FileLock) -> None:
        self._path = path
        self._db = db
        self._file_lock = lock
        self._cipher: DataCipher | None = None
        # On the single connection, a read between a transaction's statements would see uncommitted changes.
        self._connection_lock = asyncio.Lock()
        # Lists run one at a time, so that a write never waits for more than one of them.
        self._list_lock = asyncio.Lock()
        self._head = Head(Revision(0), Revision(0))
        self._failed: StoreFailed | None = None
        self._answers = AnswerBudget(DEFAULT_ANSWER_BYTES)

    @classmethod
    async def open(
        cls,
        path: Path,
        load_keys: Callable[[bool], StoreKeys] | None = None,
        entropy: Entropy = os.urandom,
        max_answer_bytes: int = DEFAULT_ANSWER_BYTES,
    ) -> SqliteStore:
        """Open the database, or create it. Raise `StoreRefused`, with the remedy, without changing any data.

        `load_keys` is called after the database is known to be ours, before anything in it is changed. Its argument is
        whether the database is new; only then may it create a key file. Its exceptions propagate. Keys that do not
        match the database are refused. Without `load_keys`, sealed data cannot be read.
        `max_answer_bytes` limits the size of the kept answers.
        """
        db, lock = await open_file(path)
        store = cls(path, db, lock)
        store._answers = AnswerBudget(max_answer_bytes)
        try:
            await store._prepare(load_keys, entropy)
        except sqlite3.Error as error:
            await store.close()
            raise StoreRefused(f"cannot use {path}: {error}; restore a backup or choose another data folder") from error
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close the database and release the lock."""
        try:
            await self._db.close()
        except sqlite3.Error:
            # Closing runs a checkpoint, which fails on a broken disk. Acknowledged writes do not depend on it.
            pass
        finally:
            self._file_lock.release()

    async def _prepare(self, load_keys: Callable[[bool], StoreKeys] | None, entropy: Entropy) -> None:
        version = await check_ours(self._db, self._path)
        keys = None if load_keys is None else load_keys(version == 0)
        if keys is not None:
            await check_keys(self._db, self._path, version, keys.fingerprints)
            self._cipher = keys.cipher
        await set_pragmas(self._db, version)
        await migrate(self._db, version)
        if keys is not None and keys.fingerprints:
            await record_keys(self._db, keys.fingerprints)
        row = (await self._db.all(STATEMENTS["read_head"].sql))[0]
        self.authority_id = row["authority_id"]
        self._answers.load((await self._db.all(STATEMENTS["measure_answers"].sql))[0])
        self._head = Head(Revision(row["revision"]), Revision(row["horizon"]))
        await self._begin_incarnation(entropy)

    async def _begin_incarnation(self, entropy: Entropy) -> None:
        begin = STATEMENTS["begin_incarnation"]
        values = {"incarnation": entropy(INCARNATION_BYTES), "first_revision": self._head.revision + 1}
        await self._db.all(begin.sql, begin.bind(values))
        delete = STATEMENTS["delete_incarnations"]
        await self._db.all(delete.sql, delete.bind({"horizon": self._head.horizon}))
        rows = await self._db.all(STATEMENTS["read_incarnations"].sql)
        self.incarnations = [Incarnation(row["incarnation"], Revision(row["first_revision"])) for row in rows]

    # Reads

    async def head(self) -> Head:
        """See `Store`."""
        self._check()
        return self._head

    async def session(self, session_id: SessionId) -> Session | None:
        """See `Store`."""
        rows = await self._read(STATEMENTS["get_sessions"].fill(ids="?").sql, (bytes(session_id),))
        return session_from_row(rows[0]) if rows else None

    async def sessions(self, query: SessionQuery) -> list[Session]:
        """See `Store`."""
        conditions = [_STATE_CONDITIONS[query.state]]
        labels: dict[str, str] = {}
        if query.subject is not None:
            conditions.append("subject = :subject")
        if query.ip_range is not None:
            conditions.append("ip_key BETWEEN :ip_first AND :ip_last")
        if query.created_from is not None:
            conditions.append("created_at >= :created_from")
        if query.created_until is not None:
            conditions.append("created_at < :created_until")
        window = []
        if query.before is not None:
            window.append("session_id < :before")
        if query.down_to is not None:
            window.append("session_id >= :down_to")
        conditions += window
        within = "".join(f" AND {bound}" for bound in window)
        for letter, (key, value) in zip(_LETTERS, query.labels, strict=False):
            conditions.append(_LABEL_CONDITION.format(letter=letter, window=within))
            labels |= {f"label_key_{letter}": key, f"label_value_{letter}": value}
        first, last = query.ip_range or ("", "")
        values = {
            "application": query.application,
            "now": query.now,
            "due_after": query.now - query.activity_lag,
            "subject": query.subject,
            "ip_first": first,
            "ip_last": last,
            "created_from": query.created_from,
            "created_until": query.created_until,
            "before": None if query.before is None else bytes(query.before),
            "down_to": None if query.down_to is None else bytes(query.down_to),
            "limit": query.limit,
            **labels,
        }
        walks = query.down_to is not None and query.state is not SessionState.ACTIVE
        async with self._list_lock:
            rows = await self._query("walk_sessions" if walks else "list_sessions", values, " AND ".join(conditions))
        return [session_from_row(row) for row in rows]

    async def walk_end(self, query: SessionQuery, rows: int) -> SessionId | None:
        """See `Store`."""
        name = "walk_end_of_live" if query.state is SessionState.ACTIVE else "walk_end_of_all"
        before = _LAST_ID if query.before is None else bytes(query.before)
        values = {"application": query.application, "before": before, "rows": rows}
        async with self._list_lock:
            found = await self._query(name, values)
        return SessionId(found[0]["session_id"]) if found else None

    async def data(self, session_id: SessionId) -> VersionedData:
        """See `Store`."""
        rows = await self._query("read_data", {"session_id": bytes(session_id)})
        values = SealedValues(self._cipher, session_id, [row for row in rows if row["key"] is not None])
        return VersionedData(values, rows[0]["data_version"] if rows else 0)

    async def due(self, now: Instant, limit: int) -> list[SessionId]:
        """See `Store`."""
        rows = await self._query("due_sessions", {"now": now, "limit": limit})
        return [SessionId(row["session_id"]) for row in rows]

    async def prunable(self, now: Instant, limit: int) -> list[SessionId]:
        """See `Store`."""
        rows = await self._query("prunable_sessions", {"now": now, "limit": limit})
        return [SessionId(row["session_id"]) for row in rows]

    async def horizon_for(self, before: Instant, limit: int) -> Revision | None:
        """See `Store`."""
        horizon = None
        for row in await self._query("oldest_events", {"limit": limit}):
            if row["at"] >= before:
                break
            horizon = Revision(row["revision"])
        return horizon

    async def events(self, after: Revision, limit: int) -> list[Event]:
        """See `Store`."""
        return [event_from_row(row) for row in await self._query("read_events", {"after": after, "limit": limit})]

    async def activity(self, application: str, subject: str, before: Revision | None, limit: int) -> list[Event]:
        """See `Store`."""
        values = {
            "application": application,
            "subject": subject,
            "before": _MAX_REVISION if before is None else before,
            "limit": limit,
        }
        return [event_from_row(row) for row in await self._query("read_activity", values)]

    # Writes

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]]) -> T:
        """See `Store`. Runs `decide` once: there is no other writer, so there are no conflicts to retry."""
        async with self._connection_lock:
            self._check()
            try:
                decision = await decide(SqliteTransaction(self._db, self._cipher, self._head))
                writes = Writes(decision.changes, self._cipher, self._head, self._answers)
                if writes:
                    await self._db.run(writes.carry_out)
            except sqlite3.Error as error:
                # After a failed commit SQLite might accept later ones. Only stopping keeps the durability promise.
                raise self._fail(error) from error
            self._head = writes.head
            return decision.answer

    async def tidy(self) -> None:
        """See `Store`."""
        async with self._connection_lock:
            self._check()
            try:
                await self._db.run(_release_pages)
            except sqlite3.Error as error:
                raise self._fail(error) from error

    # The engine

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _fail(self, error: sqlite3.Error) -> StoreFailed:
        self._failed = StoreFailed(f"the store {self._path} failed: {error}")
        return self._failed

    async def _read(self, sql: str, parameters: tuple[Any, ...]) -> list[sqlite3.Row]:
        async with self._connection_lock:
            self._check()
            try:
                return await self._db.all(sql, parameters)
            except sqlite3.Error as error:
                raise self._fail(error) from error

    async def _query(self, name: str, values: Mapping[str, Any], conditions: str = "") -> list[sqlite3.Row]:
        statement = STATEMENTS[name]
        if conditions:
            statement = statement.fill(conditions=conditions)
        return await self._read(statement.sql, statement.bind(values))


def _release_pages(connection: sqlite3.Connection) -> None:
    """If there are many free pages, return a limited number of them to the file system."""
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    if free > _MAX_FREE_PAGES:
        connection.execute(f"PRAGMA incremental_vacuum({_PAGES_PER_RELEASE})").fetchall()
