"""The clocks of the operator's machine. The only module of sessionctl that reads the wall clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime

__all__ = ["now", "since_boot"]

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def since_boot() -> int:
    """The nanoseconds since the machine started, by the clock that a server on this machine reads for its reports."""
    return time.clock_gettime_ns(_BOOT_CLOCK)
