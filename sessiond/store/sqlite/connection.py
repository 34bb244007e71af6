"""The connection: aiosqlite, and the one thing it lacks.

aiosqlite runs each statement on its thread and has no public call that runs a function there. A commit of many
statements would cost a hop for each of them, and each hop costs as much as a dozen rows. This module is the only one
that uses aiosqlite's private names; `tests/store/sqlite/test_connection.py` fails if a new release changes them, and
pyproject.toml pins the range.
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
    """One connection to a SQLite file, with a thread of its own. Raises `sqlite3.Error`."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db

    @classmethod
    async def open(cls, path: Path) -> Connection:
        """Open the file, without Python's implicit transactions; rows can be read by column name."""
        db = await aiosqlite.connect(path, isolation_level=None, cached_statements=256)
        db.row_factory = sqlite3.Row
        return cls(db)

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function with the connection, on the connection's thread."""
        raw = self._db._conn
        result: T = await self._db._execute(lambda: function(raw))  # type: ignore[no-untyped-call]
        return result

    async def execute(self, sql: str) -> None:
        """Run one statement that answers nothing."""
        await self._db.execute(sql)

    async def script(self, sql: str) -> None:
        """Run several statements."""
        await self._db.executescript(sql)

    async def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Every row of a statement's answer."""
        return list(await self._db.execute_fetchall(sql, parameters))

    async def close(self) -> None:
        """Close the file and end the thread."""
        await self._db.close()
