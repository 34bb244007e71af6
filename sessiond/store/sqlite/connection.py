"""The database connection: aiosqlite, extended to run a whole function on the connection's thread.

aiosqlite runs each statement on a thread of its own, and has no public method that runs a function there. A commit
of many statements would need one thread switch for each, and a switch costs as much as a dozen rows. Only this module
uses private names of aiosqlite. `tests/store/sqlite/test_connection.py` fails if a new release changes them, and
pyproject.toml limits the allowed versions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

__all__ = ["Connection"]

T = TypeVar("T")


class Connection:
    """One connection to a SQLite file, with its own thread. Every method may raise `sqlite3.Error`."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    @classmethod
    async def open(cls, path: Path) -> Connection:
        """Open the file, without Python's implicit transactions. Rows can be read by column name."""
        db = await aiosqlite.connect(path, isolation_level=None, cached_statements=256)
        db.row_factory = sqlite3.Row
        return cls(db)

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Call `function` with the raw connection on the connection's thread, and return its result."""
        raw = self._db._conn
        result: T = await self._db._execute(lambda: function(raw))  # type: ignore[no-untyped-call]
        return result

    async def execute(self, sql: str) -> None:
        """Run one statement that returns no rows."""
        await self._db.execute(sql)

    async def script(self, sql: str) -> None:
        """Run several statements, separated by semicolons."""
        await self._db.executescript(sql)

    async def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Run one statement and return all of its rows."""
        return list(await self._db.execute_fetchall(sql, parameters))

    async def close(self) -> None:
        """Close the file and stop the thread."""
        await self._db.close()
