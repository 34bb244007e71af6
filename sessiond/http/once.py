"""Warnings that do not fill the log: a proxy with a mistake asks about every request."""

from __future__ import annotations

import asyncio

__all__ = ["OnceAMinute"]

_WINDOW, _MOST_REASONS = 60.0, 100


class OnceAMinute:
    """Lets each reason through once in a minute, and at most 100 of them."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()

    def is_new(self, reason: str) -> bool:
        """Return whether this reason is to be logged now."""
        if reason in self._reasons or len(self._reasons) >= _MOST_REASONS:
            return False
        if not self._reasons:
            asyncio.get_running_loop().call_later(_WINDOW, self._reasons.clear)
        self._reasons.add(reason)
        return True
