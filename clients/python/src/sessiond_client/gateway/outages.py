"""Outages in the log: requests are answered with 503, so that nothing else would say why."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sessiond_client.errors import DeadlineExceeded, SessiondError, Unavailable

__all__ = ["OutageLog", "outage_log"]

_log = logging.getLogger("sessiond_client")
_INTERVAL = 60.0
"""Seconds between two warnings about one authority."""


class OutageLog:
    """Writes a warning if an authority cannot be reached, at most one a minute for each. Safe to share."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds of a monotonic clock."""
        self._clock = clock
        self._lock = threading.Lock()
        self._silent_until: dict[str, float] = {}

    def note(self, target: str, error: SessiondError) -> None:
        """Write the warning for a failed call, if it means that the authority at `target` cannot be reached."""
        if not isinstance(error, (Unavailable, DeadlineExceeded)):
            return
        now = self._clock()
        with self._lock:
            if now < self._silent_until.get(target, now):
                return
            self._silent_until[target] = now + _INTERVAL
        is_refused = "Connection refused" in error.message
        _log.warning("no answer from sessiond at %s: %s", target, "connection refused" if is_refused else error.message)


outage_log = OutageLog()
"""That of this process."""
