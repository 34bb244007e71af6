"""A database file as one end of a copy. It stays locked until the copy ends."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sessiond.config.data_folder import database_in, lock_of
from sessiond.store.contract import StoreRefused
from sessiond.store.copying import Identity, Key, Row, State, Table
from sessiond.store.migrations import UNFINISHED, check_version
from sessiond.store.sqlite.connection import Connection
from sessiond.store.sqlite.file_lock import FileLock
from sessiond.store.sqlite.files import APPLICATION_ID, migrations, open_file, read_version, set_pragmas
from sessiond.store.statements import ParameterStyle
from sessiond.system.ownership import give_to_owner

__all__ = ["SqliteEnd"]

T = TypeVar("T")


class SqliteEnd:
    """See `CopyEnd`. Create one with `open_source` or `open_destination`."""

    def __init__(self, path: Path, db: Connection, lock: FileLock) -> None:
        self.name = str(path)
        self._path = path
        self._db = db
        self._lock = lock
        self._version = 0

    @classmethod
    async def open_source(cls, folder: Path) -> SqliteEnd:
        """Open the database of a data folder to copy from. Raise `StoreRefused`, which `StoreHeld` is."""
        path = database_in(folder)
        if not path.exists():
            raise StoreRefused(f"{folder} has no database ({path.name}); is it the server's data folder?")
        end = await cls._open(folder)
        try:
            end._check_source()
        except BaseException:
            await end.close()
            raise
        return end

    @classmethod
    async def open_destination(cls, folder: Path) -> SqliteEnd:
        """Open the database of a data folder to copy to, or create it. Raise `StoreRefused`."""
        return await cls._open(folder)

    @classmethod
    async def _open(cls, folder: Path) -> SqliteEnd:
        path = database_in(folder)
        db, lock = await open_file(path)
        end = cls(path, db, lock)
        try:
            # Before anything is written: SQLite creates its log files with the owner of the database.
            for file in (path, lock_of(path)):
                give_to_owner(file)
            end._version = await read_version(db, path)
        except sqlite3.Error as error:
            await end.close()
            raise end._refused(error) from error
        except BaseException:
            await end.close()
            raise
        return end

    async def close(self) -> None:
        """Close the database and release the lock."""
        try:
            await self._db.close()
        finally:
            self._lock.release()

    # Reading

    async def place(self) -> str:
        """See `CopyEnd`."""
        found = self._path.stat()
        return f"file {found.st_dev}/{found.st_ino}"

    async def identity(self) -> Identity:
        """See `CopyEnd`."""
        return Identity(
            await self._all(_select("log_head", Identity.HEAD_COLUMNS)),
            await self._all(_select("incarnations", Identity.INCARNATION_COLUMNS)),
            await self._all(_select("keys", Identity.KEY_COLUMNS)),
        )

    async def columns(self, table: Table) -> Sequence[str]:
        """See `CopyEnd`."""
        return [name for (name,) in await self._all("SELECT name FROM pragma_table_info(?)", (table.name,))]

    async def count(self, table: Table) -> int:
        """See `CopyEnd`."""
        ((count,),) = await self._all(table.count())
        return int(count)

    async def rows(self, table: Table, columns: Sequence[str], after: Key, limit: int) -> list[Row]:
        """See `CopyEnd`."""
        sql, parameters = table.select(columns, after, limit, ParameterStyle.QUESTION_MARK)
        return list(await self._all(sql, parameters))

    async def last(self, table: Table) -> Key | None:
        """See `CopyEnd`."""
        return next(iter(await self._all(table.select_last())), None)

    # Writing

    async def state(self) -> State:
        """See `CopyEnd`."""
        if self._version == 0:
            return State.EMPTY
        if self._version == UNFINISHED:
            return State.UNFINISHED
        check_version(self._path, self._version, len(migrations()))
        if self._version < len(migrations()):
            raise StoreRefused(f"{self._path} is not empty; choose a data folder without a database")
        return State.COMPLETE

    async def begin(self, identity: Identity) -> None:
        """See `CopyEnd`."""
        await self._guarded(lambda: set_pragmas(self._db, self._version))
        await self._run(lambda raw: _create(raw, identity))
        self._version = UNFINISHED

    async def add(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See `CopyEnd`."""
        await self._run(lambda raw: _in_transaction(raw, lambda: _insert(raw, table.name, columns, rows)))

    async def finish(self) -> None:
        """See `CopyEnd`."""
        await self._run(lambda raw: raw.execute(f"PRAGMA user_version = {len(migrations())}"))

    # The engine

    def _check_source(self) -> None:
        check_version(self._path, self._version, len(migrations()))
        if self._version == 0:
            raise StoreRefused(f"{self._path} is empty; is it the server's data folder?")
        if self._version < len(migrations()):
            raise StoreRefused(
                f"{self._path} has schema version {self._version}, and this sessiond has {len(migrations())}: start "
                "`sessiond serve` on it once, which migrates it, stop it, and copy again"
            )

    async def _all(self, sql: str, parameters: Sequence[object] = ()) -> tuple[Row, ...]:
        rows = await self._guarded(lambda: self._db.all(sql, parameters))
        return tuple([tuple(row) for row in rows])

    async def _run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await self._guarded(lambda: self._db.run(function))

    async def _guarded(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            return await operation()
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def _refused(self, error: sqlite3.Error) -> StoreRefused:
        return StoreRefused(f"cannot use {self._path}: {error}")


def _select(table: str, columns: Sequence[str]) -> str:
    return f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2"  # noqa: S608 - our own names


def _in_transaction(raw: sqlite3.Connection, work: Callable[[], None]) -> None:
    raw.execute("BEGIN IMMEDIATE")
    try:
        work()
    except BaseException:
        if raw.in_transaction:  # SQLite rolls back by itself if the disk is full
            raw.execute("ROLLBACK")
        raise
    raw.execute("COMMIT")


def _insert(raw: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    raw.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)  # noqa: S608 - our own names


def _create(raw: sqlite3.Connection, identity: Identity) -> None:
    """Create the newest schema with the mark of an unfinished copy, and what identifies the authority."""
    # `executescript` commits an open transaction first, so the script has to contain its own.
    try:
        raw.executescript(
            f"BEGIN IMMEDIATE; {''.join(migrations())}\nDELETE FROM log_head;\n"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {UNFINISHED};"
        )
        _insert(raw, "log_head", Identity.HEAD_COLUMNS, identity.heads)
        _insert(raw, "incarnations", Identity.INCARNATION_COLUMNS, identity.incarnations)
        _insert(raw, "keys", Identity.KEY_COLUMNS, identity.keys)
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise
