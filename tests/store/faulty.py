"""Stores with faults: the real store with faults that a test chooses, and one that runs every decision twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from sessiond.domain.values import Instant, SessionId
from sessiond.store.contract import Changes, Decision, Store, StoreFailed, StoreUnavailable, Transaction

__all__ = ["FaultyStore", "RepeatingStore"]

T = TypeVar("T")


class FaultyStore:
    """The real store, with faults.

    may_commit    while it is not set, every write waits before its commit
    at_door       set when a write waits there
    break_commit  the next commits fail, as with a broken disk
    break_once    the next commit fails, as if the store did not respond
    lose_answer   the next commit succeeds, but fails for the caller
    break_write   an exception to raise instead of the next write
    break_due     an exception to raise from every call of `due`; `asked` counts these calls
    groups        the changes of all writes that were committed
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.authority_id = store.authority_id
        self.incarnations = store.incarnations
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.at_door = asyncio.Event()
        self.break_commit = False
        self.break_once = False
        self.lose_answer = False
        self.break_write: Exception | None = None
        self.break_due: Exception | None = None
        self.asked = 0
        self.groups: list[Changes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def due(self, now: Instant, limit: int) -> list[SessionId]:
        """See `Store`."""
        self.asked += 1
        if self.break_due is not None:
            raise self.break_due
        return await self._store.due(now, limit)

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]], *, quiet: bool = False) -> T:
        """Run one write, with the faults that are set."""

        async def watched(transaction: Transaction) -> Decision[T]:
            decision = await decide(transaction)
            if (fault := self.break_write) is not None:
                self.break_write = None
                raise fault
            self.at_door.set()
            await self.may_commit.wait()
            if self.break_commit:
                raise StoreFailed("injected: disk I/O error")
            if self.break_once:
                self.break_once = False
                raise StoreUnavailable("injected: connection refused")
            self.groups.append(decision.changes)
            return decision

        answer = await self._store.write(watched, quiet=quiet)
        if self.lose_answer:
            self.lose_answer = False
            raise StoreUnavailable("injected: connection lost during COMMIT")
        return answer


class _Conflict(Exception):
    """Raised inside a write, so that its decision is discarded."""


async def _nothing() -> None:
    pass


class RepeatingStore:
    """The real store, but every write has a conflict: its first decision is discarded, and it decides again.

    `between` runs between the two decisions, for example another writer's commit, or the passing of time.
    """

    def __init__(self, store: Store, between: Callable[[], Awaitable[None]] = _nothing) -> None:
        self._store = store
        self.between = between
        self.authority_id = store.authority_id
        self.incarnations = store.incarnations
        self.thrown_away = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]], *, quiet: bool = False) -> T:
        """Run one write whose first run is rolled back."""

        async def lost(transaction: Transaction) -> Decision[T]:
            await decide(transaction)
            raise _Conflict

        with suppress(_Conflict):
            await self._store.write(lost, quiet=quiet)
        self.thrown_away += 1
        await self.between()
        return await self._store.write(decide, quiet=quiet)
