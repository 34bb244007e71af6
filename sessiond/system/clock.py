"""The one place that reads a clock. Everything else is given a Clock or, better, a time."""

from __future__ import annotations

import time
from typing import Protocol

from sessiond.domain.values import Instant

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> Instant:
        """Wall time in milliseconds since the Unix epoch. May step either way, as wall clocks do."""


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> Instant:
        """Wall time in milliseconds since the Unix epoch."""
        return Instant(time.time_ns() // 1_000_000)
