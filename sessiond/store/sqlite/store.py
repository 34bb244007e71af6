"""The SQLite store: embedded, owned by one process, durable at every commit.

One connection does everything. It holds the file exclusively, which tells a second process at once and takes away
the condition of the WAL-reset fault of SQLite before 3.51.3 (two connections on one file).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import aiosqlite

from sessiond.crypto.session_data import DataCipher
from sessiond.domain.event import Event
from sessiond.domain.session import Session, SessionState
from sessiond.domain.values import CauseKind, Instant, Revision, SessionId
from sessiond.store.contract import Changes, Head, KeptAnswer, SessionQuery, StoreFailed, StoreRefused, Transaction
from sessiond.store.rows import event_from_row, event_row, session_from_row, session_row
from sessiond.store.sealed_data import StoredData, value_row
from sessiond.store.sqlite.file_lock import FileLock
from sessiond.store.statements import Statement, load_statements

__all__ = ["SqliteStore"]

_APPLICATION_ID = 0x73657373  # "sess": tells our files from other SQLite databases
_MAGIC = b"SQLite format 3\0"
_STATEMENTS = load_statements()
_IDS_A_STATEMENT = 500
_ROWS_A_STATEMENT = 64
_MAX_REVISION = 2**63 - 1
_EXPIRED_KINDS = ", ".join(
    f"'{kind.value}'" for kind in (CauseKind.IDLE_TIMEOUT, CauseKind.ABSOLUTE_TIMEOUT, CauseKind.LOGIN_TIMEOUT)
)
_STATE_CONDITIONS = {
    SessionState.ACTIVE: "ended_at IS NULL AND (due_at IS NULL OR due_at > :due_after)",
    SessionState.EXPIRED: f"((ended_at IS NULL AND due_at <= :now) OR end_kind IN ({_EXPIRED_KINDS}))",
    SessionState.REVOKED: f"ended_at IS NOT NULL AND end_kind NOT IN ({_EXPIRED_KINDS})",
}


@lru_cache(maxsize=64)
def _inserts(name: str, count: int) -> str:
    return _STATEMENTS[name].times(count)


def migrations() -> list[str]:
    """The numbered migrations, in order: the first takes schema version 0 to 1, and so on."""
    folder = files("sessiond.store.sqlite").joinpath("migrations")
    return [file.read_text(encoding="utf-8") for file in sorted(folder.iterdir(), key=lambda file: file.name)]


class SqliteStore:
    """A `Store` in one SQLite file. Made by `open`."""

    authority_id: bytes

    def __init__(self, path: Path, db: aiosqlite.Connection, lock: FileLock) -> None:
        self._path = path
        self._db = db
        self._file_lock = lock
        self._cipher: DataCipher | None = None
        # One connection: a read between the statements of a transaction would see what is not committed.
        self._turn = asyncio.Lock()
        self._head = Head(Revision(0), Revision(0))
        self._failed: StoreFailed | None = None

    @classmethod
    async def open(cls, path: Path, make_cipher: Callable[[], DataCipher] | None = None) -> SqliteStore:
        """Open or make the database. Raises `StoreRefused` with what to do, and then has changed nothing.

        `make_cipher` is called once the database is known to be ours, and before anything in it is changed: it may make
        a key file beside it, and what it raises comes through. Without it sealed data cannot be read.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreRefused(f"cannot make the data folder {path.parent}: {error.strerror}") from error
        lock = FileLock(path)
        lock.acquire()
        try:
            # Ours alone from the start: SQLite gives its log files the same mode.
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            beginning = os.read(handle, len(_MAGIC))
            os.close(handle)
        except OSError as error:
            lock.release()
            raise StoreRefused(f"cannot open {path} for writing: {error.strerror}") from error
        if beginning not in (b"", _MAGIC):
            lock.release()  # SQLite itself would take a file of a few bytes for an empty one, and write over it
            raise StoreRefused(f"cannot use {path}: it is not a database; name another file")
        try:
            db = await aiosqlite.connect(path, isolation_level=None, cached_statements=256)
        except sqlite3.Error as error:
            lock.release()
            raise StoreRefused(f"cannot open {path}: {error}; is the folder writable?") from error
        store = cls(path, db, lock)
        try:
            await store._prepare(make_cipher)
        except sqlite3.Error as error:
            await store.close()
            raise StoreRefused(f"cannot use {path}: {error}") from error
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Release the file."""
        try:
            await self._db.close()
        except sqlite3.Error:
            # Closing checkpoints the log; on a broken disk that fails too, and nothing acknowledged depends on it.
            pass
        finally:
            self._file_lock.release()

    async def _prepare(self, make_cipher: Callable[[], DataCipher] | None) -> None:
        self._db.row_factory = sqlite3.Row
        await self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        application_id = (await self._all("PRAGMA application_id"))[0][0]
        version = (await self._all("PRAGMA user_version"))[0][0]
        foreign = application_id or version or await self._all("SELECT 1 FROM sqlite_schema LIMIT 1")
        if application_id != _APPLICATION_ID and foreign:
            raise StoreRefused(f"{self._path} is a SQLite database of another program; name another file")
        steps = migrations()
        if version > len(steps):
            raise StoreRefused(
                f"{self._path} has schema version {version}, this sessiond knows versions up to {len(steps)}: "
                "run the newer sessiond, or restore a backup from before the upgrade"
            )
        if make_cipher is not None:
            self._cipher = make_cipher()
        if self._cipher is not None and self._cipher.encrypts:
            # Plain values from before are overwritten with zeros when they are replaced or dropped.
            await self._db.execute("PRAGMA secure_delete = ON")
        await self._db.execute("PRAGMA journal_mode = WAL")
        await self._db.execute("PRAGMA synchronous = FULL")
        await self._db.execute("PRAGMA cache_size = -65536")
        # Four times SQLite's own: a page that many commits write is carried over to the file once for all of them.
        await self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        await self._db.execute("PRAGMA trusted_schema = OFF")
        for number, step in enumerate(steps[version:], version + 1):
            await self._db.executescript(
                f"BEGIN IMMEDIATE; {step}\n"
                f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
            )
        # A write takes the exclusive lock now rather than at the first change.
        await self._db.execute("BEGIN EXCLUSIVE")
        await self._db.execute("COMMIT")
        row = (await self._all(_STATEMENTS["read_head"].sql))[0]
        self.authority_id = row["authority_id"]
        self._head = Head(Revision(row["revision"]), Revision(row["horizon"]))

    # Reads

    async def head(self) -> Head:
        """See `Store`."""
        self._check()
        return self._head

    async def session(self, session_id: SessionId) -> Session | None:
        """See `Store`."""
        rows = await self._read(_STATEMENTS["get_sessions"].fill(ids="?"), (bytes(session_id),))
        return session_from_row(rows[0]) if rows else None

    async def sessions(self, query: SessionQuery) -> list[Session]:
        """See `Store`."""
        conditions = [_STATE_CONDITIONS[query.state]]
        if query.subject is not None:
            conditions.append("subject = :subject")
        if query.ip_range is not None:
            conditions.append("ip_key BETWEEN :ip_first AND :ip_last")
        if query.created_from is not None:
            conditions.append("created_at >= :created_from")
        if query.created_until is not None:
            conditions.append("created_at < :created_until")
        if query.before is not None:
            conditions.append("session_id < :before")
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
            "limit": query.limit,
        }
        return [session_from_row(row) for row in await self._ask("list_sessions", values, " AND ".join(conditions))]

    async def data(self, session_id: SessionId) -> dict[str, bytes]:
        """See `Store`. Raises `DataUnreadable`."""
        rows = await self._read(_STATEMENTS["get_data"].fill(ids="?"), (bytes(session_id),))
        return dict(StoredData(self._cipher, session_id, rows))

    async def due(self, now: Instant, limit: int) -> list[SessionId]:
        """See `Store`."""
        rows = await self._ask("due_sessions", {"now": now, "limit": limit})
        return [SessionId(row["session_id"]) for row in rows]

    async def prunable(self, now: Instant, limit: int) -> list[SessionId]:
        """See `Store`."""
        rows = await self._ask("prunable_sessions", {"now": now, "limit": limit})
        return [SessionId(row["session_id"]) for row in rows]

    async def horizon_for(self, before: Instant, limit: int) -> Revision | None:
        """See `Store`."""
        horizon = None
        for row in await self._ask("oldest_events", {"limit": limit}):
            if row["at"] >= before:
                break
            horizon = Revision(row["revision"])
        return horizon

    async def events(self, after: Revision, limit: int) -> list[Event]:
        """See `Store`."""
        return [event_from_row(row) for row in await self._ask("read_events", {"after": after, "limit": limit})]

    async def activity(self, application: str, subject: str, before: Revision | None, limit: int) -> list[Event]:
        """See `Store`."""
        values = {
            "application": application,
            "subject": subject,
            "before": _MAX_REVISION if before is None else before,
            "limit": limit,
        }
        return [event_from_row(row) for row in await self._ask("read_activity", values)]

    # Writes

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """See `Store`."""
        async with self._turn:
            self._check()
            work = _SqliteTransaction(self, self._head)
            try:
                yield work
                if work.writes:
                    # One hop to the connection's thread for all of it: each hop costs as much as a dozen rows.
                    # aiosqlite has no public call for that; its own methods are made of this one.
                    await self._db._execute(self._carry_out, work.writes)  # type: ignore[no-untyped-call]
            except sqlite3.Error as error:
                # After a failed commit SQLite may succeed with later ones: only stopping keeps what was promised.
                self._failed = StoreFailed(f"the store {self._path} failed: {error}")
                raise self._failed from error
            self._head = work.next_head

    # The engine

    def _carry_out(self, writes: Sequence[tuple[str, list[tuple[Any, ...]]]]) -> None:
        connection = self._db._conn
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in writes:
                connection.executemany(sql, rows)
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled back by itself, and its error is the one to tell
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    async def _all(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
        return list(await self._db.execute_fetchall(sql, parameters))

    async def _read(self, statement: Statement, parameters: tuple[Any, ...]) -> list[sqlite3.Row]:
        async with self._turn:
            self._check()
            try:
                return await self._all(statement.sql, parameters)
            except sqlite3.Error as error:
                self._failed = StoreFailed(f"the store {self._path} failed: {error}")
                raise self._failed from error

    async def _ask(self, name: str, values: Mapping[str, Any], conditions: str = "") -> list[sqlite3.Row]:
        statement = _STATEMENTS[name]
        if conditions:
            statement = statement.fill(conditions=conditions)
        return await self._read(statement, statement.bind(values))


class _SqliteTransaction:
    """See `Transaction`.

    The store's turn and the exclusive file keep every other writer out from the first read on, so SQLite's own
    transaction is begun only when everything to be written is known.
    """

    def __init__(self, store: SqliteStore, head: Head) -> None:
        self._store = store
        self.head = head
        self.next_head = head
        self.writes: list[tuple[str, list[tuple[Any, ...]]]] = []

    async def sessions(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Session]:
        """See `Transaction`."""
        rows = await self._by_ids("get_sessions", ids)
        return {session.id: session for session in map(session_from_row, rows)}

    async def data(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Mapping[str, bytes]]:
        """See `Transaction`. Taking a value out of the answer raises `DataUnreadable`."""
        found: dict[SessionId, list[sqlite3.Row]] = {}
        for row in await self._by_ids("get_data", ids):
            found.setdefault(SessionId(row["session_id"]), []).append(row)
        return {session_id: StoredData(self._store._cipher, session_id, rows) for session_id, rows in found.items()}

    async def live_sessions(self, subjects: Sequence[tuple[str, str]]) -> Sequence[Session]:
        """See `Transaction`."""
        statement = _STATEMENTS["live_sessions"]
        found: list[Session] = []
        for application, subject in subjects:
            bound = statement.bind({"application": application, "subject": subject})
            found += map(session_from_row, await self._store._all(statement.sql, bound))
        return found

    async def answers(self, keys: Sequence[bytes]) -> Mapping[bytes, KeptAnswer]:
        """See `Transaction`."""
        return {
            row["answer_key"]: KeptAnswer(row["answer_key"], row["parameters"], row["sealed"], row["expires_at"])
            for row in await self._by_ids("get_answers", keys)
        }

    async def write(self, changes: Changes) -> None:
        """See `Transaction`."""
        self._insert("put_session", (session_row(s, changes.retention.get(s.id)) for s in changes.sessions.values()))
        self._many(
            "touch_session",
            (
                {"session_id": bytes(session_id), "at": at, "idle_deadline": deadline}
                for session_id, (at, deadline) in changes.activity.items()
            ),
        )
        cipher = self._store._cipher
        cells = [(i, key, value) for i, keys in changes.data.items() for key, value in keys.items()]
        self._many("set_data", (value_row(cipher, i, k, v) for i, k, v in cells if v is not None))
        self._many("delete_data", ({"session_id": bytes(i), "key": k} for i, k, v in cells if v is None))
        ended = [s.id for s in changes.sessions.values() if s.ending is not None]
        self._many("drop_data", ({"session_id": bytes(i)} for i in ended))
        self._many(
            "keep_answer",
            (
                {"key": a.key, "parameters": a.parameters, "sealed": a.sealed, "expires": a.expires}
                for a in changes.answers
            ),
        )
        if changes.forget is not None:
            self._many("forget_answers", [{"now": changes.forget}])
        self._many("prune_session", ({"session_id": bytes(i)} for i in changes.pruned))
        self._insert("append_event", map(event_row, changes.events))
        revision, horizon = self.next_head.revision, self.next_head.horizon
        if changes.events:
            revision = changes.events[-1].revision
            self._many("move_head", [{"revision": revision}])
        if changes.horizon is not None and changes.horizon > horizon:
            horizon = changes.horizon
            self._many("move_horizon", [{"horizon": horizon}])
            self._many("drop_events", [{"horizon": horizon}])
        self.next_head = Head(revision, horizon)

    async def _by_ids(self, name: str, ids: Sequence[bytes]) -> list[sqlite3.Row]:
        rows: list[sqlite3.Row] = []
        for start in range(0, len(ids), _IDS_A_STATEMENT):
            some = tuple(bytes(session_id) for session_id in ids[start : start + _IDS_A_STATEMENT])
            statement = _STATEMENTS[name].fill(ids=", ".join("?" * len(some)))
            rows += await self._store._all(statement.sql, some)
        return rows

    def _many(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        statement = _STATEMENTS[name]
        rows = [statement.bind(row) for row in values]
        if rows:
            self.writes.append((statement.sql, rows))

    def _insert(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows, many with each statement; their columns must stand in the statement's order.

        Python gives up its lock for each statement, not for each row, and takes it back in a race with the loop's
        thread. Powers of two keep the number of different statements, and so of preparations, small.
        """
        rows = [tuple(row.values()) for row in values]
        size = _ROWS_A_STATEMENT
        while rows:
            if len(rows) < size:
                size //= 2
                continue
            flat = tuple(chain.from_iterable(rows[:size]))
            self.writes.append((_inserts(name, size), [flat]))
            rows = rows[size:]
