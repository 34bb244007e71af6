"""A clock that tests set."""

from __future__ import annotations

from sessiond.domain.values import Instant

START = Instant(1_800_000_000_000)


class ManualClock:
    """Wall time that moves when told to, either way."""

    def __init__(self, now: int = START) -> None:
        self._now = now

    def now(self) -> Instant:
        """The time it was set to."""
        return Instant(self._now)

    def advance(self, millis: int) -> Instant:
        """Move by so many milliseconds; the new time."""
        self._now += millis
        return self.now()
