"""The lease: until when this process may answer from its cache."""

from __future__ import annotations

from collections.abc import Callable

from sessiond.domain.values import Millis

__all__ = ["Lease"]

_DRIFT = 50
"""The lease is shortened by one part in `_DRIFT`, because the clocks of two machines do not run at the same speed."""


class Lease:
    """A lease that counts from before its renewal was sent, so that it ends here before it ends for everybody else.

    `passed` returns milliseconds of a clock that never goes backwards and that also runs while the process is stopped.
    """

    def __init__(self, passed: Callable[[], int]) -> None:
        self._passed = passed
        self._until = 0

    def is_valid(self) -> bool:
        """Return whether the lease has not run out."""
        return self._passed() < self._until

    def extend(self, sent: int, duration: Millis) -> None:
        """Extend the lease to `duration` after `sent`, the time before the renewal was sent."""
        self._until = max(self._until, sent + duration - duration // _DRIFT)

    def end(self) -> None:
        """End the lease now."""
        self._until = 0
