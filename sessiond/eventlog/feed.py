"""The feed: the log for subscribers, who first catch up and then follow the live tail.

A subscriber is only a position in the log and has no queue. It reads new events from the tail in memory or, if it is
further behind, in pages from the store. So a slow subscriber does not slow down the writer and uses no memory here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import islice
from typing import Protocol

from sessiond.domain.errors import PositionOutOfRange, Unavailable
from sessiond.domain.event import Event, EventFilter
from sessiond.domain.immutable import immutable
from sessiond.domain.position import Incarnation, Position, check_position
from sessiond.domain.values import Revision
from sessiond.eventlog.replays import PAGE, Pages, Turns
from sessiond.store.contract import Head

__all__ = ["Checkpoint", "Feed", "Reader"]


@immutable
class Checkpoint:
    """Progress without an event: all matching events up to this revision have been delivered."""

    revision: Revision


class Log(Protocol):
    """The part of the store that the feed reads."""

    incarnations: Sequence[Incarnation]
    """The runs of the log, oldest first; the last one is the current run."""

    async def head(self) -> Head:
        """Return the newest revision and the horizon of the log."""

    async def events(self, after: Revision, limit: int) -> Sequence[Event]:
        """Return at most `limit` events that follow `after`, in order."""


class Feed:
    """The log as this process knows it. It starts at `head`; `publish` adds each commit."""

    def __init__(self, head: Head, log: Log, tail_length: int = 4096) -> None:
        self._log = log
        self._incarnations: Sequence[Incarnation] = list(log.incarnations)
        self._revision = head.revision
        self._horizon = head.horizon
        self._ends: list[Revision] = []  # the ends of the incarnations of which a part was lost while this ran
        self.on_wait: Callable[[], None] = lambda: None
        """Called when a caller waits for a revision that was not published here yet."""
        self._tail: deque[Event] = deque(maxlen=tail_length)
        self._published = asyncio.Event()
        self._groups: dict[EventFilter, _FilterGroup] = {}
        self._readers: set[Reader] = set()
        self._pages = Pages(log)
        self._turns = Turns()
        self._closed = asyncio.Event()

    @property
    def revision(self) -> Revision:
        """Return the newest published revision."""
        return self._revision

    @property
    def horizon(self) -> Revision:
        """Return the oldest revision that can be resumed from."""
        return self._horizon

    def publish(self, events: Sequence[Event], horizon: Revision) -> None:
        """Publish committed events. They must follow the previous ones without a gap."""
        self._horizon = max(self._horizon, horizon)
        if not events:
            return
        if events[0].revision != self._revision + 1:
            raise AssertionError(f"the feed is at {self._revision}, the next event has {events[0].revision}")
        self._tail.extend(events)
        self._revision = events[-1].revision
        self._wake()
        for group in self._groups.values():
            group.publish(events)

    def close(self) -> None:
        """End every subscription, after a last checkpoint."""
        self._closed.set()
        self._wake()
        for group in self._groups.values():
            group.wake()

    async def until_closed(self) -> None:
        """Wait until this process shuts down."""
        await self._closed.wait()

    @property
    def incarnation(self) -> Incarnation:
        """Return the current run of the log."""
        return self._incarnations[-1]

    def adopt(self, incarnations: Sequence[Incarnation], end: Revision) -> None:
        """Adopt a new incarnation of the log. Published events after `end` are lost with the one before it.

        Subscribers that have received a lost event end with `PositionOutOfRange`.
        """
        self._incarnations = list(incarnations)
        self._wake()  # for those who wait for the incarnation
        if end >= self._revision:
            return
        self._ends.append(end)
        self._revision, self._horizon = end, min(self._horizon, end)
        self._tail.clear()
        self._pages = Pages(self._log)
        for group in self._groups.values():
            group.last_match = end
            group.wake()

    def skip_to(self, horizon: Revision) -> None:
        """Go on at the horizon: the events before it were deleted before they could be published here."""
        self._revision = self._horizon = horizon
        self._tail.clear()
        for group in self._groups.values():
            group.last_match = horizon
            group.wake()
        self._wake()

    def position(self, revision: Revision | None = None) -> Position:
        """Return the position of a revision of the current incarnation, for cursors and consistency tokens.

        None: the newest revision that was published here. A revision that was just committed may be newer, and its
        incarnation may not be published here yet.
        """
        if revision is None:
            return Position(self.incarnation.id, self._revision)
        return Position(self._log.incarnations[-1].id, revision)

    def published(self, revision: Revision) -> Position:
        """Return the position of a revision that was published here, for cursors.

        The store may know of a newer incarnation already, in which the revision may be another event.
        """
        return Position(self.incarnation.id, revision)

    def has(self, position: Position) -> bool:
        """Return whether everything up to a position of this run has been published here.

        False leaves open whether the position exists.
        """
        return position.revision <= self._revision and position.incarnation == self.incarnation.id

    def resume(self, position: Position) -> Revision:
        """Return the revision that a cursor resumes after. Raises `PositionOutOfRange`."""
        if position.incarnation == self.incarnation.id:
            self.check(position.revision)  # its error message names both ends of the log
        revision = check_position("cursor", position, self._incarnations, self._revision)
        self.check(revision)
        return revision

    async def wait_for_cursor(self, position: Position, timeout: float = 2.0) -> None:
        """Wait until the position of a cursor has been published here, if the log has it: another process may be ahead.

        Raises `Unavailable` if it is not published after `timeout` seconds. `resume` says what else may be wrong.
        """
        is_known = any(run.id == position.incarnation for run in self._incarnations)
        if is_known and position.revision <= self._revision:
            return  # the common case
        if position.revision <= (await self._log.head()).revision:
            await self.wait_for(position, timeout, field="cursor")

    async def wait_for(self, position: Position, timeout: float = 2.0, *, field: str = "at_least") -> None:
        """Wait until everything up to a consistency token's position has been published here.

        The revision may be committed but not published here yet, for example if another process committed it.
        Raises `PositionOutOfRange` if it does not exist, `Unavailable` if it is not published after `timeout` seconds.
        """
        if self.has(position):
            return  # the common case
        head = max(self._revision, (await self._log.head()).revision)
        revision = check_position(field, position, self._log.incarnations, head)
        newest = self._log.incarnations[-1]
        self.on_wait()
        try:
            async with asyncio.timeout(timeout):
                while self._revision < revision or newest not in self._incarnations:
                    await self._published.wait()
        except TimeoutError:
            raise Unavailable(f"{field}: this server has not caught up with the change yet; try again") from None

    def check(self, position: Revision) -> None:
        """Raise `PositionOutOfRange` if the log cannot be resumed from there."""
        if not self._horizon <= position <= self._revision:
            where = "before the horizon" if position < self._horizon else "ahead of the log"
            raise PositionOutOfRange(
                "cursor",
                f"revision {position} is {where}: "
                f"the log can be resumed from revision {self._horizon} to {self._revision}",
            )

    def lags(self) -> Mapping[str, Sequence[int]]:
        """Return how many revisions each reader is behind the newest one, by who reads."""
        found: dict[str, list[int]] = {}
        for reader in self._readers:
            found.setdefault(reader.who, []).append(max(0, self._revision - reader.seen))
        return found

    @contextmanager
    def reader(self, after: Revision, wanted: EventFilter, who: str = "") -> Iterator[Reader]:
        """Read from a position. `who` reads is for metrics.

        Raises `PositionOutOfRange` if the log cannot be resumed from there.
        """
        self.check(after)
        group = self._groups.setdefault(wanted, _FilterGroup(wanted, self._revision))
        group.members += 1
        reader = Reader(self, after, group, who)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            group.members -= 1
            if not group.members:
                del self._groups[wanted]

    async def subscribe(
        self, after: Revision, wanted: EventFilter, checkpoint_interval: float, who: str = ""
    ) -> AsyncGenerator[Event | Checkpoint, None]:
        """Yield every event after that revision that `wanted` matches, in order and once, and checkpoints.

        The first item is a checkpoint. Another one follows whenever nothing was delivered for `checkpoint_interval`
        seconds, and a last one when the feed is closed. A checkpoint is never ahead of an undelivered event, because
        both use the same position. Raises `PositionOutOfRange` at the start, or later if the horizon overtakes a slow
        subscriber.
        """
        loop = asyncio.get_running_loop()
        with self.reader(after, wanted, who) as reader:
            yield Checkpoint(reader.position)
            delivered_at = loop.time()
            while True:
                async with reader.page() as events:
                    for event in events:
                        yield event
                        delivered_at = loop.time()
                if reader.is_cut:
                    continue
                # Checked after each page too: in a busy log a narrow filter may match nothing for a long time.
                if loop.time() - delivered_at >= checkpoint_interval:
                    yield Checkpoint(reader.position)
                    delivered_at = loop.time()
                if reader.is_behind:
                    continue
                if self._closed.is_set():
                    yield Checkpoint(reader.position)
                    return
                await reader.wait(delivered_at + checkpoint_interval - loop.time())

    @property
    def is_closed(self) -> bool:
        """Return whether every subscription must end."""
        return self._closed.is_set()

    def _is_behind(self, position: Revision) -> bool:
        """Return whether the events after a position are no longer all in the tail."""
        return position < self._revision and not (self._tail and position + 1 >= self._tail[0].revision)

    async def _page(self, position: Revision) -> Sequence[Event]:
        if position >= self._revision:
            return ()
        if not self._is_behind(position):
            start = position + 1 - self._tail[0].revision
            return list(islice(self._tail, start, start + PAGE))
        self.check(position)
        page = await self._pages.at(position)
        # Checked again: pruning between the check and the read would leave a gap before the page.
        self.check(position)
        if not page or page[-1].revision != position + len(page):
            # The log is damaged. Continuing would skip events silently or wait for ever.
            raise AssertionError(f"the log does not continue after revision {position}; its head is {self._revision}")
        return page

    def _wake(self) -> None:
        # Each waiter holds the `asyncio.Event` that it waits on; later waiters get a new one.
        self._published.set()
        self._published = asyncio.Event()


class Reader:
    """One reader's place in the log, under a filter. `Feed.reader` makes it.

    `position` is that of the last event that was read; every event up to there that matches the filter was read too.
    """

    def __init__(self, feed: Feed, position: Revision, group: _FilterGroup, who: str) -> None:
        self._feed = feed
        self.who = who
        self._group = group
        self._lost = len(feed._ends)
        self.position = position

    @property
    def is_cut(self) -> bool:
        """Return whether the end of the log was lost since the last page began."""
        return self._lost < len(self._feed._ends)

    @property
    def is_behind(self) -> bool:
        """Return whether there may be more events to read now."""
        return self.position < self._feed.revision

    @property
    def seen(self) -> Revision:
        """Return up to where every event that matches was read, although `position` may not have moved there yet."""
        return max(self.position, self._feed.revision) if self.position >= self._group.last_match else self.position

    def remaining(self, revision: Revision) -> Revision:
        """Return up to where the log that was read, up to a revision, is still the log as it is now.

        A part of it was lost if the log was set back since the last page began. Later events have the same revisions.
        """
        return min((revision, *self._feed._ends[self._lost :]))

    @asynccontextmanager
    async def page(self) -> AsyncIterator[Iterator[Event]]:
        """Read the next page. The block gets its events that match, maybe none; `position` moves with them.

        Others may have to wait for their turn while the block runs. Raises `PositionOutOfRange` if what was read is
        lost, or if the horizon has overtaken the reader.
        """
        feed, ends = self._feed, self._feed._ends
        if self.is_cut and self.position > min(ends[self._lost :]):
            raise PositionOutOfRange(
                "cursor",
                f"revision {self.position} no longer exists: the log was set back to {min(ends[self._lost :])}",
            )
        self._lost = len(ends)
        self.position = self.seen
        async with feed._turns.taken(waits=feed._is_behind(self.position)):
            page = await feed._page(self.position)
            yield self._matching(page)

    def _matching(self, page: Sequence[Event]) -> Iterator[Event]:
        for event in page:
            if self.is_cut:
                return  # the rest of the page may be lost
            if self._group.wanted.matches(event):
                yield event
            self.position = event.revision

    async def wait(self, timeout: float) -> None:
        """Wait until there may be an event that matches, at most `timeout` seconds."""
        await self._group.wait(self.position, timeout)

    @contextmanager
    def waking(self, event: asyncio.Event) -> Iterator[None]:
        """Set an event whenever there may be an event that matches, for the duration of the block."""
        self._group.listeners.add(event)
        try:
            yield
        finally:
            self._group.listeners.discard(event)


class _FilterGroup:
    """All subscribers with the same filter. Only events that match the filter wake them.

    `last_match` is the newest revision that may match: after it the log has no event for the group up to the head.
    """

    def __init__(self, wanted: EventFilter, revision: Revision) -> None:
        self.wanted = wanted
        self.members = 0
        self.last_match = revision
        self.listeners: set[asyncio.Event] = set()
        self._published = asyncio.Event()

    def publish(self, events: Sequence[Event]) -> None:
        """Wake the group if any of the committed events matches."""
        for event in reversed(events):
            if self.wanted.matches(event):
                self.last_match = event.revision
                self.wake()
                return

    def wake(self) -> None:
        """Wake all waiters. Each holds the `asyncio.Event` that it waits on; later waiters get a new one."""
        for listener in self.listeners:
            listener.set()
        self._published.set()
        self._published = asyncio.Event()

    async def wait(self, position: Revision, timeout: float) -> None:
        """Wait until there is an event for a subscriber at that position, at most `timeout` seconds."""
        if position < self.last_match:
            return
        with suppress(TimeoutError):
            # Not `wait_for`: on Python 3.11 it loses a cancellation that arrives together with the wake-up.
            async with asyncio.timeout(timeout):
                await self._published.wait()
