"""The unit that unlocks a source."""

from __future__ import annotations

from typing import Protocol

from sessiond.domain.call import Call
from sessiond.domain.errors import LockNotFound
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant
from sessiond.eventlog.work import NOTHING, Needs, Work

__all__ = ["Locks", "Unlock"]


class Locks(Protocol):
    """The locked sources. A unit only reads them; the committed SOURCE_UNLOCKED event releases the lock."""

    def locked(self, application: str, source: str, now: Instant) -> object | None:
        """Return the lock on a source, if one is in force."""


@immutable
class Unlock:
    """Unlock a source."""

    locks: Locks
    call: Call
    source: str

    def needs(self) -> Needs:
        """Return what to read: nothing, because locks are kept in memory."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Unlock the source. Raises `LockNotFound` if it is not locked or already unlocked in this transaction."""
        application = self.call.application
        unlocked = any(
            event.type is EventType.SOURCE_UNLOCKED and (event.application, event.source) == (application, self.source)
            for event in work.changes.events
        )
        if unlocked or self.locks.locked(application, self.source, work.now) is None:
            raise LockNotFound("source: not locked for this application")
        work.record_other(EventType.SOURCE_UNLOCKED, application, self.call.cause, source=self.source)
