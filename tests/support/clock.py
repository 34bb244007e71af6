"""A clock that tests set."""

from __future__ import annotations

from sessiond.domain.values import Instant

START = Instant(1_800_000_000_000)


class ManualClock:
    """Time that moves when told to, either way; as steady as the test says."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self.steady = True

    def now(self) -> Instant:
        """The time it was set to."""
        return Instant(self._now)

    def is_steady(self) -> bool:
        """What the test says."""
        return self.steady

    def advance(self, millis: int) -> Instant:
        """Move by so many milliseconds; the new time."""
        self._now += millis
        return self.now()
