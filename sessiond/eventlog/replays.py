"""How subscribers that are behind read the log: each page once for all of them, and one subscriber after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from sessiond.domain.event import Event
from sessiond.domain.values import Revision
from sessiond.system.lru import Lru

__all__ = ["PAGE", "Pages", "Turns"]

PAGE = 100
"""Events per page."""
_PAGES_KEPT = 40
_CONCURRENT_REPLAYS = 1
"""How many subscribers read from the store at the same time; the others wait for their turn."""
_MAX_TURN = 1.0
"""Seconds after which a subscriber that does not consume its page loses its turn."""


class Log(Protocol):
    """The part of the store that is read."""

    async def events(self, after: Revision, limit: int) -> Sequence[Event]:
        """Return at most `limit` events that follow `after`, in order."""


class Pages:
    """Pages of the log, each read once for all subscribers that need it; the last few are kept."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kept: Lru[Revision, asyncio.Task[Sequence[Event]]] = Lru(_PAGES_KEPT)

    async def at(self, position: Revision) -> Sequence[Event]:
        """Return the page that follows a position."""
        page = self._kept.get(position)
        if page is None or (page.done() and (page.cancelled() or page.exception() or len(page.result()) < PAGE)):
            page = asyncio.ensure_future(self._read(position))
            self._kept.put(position, page)
        # Shielded: cancelling one subscriber must not cancel the read for the others.
        return await asyncio.shield(page)

    async def _read(self, position: Revision) -> Sequence[Event]:
        return await self._log.events(position, PAGE)


class Turns:
    """Limits how many subscribers replay the log at the same time, so that many of them cannot starve other work.

    A turn is one page. If other subscribers wait, the next turn starts only after a pause as long as the last turn.
    A single subscriber replays without pauses.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_CONCURRENT_REPLAYS)
        self._waiting = 0

    @asynccontextmanager
    async def taken(self, *, waits: bool) -> AsyncIterator[None]:
        """Hold one turn for the duration of the block. If `waits` is false, no turn is needed."""
        if not waits:
            yield
            return
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        loop, released = asyncio.get_running_loop(), False
        began = loop.time()

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._free.release()

        timer = loop.call_later(_MAX_TURN, release)
        try:
            yield
        finally:
            timer.cancel()
            if self._waiting:
                loop.call_later(loop.time() - began, release)
            else:
                release()
