"""Guessing: counting forged and malformed tokens by source, in bounded memory, whatever the flood.

A source is a network: one IPv4 address or an IPv6 /64, which is what one customer usually has. Only tokens that
never were tokens count here; a stale one is told apart with certainty when it opens.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from sessiond.domain.values import Instant, Millis

__all__ = ["GuessEffect", "GuessLimits", "GuessWatch", "SourceLock"]


@dataclass(frozen=True, slots=True)
class GuessLimits:
    """When guessing from one source counts as an attack.

    alarm_after   guesses within `window` that raise GUESSING_SUSPECTED
    lock_after    guesses within `window` that lock the source for `lock_time`; 0: never
    flood_after   guesses within `window` from all sources together that raise GUESSING_SUSPECTED for the source `*`
    deny_valid    whether a lock shuts out valid tokens of the same source too (off: it must not hurt the honest
                  neighbours behind one address)
    """

    alarm_after: int = 20
    lock_after: int = 100
    flood_after: int = 1_000
    window: Millis = Millis(60_000)
    lock_time: Millis = Millis(900_000)
    deny_valid: bool = False


class GuessEffect(StrEnum):
    """What a guess set off."""

    NOTHING = "nothing"
    ALARM = "alarm"
    LOCK = "lock"


@dataclass(frozen=True, slots=True)
class SourceLock:
    """A source that was locked for guessing: the `number`th of this process."""

    application: str
    source: str
    locked: Instant
    until: Instant
    number: int = 0


class _Count:
    __slots__ = ("alarmed", "began", "guesses")

    def __init__(self, began: Instant) -> None:
        self.began = began
        self.guesses = 0
        self.alarmed = False


class GuessWatch:
    """The counters and locks of one process: at most `capacity` sources each, the least recently seen go first.

    A flood from more sources than that pushes counters out, never memory up; it is told by its sum, see `flood`.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()
        self._locks: OrderedDict[tuple[str, str], SourceLock] = OrderedDict()
        self._floods: dict[str, _Count] = {}
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._counts)

    def guess(self, application: str, source: str, limits: GuessLimits, now: Instant) -> GuessEffect:
        """Count one guess; what it sets off. Each window alarms once and locks once."""
        if self.locked(application, source, now) is not None:
            return GuessEffect.NOTHING
        count = self._count((application, source), limits, now)
        count.guesses += 1
        if limits.lock_after and count.guesses >= limits.lock_after:
            del self._counts[application, source]
            self._numbers += 1
            self._locks[application, source] = SourceLock(
                application, source, now, Instant(now + limits.lock_time), self._numbers
            )
            self._locks.move_to_end((application, source))  # one whose time is over may not have been released yet
            while len(self._locks) > self._capacity:
                self._locks.popitem(last=False)
            return GuessEffect.LOCK
        if count.guesses >= limits.alarm_after and not count.alarmed:
            count.alarmed = True
            return GuessEffect.ALARM
        return GuessEffect.NOTHING

    def flood(self, application: str, limits: GuessLimits, now: Instant) -> bool:
        """Count one guess from wherever; whether all sources together have just become a flood, once a window."""
        count = self._floods.get(application)
        if count is None or not count.began <= now < count.began + limits.window:
            count = self._floods[application] = _Count(now)
        count.guesses += 1
        if count.guesses < limits.flood_after or count.alarmed:
            return False
        count.alarmed = True
        return True

    def locked(self, application: str, source: str, now: Instant) -> SourceLock | None:
        """The lock on a source, if one is in force."""
        lock = self._locks.get((application, source))
        return lock if lock is not None and now < lock.until else None

    def locks(self, application: str, now: Instant) -> list[SourceLock]:
        """The locks in force, oldest first."""
        return [lock for lock in self._locks.values() if lock.application == application and now < lock.until]

    def clear(self, application: str, source: str) -> SourceLock | None:
        """Let a locked source go; its lock. None where there is no lock, and then nothing is forgotten."""
        lock = self._locks.pop((application, source), None)
        if lock is not None:
            self._counts.pop((application, source), None)
        return lock

    def release_due(self, now: Instant) -> list[SourceLock]:
        """Let go of the sources whose time is over; their locks."""
        over = [key for key, lock in self._locks.items() if now >= lock.until]
        return [self._locks.pop(key) for key in over]

    def _count(self, key: tuple[str, str], limits: GuessLimits, now: Instant) -> _Count:
        count = self._counts.get(key)
        if count is None or not count.began <= now < count.began + limits.window:
            count = self._counts[key] = _Count(now)
            if len(self._counts) > self._capacity:
                self._counts.popitem(last=False)
        self._counts.move_to_end(key)
        return count
