"""The size limit of the kept answers, and which ones are deleted when they exceed it. Shared by every engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sessiond.store.contract import Changes
from sessiond.store.rows import Row

__all__ = ["AnswerBudget", "AnswerDeletion"]

_ROW_BYTES = 200  # the size of one answer in table and index, without its message
_DEFAULT_DELETES = 1_000
_SOON = 600_000
"""Milliseconds. Answers that expire within this time are not deleted early: a retried login's is kept for a minute."""


class AnswerBudget:
    """Tracks how many bytes the kept answers take, `used`, of the `limit` that is allowed.

    A commit that stores answers deletes up to twice as many expired ones, so that deletion keeps up with storing.
    While the limit is exceeded, it also deletes answers that have not expired, the earliest to expire first.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def load(self, row: Row) -> None:
        """Set the bytes in use from the result of `measure_answers`."""
        self.used = row["size"] + row["count"] * _ROW_BYTES

    def for_changes(self, changes: Changes) -> AnswerDeletion | None:
        """Return the deletions that the commit of `changes` has to make; None if there are none."""
        return None if changes.forget is None else AnswerDeletion(self, changes, changes.forget)


class AnswerDeletion:
    """The deletion of kept answers in one transaction: run `delete_expired_answers`, then `evict_answers` if needed."""

    def __init__(self, budget: AnswerBudget, changes: Changes, now: int) -> None:
        self._budget = budget
        self._max_deletes = 2 * len(changes.answers) or _DEFAULT_DELETES
        self._added = sum(len(answer.sealed) + _ROW_BYTES for answer in changes.answers)
        self._freed = 0
        self.expired: Mapping[str, int] = {"now": now, "limit": self._max_deletes}
        """The parameters of `delete_expired_answers`."""
        self.early: Mapping[str, int] = {"soon": now + _SOON, "limit": self._max_deletes}
        """The parameters of `evict_answers`."""

    @property
    def exceeds(self) -> bool:
        """Return whether the answers that are left exceed the limit, so that `evict_answers` is needed."""
        return self._used() > self._budget.limit

    def deleted(self, rows: Iterable[Row]) -> None:
        """Take the rows that one of the two statements has returned into account."""
        self._freed += sum(row["size"] + _ROW_BYTES for row in rows)

    def done(self) -> None:
        """Update the budget. Call this after the transaction has been committed."""
        self._budget.used = self._used()

    def _used(self) -> int:
        return max(0, self._budget.used + self._added - self._freed)
