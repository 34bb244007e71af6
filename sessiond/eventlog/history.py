"""The recent events of the log, from which a process that starts learns what it keeps in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from sessiond.domain.event import Event
from sessiond.domain.values import Revision
from sessiond.store.contract import Head

__all__ = ["recent_events"]

_MOST = 10_000
_PAGE = 500


class Log(Protocol):
    """The part of the store that is read."""

    async def events(self, after: Revision, limit: int) -> Sequence[Event]:
        """Return at most `limit` events that follow `after`, in order."""


async def recent_events(log: Log, head: Head) -> AsyncIterator[Sequence[Event]]:
    """Yield the newest events up to the head, at most 10,000, in order and in pages."""
    position = Revision(max(head.horizon, head.revision - _MOST))
    while position < head.revision:
        page = [event for event in await log.events(position, _PAGE) if event.revision <= head.revision]
        if not page:
            return
        yield page
        position = page[-1].revision
