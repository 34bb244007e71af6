"""The feed: the log for subscribers, catch-up first, then its live tail.

A subscriber is a position in the log and nothing else: no queue of its own. It reads what it has not seen from the
tail kept in memory or, when it is further behind, from the store in pages. So a slow one costs the writer nothing
and holds no memory here, however long it sleeps.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import islice
from typing import Protocol

from sessiond.domain.errors import PositionOutOfRange, Unavailable
from sessiond.domain.event import Event, EventFilter
from sessiond.domain.immutable import immutable
from sessiond.domain.position import Incarnation, Position, check_position
from sessiond.domain.values import Revision
from sessiond.store.contract import Head
from sessiond.system.lru import Lru

__all__ = ["Checkpoint", "Feed"]

_PAGE = 100
_PAGES_KEPT = 40
_REPLAYS = 1
"""How many subscribers replay from the store at a time; the others wait for their turn."""
_LONGEST_TURN = 1.0
"""Seconds after which a subscriber that does not read loses its turn to the others."""


@immutable
class Checkpoint:
    """Progress without an event: everything up to here that the filter lets through has been delivered."""

    revision: Revision


class Log(Protocol):
    """What the feed reads: a store, of which it needs no more than this."""

    incarnations: Sequence[Incarnation]
    """The runs of the log, oldest first; the last one is this run."""

    async def head(self) -> Head:
        """Where the log stands."""

    async def events(self, after: Revision, limit: int) -> Sequence[Event]:
        """At most so many events that follow `after`, in order."""


class Feed:
    """The log as one process knows it: from `head` on, kept current by `publish`."""

    def __init__(self, head: Head, log: Log, tail_length: int = 4096) -> None:
        self._log = log
        self._revision = head.revision
        self._horizon = head.horizon
        self._tail: deque[Event] = deque(maxlen=tail_length)
        self._news = asyncio.Event()
        self._audiences: dict[EventFilter, _Audience] = {}
        self._pages = _Pages(log)
        self._turns = _Turns()
        self._closed = False

    @property
    def revision(self) -> Revision:
        """The newest revision that was published."""
        return self._revision

    @property
    def horizon(self) -> Revision:
        """The oldest revision that can be resumed from."""
        return self._horizon

    def publish(self, events: Sequence[Event], horizon: Revision) -> None:
        """Make committed events known. They must follow the last ones without a gap."""
        self._horizon = horizon
        if not events:
            return
        if events[0].revision != self._revision + 1:
            raise AssertionError(f"the feed is at {self._revision}, the next event has {events[0].revision}")
        self._tail.extend(events)
        self._revision = events[-1].revision
        self._wake()
        for audience in self._audiences.values():
            audience.hear(events)

    def close(self) -> None:
        """End every subscription, after a last checkpoint."""
        self._closed = True
        self._wake()
        for audience in self._audiences.values():
            audience.wake()

    @property
    def incarnation(self) -> Incarnation:
        """The current run of the log."""
        return self._log.incarnations[-1]

    def position(self, revision: Revision | None = None) -> Position:
        """A revision of this run of the log, by default the newest, as cursors and consistency tokens have it."""
        return Position(self._log.incarnations[-1].id, self._revision if revision is None else revision)

    def has(self, position: Position) -> bool:
        """Whether everything up to a position of this run has been published here. False says nothing yet."""
        return position.revision <= self._revision and position.incarnation == self._log.incarnations[-1].id

    def resume(self, position: Position) -> Revision:
        """The revision that a cursor resumes after. Raises `PositionOutOfRange`."""
        if position.incarnation == self.incarnation.id:
            self.check(position.revision)  # its message names both ends of the log
        revision = check_position("cursor", position, self._log.incarnations, self._revision)
        self.check(revision)
        return revision

    async def reached(self, position: Position, timeout: float = 2.0) -> None:
        """Return once everything up to a consistency token's position has been published here.

        A revision that this process has not heard of may have been committed: by another one, or a moment ago.
        Raises `PositionOutOfRange` if it does not exist, `Unavailable` if it is not here after `timeout` seconds.
        """
        if self.has(position):
            return  # nearly always
        head = max(self._revision, (await self._log.head()).revision)
        revision = check_position("at_least", position, self._log.incarnations, head)
        try:
            async with asyncio.timeout(timeout):
                while self._revision < revision:
                    await self._news.wait()
        except TimeoutError:
            raise Unavailable("at_least: this server has not caught up with the change yet; try again") from None

    def check(self, position: Revision) -> None:
        """Raise `PositionOutOfRange` if the log cannot be resumed from there."""
        if not self._horizon <= position <= self._revision:
            where = "from before the horizon" if position < self._horizon else "ahead of the log"
            raise PositionOutOfRange(
                "cursor",
                f"revision {position} is {where}: "
                f"the log can be resumed from revision {self._horizon} to {self._revision}",
            )

    async def subscribe(
        self, after: Revision, wanted: EventFilter, checkpoint_interval: float
    ) -> AsyncGenerator[Event | Checkpoint, None]:
        """Every event after that revision that `wanted` lets through, in order, once; and checkpoints.

        A checkpoint comes first, then whenever nothing was delivered for `checkpoint_interval` seconds, and last when
        the feed is closed. None is ever ahead of an event not delivered: both come from the one position.
        Raises `PositionOutOfRange` at the start, or later if the horizon overtakes a slow subscriber.
        """
        self.check(after)
        audience = self._audiences.setdefault(wanted, _Audience(wanted, self._revision))
        audience.members += 1
        try:
            async with aclosing(self._follow(after, audience, checkpoint_interval)) as items:
                async for item in items:
                    yield item
        finally:
            audience.members -= 1
            if not audience.members:
                del self._audiences[wanted]

    async def _follow(
        self, position: Revision, audience: _Audience, checkpoint_interval: float
    ) -> AsyncGenerator[Event | Checkpoint, None]:
        loop = asyncio.get_running_loop()
        yield Checkpoint(position)
        spoken_at = loop.time()
        while True:
            if position >= audience.last_match:
                position = self._revision  # nothing for this filter since
            async with self._turns.taken(waits=self._is_behind(position)):
                for event in await self._page(position):
                    if audience.wanted.matches(event):
                        yield event
                        spoken_at = loop.time()
                    position = event.revision
            # Under a narrow filter a busy log may pass for long with nothing to deliver: that is a quiet stream too.
            if loop.time() - spoken_at >= checkpoint_interval:
                yield Checkpoint(position)
                spoken_at = loop.time()
            if position < self._revision:
                continue
            if self._closed:
                yield Checkpoint(position)
                return
            await audience.wait(position, spoken_at + checkpoint_interval - loop.time())

    def _is_behind(self, position: Revision) -> bool:
        """Whether what follows a position is no longer in the tail."""
        return position < self._revision and not (self._tail and position + 1 >= self._tail[0].revision)

    async def _page(self, position: Revision) -> Sequence[Event]:
        if position >= self._revision:
            return ()
        if not self._is_behind(position):
            start = position + 1 - self._tail[0].revision
            return list(islice(self._tail, start, start + _PAGE))
        self.check(position)
        page = await self._pages.at(position)
        # Pruning may have come between the check and the read: a page that does not follow on would be a gap.
        self.check(position)
        if not page or page[-1].revision != position + len(page):
            # A damaged log: to go on would be a gap that nobody is told of, or a wait for what never comes.
            raise AssertionError(f"the log does not go on after revision {position}, its head is {self._revision}")
        return page

    def _wake(self) -> None:
        # Each waiter holds the event it waits on; the next ones get a fresh one.
        self._news.set()
        self._news = asyncio.Event()


class _Audience:
    """All subscribers with one filter: woken by events that it lets through, and by nothing else.

    `last_match` is the last revision that it may let through: whoever is there has missed nothing up to the head.
    """

    def __init__(self, wanted: EventFilter, revision: Revision) -> None:
        self.wanted = wanted
        self.members = 0
        self.last_match = revision
        self._news = asyncio.Event()

    def hear(self, events: Sequence[Event]) -> None:
        """Take in committed events."""
        for event in reversed(events):
            if self.wanted.matches(event):
                self.last_match = event.revision
                self.wake()
                return

    def wake(self) -> None:
        """Wake everybody who waits. Each waiter holds the event it waits on; the next ones get a fresh one."""
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, position: Revision, timeout: float) -> None:
        """Wait for something to deliver to a subscriber at that position, but no longer than `timeout` seconds."""
        if position < self.last_match:
            return
        with suppress(TimeoutError):
            # Not `wait_for`: on Python 3.11 it loses a cancellation that comes together with news.
            async with asyncio.timeout(timeout):
                await self._news.wait()


class _Pages:
    """Pages of the log, read once for all who replay it, a few of them kept."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kept: Lru[Revision, asyncio.Task[Sequence[Event]]] = Lru(_PAGES_KEPT)

    async def at(self, position: Revision) -> Sequence[Event]:
        """The page that follows a position."""
        page = self._kept.get(position)
        if page is None or (page.done() and (page.cancelled() or page.exception() or len(page.result()) < _PAGE)):
            page = asyncio.ensure_future(self._read(position))
            self._kept.put(position, page)
        # Shielded: one subscriber that leaves does not take the read from the others.
        return await asyncio.shield(page)

    async def _read(self, position: Revision) -> Sequence[Event]:
        return await self._log.events(position, _PAGE)


class _Turns:
    """Turns for those who replay the log: a page each, a few at a time, so that hundreds cannot crowd out the rest.

    Between two turns others have as long as the last one took. A single subscriber replays without a rest.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_REPLAYS)
        self._waiting = 0

    @asynccontextmanager
    async def taken(self, *, waits: bool) -> AsyncIterator[None]:
        """One turn; at once if `waits` is false."""
        if not waits:
            yield
            return
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        loop, given_back = asyncio.get_running_loop(), False
        begun = loop.time()

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self._free.release()

        timer = loop.call_later(_LONGEST_TURN, give_back)
        try:
            yield
        finally:
            timer.cancel()
            if self._waiting:
                loop.call_later(loop.time() - begun, give_back)
            else:
                give_back()
