"""The only module that reads clocks. All other code takes a Clock or, better, a time as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from sessiond.domain.values import Instant

__all__ = ["Clock", "SteadyClock", "SystemClock", "since_boot"]

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_BELIEVE_AFTER = 60_000
"""Milliseconds that the wall clock must keep to a jump before the jump is accepted."""
_JUMP = 1_000
"""Milliseconds. A smaller difference is drift and is followed without waiting."""
_SLEW = 10
"""While the time is ahead of the wall clock, it passes slower by one tenth (1 / _SLEW)."""


class Clock(Protocol):
    """The source of time."""

    def now(self) -> Instant:
        """Return the authority's time, in milliseconds since the Unix epoch."""

    def is_steady(self) -> bool:
        """Return whether wall clock and monotonic clock have agreed long enough to delete data based on their time."""


class SteadyClock:
    """Wall time that a single reading of the wall clock cannot change.

    Time advances with the monotonic clock. A jump of the wall clock is followed after it has lasted one minute: a jump
    forward at once, a jump backward by advancing more slowly. So time never runs backwards, and no timeout becomes
    longer by more than a tenth. `wall` and `passed` return milliseconds; `passed` must never go backwards.
    """

    def __init__(self, wall: Callable[[], int], passed: Callable[[], int]) -> None:
        self._wall = wall
        self._passed = passed
        self._seen = self._agreed_since = passed()
        self._now = max(0, wall())
        self._offset = self._now - self._seen  # the accepted difference of wall time and passed time
        self._remainder = 0
        self._suspected: tuple[int, int] | None = None  # another offset, and since when the wall clock has had it

    def now(self) -> Instant:
        """Return the current time. It is never earlier than the last one returned."""
        passed = self._passed()
        self._compare(max(0, self._wall()) - passed, passed)
        elapsed, self._seen = passed - self._seen, passed
        ahead = self._now + elapsed - (passed + self._offset)
        self._now += elapsed - (ahead if ahead <= 0 else min(ahead, self._slowed_by(elapsed)))
        return Instant(self._now)

    def _slowed_by(self, elapsed: int) -> int:
        """Return a tenth of the elapsed time. What does not make a millisecond counts with the next call."""
        slowed, self._remainder = divmod(self._remainder + elapsed, _SLEW)
        return slowed

    def is_steady(self) -> bool:
        """Return whether the two clocks agreed during the last minute. False in the first minute after the start."""
        self.now()
        return self._suspected is None and self._seen - self._agreed_since >= _BELIEVE_AFTER

    def _compare(self, offset: int, passed: int) -> None:
        if abs(offset - self._offset) < _JUMP:
            self._offset = offset
            if self._suspected is not None:  # the jump is over
                self._suspected, self._agreed_since = None, passed
        elif self._suspected is None or abs(offset - self._suspected[0]) >= _JUMP:
            self._suspected = (offset, passed)
        elif passed - self._suspected[1] >= _BELIEVE_AFTER:
            self._offset, self._suspected, self._agreed_since = offset, None, passed


class SystemClock(SteadyClock):
    """The clocks of the machine. Time during which the machine was suspended counts."""

    def __init__(self) -> None:
        super().__init__(wall=lambda: time.time_ns() // 1_000_000, passed=lambda: since_boot() // 1_000_000)


def since_boot() -> int:
    """Return the nanoseconds since the machine started. All processes of the machine read the same clock."""
    return time.clock_gettime_ns(_BOOT_CLOCK)
