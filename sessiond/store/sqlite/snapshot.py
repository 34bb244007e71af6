"""A copy of the database file while its authority runs.

In WAL mode commits go to the write-ahead log, and only a checkpoint changes the database file. So the file is a
consistent state of the database as long as there is no checkpoint: it is read while commits go on beside it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from sessiond.domain.errors import Overloaded, Unavailable
from sessiond.store.contract import SnapshotFacts
from sessiond.store.sqlite.files import CHECKPOINT_PAGES

__all__ = ["DatabaseFile", "SqliteSnapshot", "freeze", "thaw"]

_LEAST_LOG = 1_073_741_824
"""The write-ahead log may grow to a gibibyte while the file is read, or to the size of the file if that is more."""


class DatabaseFile:
    """The database file, opened for reading at the first snapshot, and closed only after the database.

    POSIX drops all locks of a process on a file as soon as it closes any handle of it, those of SQLite included.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path.with_name(f"{path.name}-wal")
        self._handle: int | None = None

    def size(self) -> int:
        """Open the file if it is not open, and return its size. Raises `OSError`."""
        if self._handle is None:
            self._handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return os.fstat(self._handle).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return a part of the file. Raises `OSError`."""
        if self._handle is None:
            raise OSError(errno.EBADF, "it is closed")
        return os.pread(self._handle, length, offset)

    def close(self) -> None:
        """Close the file. The database must be closed."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class SqliteSnapshot:
    """See `Snapshot`. The store makes one after a checkpoint, and does no other until it is closed."""

    def __init__(self, facts: SnapshotFacts, file: DatabaseFile, end: Callable[[], Awaitable[None]]) -> None:
        self.facts = facts
        self._file = file
        self._end = end
        self._digest = sha256()
        self._offset = 0

    @property
    def sha256(self) -> bytes:
        """See `Snapshot`."""
        return self._digest.digest()

    async def read(self, length: int) -> bytes:
        """See `Snapshot`."""
        if _size_of(self._file.log) > max(_LEAST_LOG, self.facts.size):
            raise Overloaded(
                "the backup was not read fast enough, and the write-ahead log has grown too large; start it again"
            )
        try:
            return await asyncio.to_thread(self._next, length)
        except OSError as error:
            raise Unavailable(f"the database cannot be read: {error.strerror}") from error

    async def close(self) -> None:
        """See `Snapshot`."""
        await self._end()

    def _next(self, length: int) -> bytes:
        part = self._file.read(self._offset, min(length, self.facts.size - self._offset))
        if not part and self._offset < self.facts.size:
            raise OSError(errno.EIO, "it is shorter than it was")
        self._offset += len(part)
        self._digest.update(part)
        return part


def freeze(connection: sqlite3.Connection) -> None:
    """Write the whole write-ahead log into the database file, and do no further checkpoints."""
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the write-ahead log cannot be written into the database")


def thaw(connection: sqlite3.Connection) -> None:
    """Do checkpoints again: the next commit does the first one."""
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}").fetchall()


def _size_of(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0
