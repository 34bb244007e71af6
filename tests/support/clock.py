"""A clock that tests set."""

from __future__ import annotations

from sessiond.domain.values import Instant

START = Instant(1_800_000_000_000)


class ManualClock:
    """A clock that moves only on request, in both directions, and is steady unless a test says otherwise."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self.steady = True

    def now(self) -> Instant:
        """Return the time it was set to."""
        return Instant(self._now)

    def is_steady(self) -> bool:
        """Return what the test has set."""
        return self.steady

    def advance(self, millis: int) -> Instant:
        """Advance by so many milliseconds, and return the new time."""
        self._now += millis
        return self.now()
