"""What this process has seen of the log, from which it notices that the database was set back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg

from sessiond.domain.position import Incarnation
from sessiond.domain.values import NO_REVISION, Revision

__all__ = ["KnownLog"]


class KnownLog:
    """The current incarnation of the log, and its newest revision that this process has seen.

    `on_change` is called with all incarnations when a new one has begun. A row is one of the log's head.
    """

    def __init__(self, on_change: Callable[[Sequence[Incarnation]], None]) -> None:
        self._on_change = on_change
        self._current: tuple[Any, ...] | None = None
        self._newest = NO_REVISION

    @property
    def newest(self) -> Revision:
        """Return the newest revision seen; the head is at least there as long as nothing is lost."""
        return self._newest

    def is_current(self, row: asyncpg.Record) -> bool:
        """Return whether the incarnation is the one that this process knows."""
        return _incarnation(row) == self._current

    def is_set_back(self, row: asyncpg.Record, newest: Revision) -> bool:
        """Return whether the log may have lost its end, so that a new incarnation must begin.

        That is the case if the server was replaced or started again, or if the head is before `newest`, which was read
        before the row.
        """
        return row["lineage"] != row["lineage_now"] or (self.is_current(row) and row["revision"] < newest)

    def enter(self, row: asyncpg.Record, incarnations: Sequence[Incarnation]) -> None:
        """Go on in a new incarnation."""
        self._current = _incarnation(row)
        self._newest = Revision(row["revision"])
        self._on_change(incarnations)

    def saw(self, row: asyncpg.Record, revision: Revision | None = None) -> None:
        """Remember the revision of a row, or a later one that was committed on top of it."""
        if self.is_current(row):
            self._newest = max(self._newest, Revision(row["revision"] if revision is None else revision))


def _incarnation(row: asyncpg.Record) -> tuple[Any, ...]:
    # The number alone is not enough: after a part of the log was lost, the next incarnation may have the same one.
    return row["incarnation"], row["incarnation_began"]
