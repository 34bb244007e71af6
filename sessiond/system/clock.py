"""The one place that reads clocks. Everything else is given a Clock or, better, a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from sessiond.domain.values import Instant

__all__ = ["Clock", "SteadyClock", "SystemClock"]

_BELIEVE_AFTER = 60_000
"""Milliseconds for which the wall clock must stand by a jump before it is believed."""
_JUMP = 1_000
"""Milliseconds: a smaller difference is drift, and followed."""
_SLEW = 10
"""Time that is ahead of the wall clock passes a tenth more slowly until it is not."""


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> Instant:
        """The authority's time in milliseconds since the Unix epoch."""

    def is_steady(self) -> bool:
        """Whether wall clock and monotonic clock have agreed for long enough to destroy anything by what they say."""


class SteadyClock:
    """Wall time that no single reading of the wall clock can move.

    Time passes with the monotonic clock. A jump of the wall clock is followed only once it has lasted a minute:
    forward at once, backward by passing more slowly, so that time never runs backwards and no timeout gets longer
    than by a tenth. `wall` and `passed` read milliseconds; `passed` never goes backwards.
    """

    def __init__(self, wall: Callable[[], int], passed: Callable[[], int]) -> None:
        self._wall = wall
        self._passed = passed
        self._seen = self._agreed_since = passed()
        self._now = max(0, wall())
        self._offset = self._now - self._seen  # what is believed of wall time less passed time
        self._suspected: tuple[int, int] | None = None  # another offset, and since when the wall clock stands by it

    def now(self) -> Instant:
        """The time now; never earlier than the last time."""
        passed = self._passed()
        self._compare(max(0, self._wall()) - passed, passed)
        elapsed, self._seen = passed - self._seen, passed
        ahead = self._now + elapsed - (passed + self._offset)
        self._now += elapsed - (ahead if ahead <= 0 else min(ahead, elapsed // _SLEW))
        return Instant(self._now)

    def is_steady(self) -> bool:
        """Whether the two clocks have agreed for the last minute; never in the first one."""
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
    """The machine's clocks. Time that the machine slept counts as passed."""

    def __init__(self) -> None:
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        super().__init__(
            wall=lambda: time.time_ns() // 1_000_000, passed=lambda: time.clock_gettime_ns(clock) // 1_000_000
        )
