"""The size limit of the kept answers, and which ones are deleted when they exceed it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from sessiond.store.contract import Changes
from sessiond.store.rows import Row
from sessiond.store.statements import STATEMENTS

__all__ = ["AnswerBudget"]

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
        """Set the bytes in use from the result of `measure_answers`, when the database is opened."""
        self.used = row["size"] + row["count"] * _ROW_BYTES

    def for_changes(self, changes: Changes) -> AnswerChanges | None:
        """Return the deletions that the commit of `changes` has to make; None if there are none."""
        return None if changes.forget is None else AnswerChanges(self, changes)


class AnswerChanges:
    """The deletion of kept answers in one transaction."""

    def __init__(self, budget: AnswerBudget, changes: Changes) -> None:
        self._budget = budget
        self._now = changes.forget
        self._max_deletes = 2 * len(changes.answers) or _DEFAULT_DELETES
        self._added = sum(len(answer.sealed) + _ROW_BYTES for answer in changes.answers)
        self._freed = 0

    def carry_out(self, connection: sqlite3.Connection) -> None:
        """Delete expired answers, and others if the limit is exceeded."""
        self._freed = self._delete(connection, "delete_expired_answers", {"now": self._now, "limit": self._max_deletes})
        if self._used() > self._budget.limit and self._now is not None:
            values = {"soon": self._now + _SOON, "limit": self._max_deletes}
            self._freed += self._delete(connection, "evict_answers", values)

    def done(self) -> None:
        """Update the budget. Call this after the transaction has been committed."""
        self._budget.used = self._used()

    def _used(self) -> int:
        return max(0, self._budget.used + self._added - self._freed)

    @staticmethod
    def _delete(connection: sqlite3.Connection, name: str, values: Mapping[str, int | None]) -> int:
        statement = STATEMENTS[name]
        rows = connection.execute(statement.sql, statement.bind(values)).fetchall()
        return sum(row["size"] + _ROW_BYTES for row in rows)
