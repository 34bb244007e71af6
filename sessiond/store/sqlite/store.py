"""The SQLite store: embedded, owned by one process, durable at every commit.

All statements use one connection, which locks the file exclusively. So a second process fails immediately, and the
WAL-reset bug of SQLite before 3.51.3, which needs two connections to one file, cannot occur.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sessiond.domain.errors import BackupRefused
from sessiond.domain.key_ring import SealingKey
from sessiond.domain.position import INCARNATION_BYTES, Incarnation
from sessiond.domain.values import Entropy, Revision
from sessiond.store.answers import AnswerBudget
from sessiond.store.contract import Decision, Head, SnapshotFacts, StoreFailed, StoreRefused, Transaction
from sessiond.store.reads import StoreReads
from sessiond.store.rows import key_from_row
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.sqlite.connection import Connection
from sessiond.store.sqlite.file_lock import FileLock
from sessiond.store.sqlite.files import check_keys, check_ours, migrate, open_file, record_keys, set_pragmas
from sessiond.store.sqlite.snapshot import DatabaseFile, SqliteSnapshot, freeze, thaw
from sessiond.store.sqlite.transaction import SqliteTransaction, SqliteWrites, read_by_keys
from sessiond.store.statements import STATEMENTS, ParameterStyle

__all__ = ["SqliteStore"]

T = TypeVar("T")
_STATEMENTS = STATEMENTS[ParameterStyle.QUESTION_MARK]
DEFAULT_ANSWER_BYTES = 256_000_000
_MAX_FREE_PAGES = 2_000  # 8 MB, kept for reuse
_PAGES_PER_RELEASE = 500


class SqliteStore(StoreReads):
    """A `Store` in one SQLite file. Create one with `open`."""

    _walked_application = "+application"  # an expression has no index

    authority_id: bytes
    incarnations: Sequence[Incarnation]
    keys_before: Sequence[SealingKey] = ()
    """The key ring as it was recorded before the store was opened."""

    def __init__(self, path: Path, db: Connection, lock: FileLock) -> None:
        super().__init__()
        self._path = path
        self._db = db
        self._file_lock = lock
        # On the single connection, a read between a transaction's statements would see uncommitted changes.
        self._connection_lock = asyncio.Lock()
        self._head = Head(Revision(0), Revision(0))
        self._failed: StoreFailed | None = None
        self._answers = AnswerBudget(DEFAULT_ANSWER_BYTES)
        self._file = DatabaseFile(path)
        self._has_snapshot = False

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
            self._file.close()
            self._file_lock.release()

    async def _prepare(self, load_keys: Callable[[bool], StoreKeys] | None, entropy: Entropy) -> None:
        version = await check_ours(self._db, self._path)
        keys = None if load_keys is None else load_keys(version == 0)
        if keys is not None:
            await check_keys(self._db, self._path, version, keys)
            self._cipher = keys.cipher
        await set_pragmas(self._db, version)
        await migrate(self._db, version)
        if keys is not None and keys.fingerprints:
            self.keys_before, _ = await record_keys(self._db, keys)
        row = (await self._db.all(_STATEMENTS["read_head"].sql))[0]
        self.authority_id = row["authority_id"]
        self._answers.load((await self._db.all(_STATEMENTS["measure_answers"].sql))[0])
        self._head = Head(Revision(row["revision"]), Revision(row["horizon"]))
        await self._begin_incarnation(entropy)

    async def _begin_incarnation(self, entropy: Entropy) -> None:
        begin, read = _STATEMENTS["begin_incarnation"], _STATEMENTS["read_incarnations"]
        number = max((row["number"] for row in await self._db.all(read.sql)), default=0) + 1
        incarnation, first = entropy(INCARNATION_BYTES), self._head.revision + 1
        values = {"number": number, "incarnation": incarnation, "first_revision": first}
        await self._db.all(begin.sql, begin.bind(values))
        delete = _STATEMENTS["delete_incarnations"]
        await self._db.all(delete.sql, delete.bind({"horizon": self._head.horizon}))
        rows = await self._db.all(read.sql)
        self.incarnations = [Incarnation(row["incarnation"], Revision(row["first_revision"])) for row in rows]

    async def head(self) -> Head:
        """See `Store`."""
        self._check()
        return self._head

    # Writes

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]], *, quiet: bool = False) -> T:
        """See `Store`. Runs `decide` once: there is no other writer, so there are no conflicts to retry."""
        async with self._connection_lock:
            self._check()
            try:
                decision = await decide(SqliteTransaction(self._db, self._cipher, self._head))
                writes = SqliteWrites(decision.changes, self._cipher, self._head, self._answers)
                if writes:
                    await self._db.run(writes.carry_out)
            except sqlite3.Error as error:
                # After a failed commit SQLite might accept later ones. Only stopping keeps the durability promise.
                raise self._fail(error) from error
            self._head = writes.head
            return decision.answer

    async def size(self) -> int:
        """See `Store`. The database and its write-ahead log."""
        self._check()
        return await asyncio.to_thread(_size_of, self._path, self._path.with_name(f"{self._path.name}-wal"))

    async def snapshot(self) -> SqliteSnapshot:
        """See `Store`."""
        if self._has_snapshot:
            raise BackupRefused("another backup is under way; wait until it has ended")
        self._has_snapshot = True
        try:
            async with self._connection_lock:
                self._check()
                schema_version, size = await self._db.run(self._freeze)
                keys = [key_from_row(row) for row in await self._db.all(_STATEMENTS["read_keys"].sql)]
                facts = SnapshotFacts(size, self._head.revision, schema_version, keys)
        except sqlite3.Error as error:
            raise self._fail(error) from error
        except BaseException:
            await self._thaw()
            raise
        return SqliteSnapshot(facts, self._file, self._thaw)

    async def tidy(self) -> None:
        """See `Store`."""
        async with self._connection_lock:
            self._check()
            try:
                await self._db.run(_release_pages)
            except sqlite3.Error as error:
                raise self._fail(error) from error

    # The engine

    def _freeze(self, connection: sqlite3.Connection) -> tuple[int, int]:
        """Write everything into the database file, and let nothing change it. Return schema version and size."""
        freeze(connection)
        return int(connection.execute("PRAGMA user_version").fetchone()[0]), self._file.size()

    async def _thaw(self) -> None:
        async with self._connection_lock:
            with suppress(sqlite3.Error, ValueError):  # it failed before, or is closed: there is no further commit
                await self._db.run(thaw)
            self._has_snapshot = False

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _fail(self, error: sqlite3.Error) -> StoreFailed:
        self._failed = StoreFailed(f"the store {self._path} failed: {error}")
        return self._failed

    async def _query(self, name: str, values: Mapping[str, Any], **texts: str) -> list[sqlite3.Row]:
        statement = _STATEMENTS[name].fill(**texts) if texts else _STATEMENTS[name]
        return await self._read(lambda: self._db.all(statement.sql, statement.bind(values)))

    async def _by_keys(self, name: str, keys: Sequence[bytes]) -> list[sqlite3.Row]:
        return await self._read(lambda: read_by_keys(self._db, name, keys))

    async def _read(self, read: Callable[[], Awaitable[list[sqlite3.Row]]]) -> list[sqlite3.Row]:
        async with self._connection_lock:
            self._check()
            try:
                return await read()
            except sqlite3.Error as error:
                raise self._fail(error) from error


def _release_pages(connection: sqlite3.Connection) -> None:
    """If there are many free pages, return a limited number of them to the file system."""
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    if free > _MAX_FREE_PAGES:
        connection.execute(f"PRAGMA incremental_vacuum({_PAGES_PER_RELEASE})").fetchall()


def _size_of(*files: Path) -> int:
    size = 0
    for file in files:
        with suppress(FileNotFoundError):  # the log is deleted at times
            size += file.stat().st_size
    return size
