"""Failures of ours: unexpected exceptions. The log has each with its traceback, and metrics have their number."""

from __future__ import annotations

from itertools import count
from typing import Any

__all__ = ["failures", "log_failure"]

_begun = count(1)
_latest = 0


def log_failure(log: Any, event: str, error: BaseException | None = None, **facts: object) -> None:
    """Log an unexpected exception, and count it. `log` is structlog's; `error` None: the one that is being handled."""
    global _latest  # noqa: PLW0603 - one process, one number
    _latest = next(_begun)
    log.error(event, exc_info=error or True, **facts)


def failures() -> int:
    """Return how many failures this process has had."""
    return _latest
