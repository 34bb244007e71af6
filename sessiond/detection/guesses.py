"""Counting guesses (forged and malformed tokens) by source, in bounded memory even during a flood.

A source is one IPv4 address or an IPv6 /64, the network that one customer usually has. Only tokens that were never
issued count as guesses. A stale token can be decrypted and is therefore never mistaken for a guess.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from sessiond.domain.event import Event, EventType
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant, Millis, Revision
from sessiond.system.lru import Lru

__all__ = ["GuessEffect", "GuessWatch", "SourceLock"]


class GuessEffect(StrEnum):
    """The effect of one guess."""

    NOTHING = "nothing"
    ALARM = "alarm"
    LOCK = "lock"


@immutable
class SourceLock:
    """A source that is locked for guessing. `revision` is that of its SOURCE_LOCKED event; 0 until it is committed."""

    application: str
    source: str
    locked: Instant
    until: Instant
    revision: Revision = Revision(0)


class _Count:
    __slots__ = ("alarmed", "began", "guesses")

    def __init__(self, began: Instant) -> None:
        self.began = began
        self.guesses = 0
        self.alarmed = False

    def is_within(self, window: Millis, now: Instant) -> bool:
        """Return whether `now` is within the window of this count."""
        return self.began <= now < self.began + window


class GuessWatch:
    """The counters and locks of one process, for at most `capacity` sources each; the least recently seen are evicted.

    A flood from more sources evicts counters and does not use more memory. `flood` detects it by the total count.
    `lock_time` returns for how many milliseconds an application's policy locks a source. It is needed for locks that
    another replica, or this one before a restart, has recorded.
    """

    def __init__(self, lock_time: Callable[[str], Millis] = lambda _: Millis(0), capacity: int = 10_000) -> None:
        self._lock_time = lock_time
        self._counts: Lru[tuple[str, str], _Count] = Lru(capacity)
        self._locks: Lru[tuple[str, str], SourceLock] = Lru(capacity)
        self._floods: dict[str, _Count] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def guess(self, application: str, source: str, limits: GuessLimits, now: Instant) -> GuessEffect:
        """Count one guess and return its effect. Each window raises at most one alarm and one lock."""
        key = (application, source)
        if self.locked(application, source, now) is not None:
            return GuessEffect.NOTHING
        count = self._counts.get(key)
        if count is None or not count.is_within(limits.window, now):
            count = _Count(now)
            self._counts.put(key, count)
        count.guesses += 1
        if limits.lock_after and count.guesses >= limits.lock_after:
            self._counts.pop(key)
            self._locks.put(key, SourceLock(application, source, now, Instant(now + limits.lock_time)))
            return GuessEffect.LOCK
        if count.guesses >= limits.alarm_after and not count.alarmed:
            count.alarmed = True
            return GuessEffect.ALARM
        return GuessEffect.NOTHING

    def flood(self, application: str, limits: GuessLimits, now: Instant) -> bool:
        """Count one guess from any source. Return True once per window, when all sources together become a flood."""
        count = self._floods.get(application)
        if count is None or not count.is_within(limits.window, now):
            count = self._floods[application] = _Count(now)
        count.guesses += 1
        if count.guesses < limits.flood_after or count.alarmed:
            return False
        count.alarmed = True
        return True

    def locked(self, application: str, source: str, now: Instant) -> SourceLock | None:
        """Return the lock on a source, if one is in force."""
        lock = self._locks.peek((application, source))
        return lock if lock is not None and now < lock.until else None

    def locks(self, application: str, now: Instant) -> list[SourceLock]:
        """Return the locks in force whose SOURCE_LOCKED event is committed, oldest first."""
        locks = (lock for key in self._locks if (lock := self._locks.peek(key)) is not None)
        in_force = (lock for lock in locks if lock.application == application and lock.revision and now < lock.until)
        return sorted(in_force, key=lambda lock: lock.revision)

    def in_force(self, now: Instant) -> Mapping[str, int]:
        """Return how many locks are in force, by application."""
        locks = (lock for key in self._locks if (lock := self._locks.peek(key)) is not None)
        return Counter(lock.application for lock in locks if now < lock.until)

    def due(self, now: Instant) -> list[SourceLock]:
        """Return the locks that have run out, but whose SOURCE_UNLOCKED event is not committed yet."""
        locks = (lock for key in self._locks if (lock := self._locks.peek(key)) is not None)
        return [lock for lock in locks if now >= lock.until]

    def apply(self, events: Sequence[Event]) -> None:
        """Apply committed events: SOURCE_LOCKED locks a source or confirms its lock, SOURCE_UNLOCKED releases it."""
        for event in events:
            key = (event.application, event.source)
            if event.type is EventType.SOURCE_LOCKED:
                lock = self._locks.peek(key)
                if lock is None:
                    until = Instant(event.at + self._lock_time(event.application))
                    lock = SourceLock(event.application, event.source, event.at, until)
                if not lock.revision and lock.until > lock.locked:
                    self._locks.put(key, replace(lock, revision=event.revision))
            elif event.type is EventType.SOURCE_UNLOCKED:
                lock = self._locks.peek(key)
                if lock is not None and lock.revision:  # otherwise this is a newer lock, whose event is not committed
                    self._locks.pop(key)
                    self._counts.pop(key)
