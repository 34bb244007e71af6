"""Kept answers: how much they may take, and what goes if they take more."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from sessiond.store.contract import Changes
from sessiond.store.rows import Row
from sessiond.store.statements import STATEMENTS

__all__ = ["AnswerBudget"]

_ROW_BYTES = 200  # what one takes in table and index beside its message
_AT_ONCE = 1_000
_SOON = 600_000
"""Milliseconds. What expires within them goes by itself: answers to repeated logins are kept for a minute."""


class AnswerBudget:
    """How many bytes the kept answers take, of how many that they may take.

    Each commit that keeps some drops twice as many that have expired, so that they cannot outrun the clearing. While
    there is too much it also drops the ones that would be next.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    def weigh(self, found: Row) -> None:
        """Take in what the database holds when it is opened."""
        self.taken = found["size"] + found["count"] * _ROW_BYTES

    def for_changes(self, changes: Changes) -> AnswerChanges | None:
        """What one commit does about kept answers beside keeping its own; None: nothing."""
        return None if changes.forget is None else AnswerChanges(self, changes)


class AnswerChanges:
    """The clearing of kept answers in one transaction."""

    def __init__(self, budget: AnswerBudget, changes: Changes) -> None:
        self._budget = budget
        self._now = changes.forget
        self._limit = 2 * len(changes.answers) or _AT_ONCE
        self._added = sum(len(answer.sealed) + _ROW_BYTES for answer in changes.answers)
        self._freed = 0

    def carry_out(self, connection: sqlite3.Connection) -> None:
        """Drop what has expired, and what is too much."""
        self._freed = self._drop(connection, "forget_answers", {"now": self._now, "limit": self._limit})
        if self._taken() > self._budget.most and self._now is not None:
            values = {"soon": self._now + _SOON, "limit": self._limit}
            self._freed += self._drop(connection, "drop_answers", values)

    def done(self) -> None:
        """The transaction has been committed."""
        self._budget.taken = self._taken()

    def _taken(self) -> int:
        return max(0, self._budget.taken + self._added - self._freed)

    @staticmethod
    def _drop(connection: sqlite3.Connection, name: str, values: Mapping[str, int | None]) -> int:
        statement = STATEMENTS[name]
        rows = connection.execute(statement.sql, statement.bind(values)).fetchall()
        return sum(row["size"] + _ROW_BYTES for row in rows)
