"""The negative controls: each takes one protection out of the server, in the process that calls it.

A checker that has never reported anything proves nothing. Each fault here is one that the checker must report.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sessiond.cache.sessions import SessionCache
from sessiond.domain.access import CallerRecord
from sessiond.domain.key_ring import KeyHolder, SealingKey
from sessiond.domain.values import SessionId
from sessiond.eventlog.journal import Journal
from sessiond.eventlog.work import Needs, Read
from sessiond.sidecar import workers
from sessiond.store.contract import Commit, DataWalk, KeptAnswer, Live, Place, Transaction
from sessiond.store.postgres.store import PostgresStore
from sessiond.store.postgres.transaction import PostgresTransaction
from sessiond.system.clock import since_boot
from sessiond_client.following import Lease
from tests.consistency.broken_near import NEAR_FAULTS, break_for_good

__all__ = ["FAULTS", "WORKER_FAULTS"]

_PAUSE = 0.05
"""Seconds between reading the live sessions and the transaction: what a busy database takes."""


def _keep_outdated() -> None:
    """Keep sessions in the cache that another replica has changed."""
    apply = SessionCache.apply

    def changed(self: SessionCache, commit: Commit) -> None:
        apply(self, replace(commit, outdated=()))

    SessionCache.apply = changed  # type: ignore[method-assign]


def _ignore_lease() -> None:
    """Answer from the cache without a lease."""
    Lease.is_valid = lambda self, now: True  # type: ignore[method-assign]


def _count_lease_from_receipt() -> None:
    """Count the lease from when its grant arrives, not from before it was asked for."""
    extend = Lease.extend

    def changed(self: Lease, sent: int, duration: int) -> None:
        del sent
        extend(self, since_boot() // 1_000_000, duration)

    Lease.extend = changed  # type: ignore[method-assign]


def _check_limit_outside() -> None:
    """Read a subject's live sessions before the transaction that holds the log's head."""
    commit, read = Journal._commit, Journal._read
    found: dict[Journal, Mapping[tuple[str, str], Live]] = {}

    async def early_commit(self: Journal, group: Sequence[Any]) -> Commit:
        needs = [waiting.unit.needs() for waiting in group]
        subjects = {subject for need in needs for subject in need.subjects}
        found[self] = {}
        if subjects and isinstance(self._store, PostgresStore):
            head = await self._store.head()
            async with self._store._connections._reader(fresh=False) as connection:
                outside = PostgresTransaction(connection, None, head)
                found[self] = await outside.live_sessions(list(subjects), max(need.max_live for need in needs))
            await asyncio.sleep(_PAUSE)
        return await commit(self, group)

    async def early_read(self: Journal, transaction: Transaction, needs: Sequence[Needs]) -> Read:
        return await read(self, _WithEarlyReads(transaction, found[self]), needs)

    Journal._commit = early_commit  # type: ignore[method-assign]
    Journal._read = early_read  # type: ignore[method-assign]


class _WithEarlyReads:
    """A transaction whose live sessions were read before it began."""

    def __init__(self, transaction: Transaction, live: Mapping[tuple[str, str], Live]) -> None:
        self._transaction = transaction
        self._live = live
        self.head = transaction.head

    async def sessions(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Any]:
        return await self._transaction.sessions(ids)

    async def data(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Mapping[str, bytes]]:
        return await self._transaction.data(ids)

    async def live_sessions(self, subjects: Sequence[tuple[str, str]], most: int) -> Mapping[tuple[str, str], Live]:
        del most
        return {subject: self._live[subject] for subject in subjects if subject in self._live}

    async def answers(self, keys: Sequence[bytes]) -> Mapping[bytes, KeptAnswer]:
        return await self._transaction.answers(keys)

    async def callers(self) -> Sequence[CallerRecord]:
        return await self._transaction.callers()

    async def keys(self) -> Sequence[SealingKey]:
        return await self._transaction.keys()

    async def holders(self) -> Sequence[KeyHolder]:
        return await self._transaction.holders()

    async def walk_data(self, after: Place, rows: int, size: int) -> DataWalk:
        return await self._transaction.walk_data(after, rows, size)

    async def walk_answers(self, after: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        return await self._transaction.walk_answers(after, limit)


def _in_workers(fault: str) -> Callable[[], None]:
    """Start workers without a protection. The process that calls this, their owner, keeps its own."""

    def break_workers() -> None:
        started = workers._started

        def changed(command: Sequence[str]) -> subprocess.Popen[bytes]:
            return started(
                ["tests.consistency.replica" if part == "sessiond" else part for part in command] + ["--fault", fault]
            )

        workers._started = changed

    return break_workers


WORKER_FAULTS: Mapping[str, Callable[[], None]] = {
    "worker-keep-outdated": _in_workers("near-keep-outdated"),
    "worker-ignore-lease": _in_workers("near-ignore-lease"),
}
"""The faults of workers by name. Their owner has all of its protections."""

FAULTS: Mapping[str, Callable[[], None]] = {
    "keep-outdated": _keep_outdated,
    "ignore-lease": _ignore_lease,
    "lease-from-receipt": _count_lease_from_receipt,
    "limit-outside": _check_limit_outside,
    **{name: partial(break_for_good, name) for name in NEAR_FAULTS},
    **WORKER_FAULTS,
}
"""The faults by name."""
