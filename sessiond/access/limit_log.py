"""Logs limits on calls that were reached: one line for each caller and minute, with the number of refused calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

__all__ = ["LimitLog"]

_WINDOW = 60.0
"""Seconds."""
_MAX_LINES = 60
"""Callers that have lines of their own in a window. Without callers, every connection is one."""

_log = structlog.get_logger(__name__)


class LimitLog:
    """Counts refused calls. `call_later` schedules a function after a number of seconds; None: nothing is logged.

    The first refusal of a caller in a minute is logged at once, and at its end how many there were.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object] | None = None) -> None:
        self._call_later = call_later
        self._counts: Counter[tuple[str, str]] = Counter()
        self._others = 0
        self.totals: Counter[str] = Counter()
        """How many calls were refused because of each setting, since the start."""

    def refused(self, who: str, setting: str) -> None:
        """Note that a call of a caller, or about an application, was refused because of a setting."""
        self.totals[setting] += 1
        if self._call_later is None:
            return
        if not self._counts:
            self._call_later(_WINDOW, self.end_window)
        key = (who, setting)
        if key not in self._counts:
            if len(self._counts) >= _MAX_LINES:
                self._others += 1
                return
            _write("limit reached", caller=who, setting=setting, effect="further calls are refused for a while")
        self._counts[key] += 1

    def end_window(self) -> None:
        """Log how many calls were refused, and start a new window."""
        for (who, setting), count in self._counts.items():
            if count > 1:
                _write("limit reached: refused calls", caller=who, setting=setting, refused=count, seconds=_WINDOW)
        if self._others:
            _write("limit reached: refused calls", caller="others", refused=self._others, seconds=_WINDOW)
        self._counts.clear()
        self._others = 0


def _write(what: str, **facts: Any) -> None:
    with suppress(OSError, ValueError):  # standard error is gone, or its disk is full
        _log.warning(what, **facts)
