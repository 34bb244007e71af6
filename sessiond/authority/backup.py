"""Backups: a copy of the database of a running authority."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sessiond.domain.errors import Unavailable
from sessiond.domain.values import Instant
from sessiond.store.contract import Snapshot, SnapshotFacts, Store
from sessiond.system.clock import Clock

__all__ = ["Backup", "Backups"]


class Backup:
    """One backup, read from the beginning to the end.

    `time` is when the copied state was that of the authority.
    """

    def __init__(self, snapshot: Snapshot, backups: Backups, time: Instant) -> None:
        self._snapshot = snapshot
        self._backups = backups
        self.time = time

    @property
    def authority_id(self) -> bytes:
        """Return the id of the authority."""
        return self._backups.authority_id

    @property
    def facts(self) -> SnapshotFacts:
        """Return what it is of."""
        return self._snapshot.facts

    @property
    def sha256(self) -> bytes:
        """Return SHA-256 of what was read."""
        return self._snapshot.sha256

    async def read(self, length: int) -> bytes:
        """Return the next part; empty at the end. Raises `Overloaded` and `Unavailable`."""
        if self._backups.is_closed:
            raise Unavailable("the authority is shutting down; start the backup again")
        return await self._snapshot.read(length)


class Backups:
    """Makes backups, one at a time."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.authority_id = store.authority_id
        self.is_closed = False

    @asynccontextmanager
    async def backup(self) -> AsyncIterator[Backup]:
        """Return a backup to read in the block. Raises `BackupRefused`."""
        snapshot = await self._store.snapshot()
        try:
            yield Backup(snapshot, self, self._clock.now())
        finally:
            # A caller that hangs up, and then a server that stops, cancel twice.
            await asyncio.shield(asyncio.create_task(snapshot.close()))

    def close(self) -> None:
        """End all backups: the authority stops."""
        self.is_closed = True
