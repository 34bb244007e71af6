"""Guessing: counting forged and malformed tokens by source, in bounded memory, whatever the flood.

A source is a network: one IPv4 address or an IPv6 /64, which is what one customer usually has. Only tokens that
were never issued count here; a stale one is told apart with certainty when it opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from sessiond.domain.event import Event, EventType
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant, Millis, Revision
from sessiond.system.lru import Lru

__all__ = ["GuessEffect", "GuessWatch", "SourceLock"]


class GuessEffect(StrEnum):
    """What a guess set off."""

    NOTHING = "nothing"
    ALARM = "alarm"
    LOCK = "lock"


@immutable
class SourceLock:
    """A source that is locked for guessing. `revision` is that of its SOURCE_LOCKED; 0 while it is being recorded."""

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
        """Whether `now` falls into the window that this count is of."""
        return self.began <= now < self.began + window


class GuessWatch:
    """The counters and locks of one process: at most `capacity` sources each, the least recently seen go first.

    A flood from more sources than that pushes counters out, never memory up; it is noticed by its sum, see `flood`.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._counts: Lru[tuple[str, str], _Count] = Lru(capacity)
        self._locks: Lru[tuple[str, str], SourceLock] = Lru(capacity)
        self._floods: dict[str, _Count] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def guess(self, application: str, source: str, limits: GuessLimits, now: Instant) -> GuessEffect:
        """Count one guess; what it sets off. Each window alarms once and locks once."""
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
        """Count one guess from wherever; whether all sources together have just become a flood, once a window."""
        count = self._floods.get(application)
        if count is None or not count.is_within(limits.window, now):
            count = self._floods[application] = _Count(now)
        count.guesses += 1
        if count.guesses < limits.flood_after or count.alarmed:
            return False
        count.alarmed = True
        return True

    def locked(self, application: str, source: str, now: Instant) -> SourceLock | None:
        """The lock on a source, if one is in force."""
        lock = self._locks.peek((application, source))
        return lock if lock is not None and now < lock.until else None

    def locks(self, application: str, now: Instant) -> list[SourceLock]:
        """The recorded locks in force, oldest first."""
        locks = (lock for key in self._locks if (lock := self._locks.peek(key)) is not None)
        in_force = (lock for lock in locks if lock.application == application and lock.revision and now < lock.until)
        return sorted(in_force, key=lambda lock: lock.revision)

    def due(self, now: Instant) -> list[SourceLock]:
        """The locks whose time is over and whose SOURCE_UNLOCKED is not recorded yet."""
        locks = (lock for key in self._locks if (lock := self._locks.peek(key)) is not None)
        return [lock for lock in locks if now >= lock.until]

    def apply(self, events: Sequence[Event]) -> None:
        """Take in what was committed: locks get their revision, and are released by their SOURCE_UNLOCKED."""
        for event in events:
            key = (event.application, event.source)
            if event.type is EventType.SOURCE_LOCKED:
                lock = self._locks.peek(key)
                if lock is not None and not lock.revision:
                    self._locks.put(key, replace(lock, revision=event.revision))
            elif event.type is EventType.SOURCE_UNLOCKED:
                lock = self._locks.peek(key)
                if lock is not None and lock.revision:  # else it is a newer lock, whose own record is on its way
                    self._locks.pop(key)
                    self._counts.pop(key)
