"""A store with faults: the real one, slowed or broken at the doors that a test names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sessiond.store.contract import Changes, Store, StoreFailed, Transaction

__all__ = ["FaultyStore"]


class FaultyStore:
    """The real store behind doors.

    `may_commit` holds every transaction at its end until it is set; `at_door` tells that one has come there.
    `break_commit` makes the next commits fail as a broken disk does; `break_write` raises this from the next write.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.authority_id = store.authority_id
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.at_door = asyncio.Event()
        self.break_commit = False
        self.break_write: Exception | None = None
        self.groups: list[Changes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One write transaction, with the faults that are set."""
        async with self._store.transaction() as transaction:
            yield _Watched(transaction, self)
            self.at_door.set()
            await self.may_commit.wait()
            if self.break_commit:
                raise StoreFailed("injected: disk I/O error")


class _Watched:
    def __init__(self, transaction: Transaction, store: FaultyStore) -> None:
        self._transaction = transaction
        self._store = store
        self.head = transaction.head

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    async def write(self, changes: Changes) -> None:
        """Write, and remember what was written."""
        if (fault := self._store.break_write) is not None:
            self._store.break_write = None
            raise fault
        self._store.groups.append(changes)
        await self._transaction.write(changes)
