"""Tracks whether the authority is reachable, so that calls during an outage fail at once."""

from __future__ import annotations

import threading

__all__ = ["Circuit"]

_PROBE_PAUSE = 0.1
"""Seconds between two probes. A probe costs one refused call; gRPC itself connects at its own, slower pace."""


class Circuit:
    """Open from the first refused connection until a call reaches the authority again.

    While it is open, calls fail at once with the cause of the outage, except one at a time: the probe. All calls of a
    client share it, from any thread. `now` is in seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cause = ""
        self._probe: object | None = None
        self._next_probe = 0.0
        self.was_reached = False
        """Whether any call has reached the authority yet."""

    @property
    def cause(self) -> str:
        """Why calls fail; empty while the authority is reachable."""
        return self._cause

    def admit(self, call: object, now: float) -> str:
        """Return the cause of the outage if the call must fail; empty: make it, perhaps as the probe."""
        if not self._cause:  # the usual case, without the lock
            return ""
        with self._lock:
            if self._cause and (self._probe is not None or now < self._next_probe):
                return self._cause
            if self._cause:
                self._probe = call
            return ""

    def refused(self, call: object, cause: str, now: float) -> None:
        """Note that the call found no connection."""
        with self._lock:
            self._cause = cause
            self._next_probe = now + _PROBE_PAUSE
            if self._probe is call:
                self._probe = None

    def reached(self) -> None:
        """Note that a call reached the authority."""
        self.was_reached = True
        if self._cause:
            with self._lock:
                self._cause, self._probe = "", None

    def leave(self, call: object) -> None:
        """Note that the call has ended. If it was the probe, another call may be the next one."""
        if self._probe is call:
            with self._lock:
                if self._probe is call:
                    self._probe = None
