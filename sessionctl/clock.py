"""The wall clock of the operator's machine, for relative times. The only module of sessionctl that reads it."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["now"]


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)
