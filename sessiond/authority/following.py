"""Following: the log for caches of validation results, with leases."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress

from sessiond.authority.policy_book import PolicyBook
from sessiond.domain.errors import InvalidField
from sessiond.domain.event import Event, EventFilter, EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.position import Position
from sessiond.domain.values import Millis, Revision
from sessiond.eventlog.caches import FollowingCaches
from sessiond.eventlog.feed import Feed, Reader

__all__ = ["Following", "Granted", "News", "Started", "Stream"]

_WITHOUT_EFFECT = {
    EventType.SESSION_CREATED,
    EventType.CONCURRENCY_LIMIT_REACHED,
    EventType.GUESSING_SUSPECTED,
    EventType.SOURCE_UNLOCKED,
}
"""Events that change no result that a cache may keep: it keeps none of a session before the session exists."""
_EVERYWHERE = frozenset({EventType.CALLER_CHANGED, EventType.KEY_RING_CHANGED})
_TYPES = frozenset(EventType) - _WITHOUT_EFFECT
_QUIET = 10.0
"""Seconds without a message after which the position is sent."""
_PAUSE_PER_CACHE = 0.0002
"""Seconds. A stream pauses between two messages for as long as writing one message to every cache takes, about. So all
of them together take a limited part of the server's time, and get the events in larger batches instead."""
_MAX_RENEWALS = 16


@immutable
class Started:
    """The stream begins, or the policies have changed."""

    incarnation: bytes
    fingerprint: str


@immutable
class Granted:
    """The answer to one renewal. `duration` is in milliseconds."""

    nonce: int
    duration: Millis


@immutable
class News:
    """Events, in order; none: progress only."""

    events: Sequence[Event]


class Stream:
    """One cache's stream. `messages` is what to send; the other methods take what the cache sends."""

    def __init__(self, feed: Feed, policies: PolicyBook, caches: FollowingCaches, reader: Reader, name: str) -> None:
        self._feed = feed
        self._policies = policies
        self._caches = caches
        self._reader = reader
        self._acknowledged = self._sent = reader.position
        self._wake = asyncio.Event()
        self._renewals: deque[int] = deque()
        self._released = 0  # how many of these renewals came before a release
        self._lease = caches.join(name, self._applied, self._wake.set)
        self._error: Exception | None = None
        self.is_ended = False

    @property
    def position(self) -> Revision:
        """Return the revision up to which the last message goes."""
        return self._reader.position

    def acknowledge(self, position: Position) -> None:
        """The cache has applied everything up to a position. Raises `InvalidField` if that was not sent yet."""
        if position.revision > self._reader.position:
            raise InvalidField("applied.cursor", "is ahead of what was sent; acknowledge only what you have received")
        if position.incarnation == self._feed.incarnation.id and position.revision > self._acknowledged:
            self._acknowledged = position.revision
            self._caches.progressed()

    def end(self, error: Exception | None = None) -> None:
        """The cache has ended its side, or broken a rule: `messages` ends, or raises the error."""
        self.is_ended, self._error = True, error
        self._wake.set()

    def leave(self) -> None:
        """The stream has ended."""
        applied = self._applied()
        self._caches.leave(self._lease, lambda: self._reader.remaining(applied))

    def _applied(self) -> Revision:
        # If the cache has acknowledged all events that it got, there is nothing between them that it has to apply.
        applied = self._acknowledged if self._acknowledged < self._sent else self._reader.seen
        # What it has applied of a part of the log that was lost says nothing about the events that are there now.
        return self._reader.remaining(applied)

    def renew(self, nonce: int) -> None:
        """The cache asks for a lease. Raises `InvalidField` if too many of its renewals wait for their answer."""
        if len(self._renewals) >= _MAX_RENEWALS:
            raise InvalidField("renewal", f"{_MAX_RENEWALS} renewals wait for their grant; wait for it before the next")
        self._renewals.append(nonce)
        self._wake.set()

    def release(self) -> None:
        """The cache has stopped answering. It will not count on what it has asked for before."""
        self._released = len(self._renewals)
        self._caches.release(self._lease)

    async def messages(self) -> AsyncGenerator[tuple[Started | News | Granted, bool], None]:
        """Yield each message, and whether the cache must acknowledge it at once. Ends with the stream or the feed.

        Raises `PositionOutOfRange` if the horizon overtakes the stream, or if the end of the log is lost.
        """
        reader, loop = self._reader, asyncio.get_running_loop()
        known, sent_at = Started(b"", ""), loop.time()
        with reader.waking(self._wake):
            while True:
                self._wake.clear()
                if self.is_ended:
                    if self._error is not None:
                        raise self._error
                    return
                if known != (now := self._started()):
                    known = now
                    yield known, False
                async with reader.page() as page:
                    events = list(page)
                    if events:  # before the next await: somebody may ask meanwhile what the cache has applied
                        self._sent = events[-1].revision
                if reader.is_cut:
                    continue
                is_asked, self._lease.is_asked = self._lease.is_asked, False
                if events or is_asked or loop.time() - sent_at >= _QUIET:
                    yield News(events), is_asked or bool(events and self._caches.asks_always)
                    sent_at = loop.time()
                if reader.is_behind or known != self._started():
                    continue
                # No await since the reader was at the newest revision: every event goes before the grant.
                if self._renewals:
                    yield self._grant(), False
                    sent_at = loop.time()
                    self._wake.set()  # there may be another one
                if self._feed.is_closed:
                    return
                await self._pause(sent_at + _QUIET - loop.time())

    def _started(self) -> Started:
        return Started(self._feed.incarnation.id, self._policies.fingerprint)

    def _grant(self) -> Granted:
        nonce = self._renewals.popleft()
        if self._released:
            self._released -= 1
            return Granted(nonce, Millis(0))
        return Granted(nonce, self._caches.grant(self._lease))

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(len(self._caches) * _PAUSE_PER_CACHE)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()


class Following:
    """Lets caches follow the log, and waits for them."""

    def __init__(self, feed: Feed, policies: PolicyBook, caches: FollowingCaches) -> None:
        self._feed = feed
        self._policies = policies
        self._caches = caches

    async def position(self, cursor: Position | None) -> Revision:
        """Return where a stream starts: after the cursor, or at the newest revision. Raises as `Feed.resume`."""
        if cursor is None:
            return self._feed.revision
        await self._feed.wait_for_cursor(cursor)
        return self._feed.resume(cursor)

    @contextmanager
    def stream(self, after: Revision, applications: frozenset[str], name: str, who: str = "") -> Iterator[Stream]:
        """Follow from a revision. An empty set of applications is all of them. `who` follows is for metrics.

        Raises `PositionOutOfRange`.
        """
        # When a caller or the key ring changes, caches drop everything, whatever their applications.
        wanted = EventFilter(applications, types=_TYPES, everywhere=_EVERYWHERE)
        with self._feed.reader(after, wanted, who) as reader:
            stream = Stream(self._feed, self._policies, self._caches, reader, name)
            try:
                yield stream
            finally:
                stream.leave()
