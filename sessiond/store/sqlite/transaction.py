"""One run of a write: its reads, and the transaction that applies its changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from sessiond.crypto.session_data import DataCipher
from sessiond.store.answers import AnswerBudget, AnswerDeletion
from sessiond.store.contract import Changes, Head
from sessiond.store.reads import TransactionReads
from sessiond.store.sqlite.connection import Connection
from sessiond.store.statements import STATEMENTS, ParameterStyle
from sessiond.store.writes import Writes

__all__ = ["SqliteTransaction", "SqliteWrites", "read_by_keys"]

_STATEMENTS = STATEMENTS[ParameterStyle.QUESTION_MARK]


async def read_by_keys(db: Connection, name: str, keys: Sequence[bytes]) -> list[sqlite3.Row]:
    """Run a statement that finds rows {among} keys, and return its rows."""
    rows: list[sqlite3.Row] = []
    for statement, parameters in _STATEMENTS[name].among(keys):
        rows += await db.all(statement.sql, parameters)
    return rows


class SqliteTransaction(TransactionReads):
    """See `Transaction`.

    The store's connection lock and the exclusive lock on the file exclude other writers from the first read on. So
    the SQLite transaction begins only when all changes are known.
    """

    def __init__(self, db: Connection, cipher: DataCipher | None, head: Head) -> None:
        super().__init__(cipher, head)
        self._db = db

    async def _query(self, name: str, values: Mapping[str, Any]) -> list[sqlite3.Row]:
        statement = _STATEMENTS[name]
        return await self._db.all(statement.sql, statement.bind(values))

    async def _by_keys(self, name: str, keys: Sequence[bytes]) -> list[sqlite3.Row]:
        return await read_by_keys(self._db, name, keys)


class SqliteWrites:
    """The transaction that applies a set of changes. False if there is nothing to do."""

    def __init__(self, changes: Changes, cipher: DataCipher | None, head: Head, answers: AnswerBudget) -> None:
        self._writes = Writes(changes, cipher, head, _STATEMENTS)
        self._answers = answers.for_changes(changes)
        self.head = self._writes.head

    def __bool__(self) -> bool:
        return bool(self._writes) or self._answers is not None

    def carry_out(self, connection: sqlite3.Connection) -> None:
        """Run all statements in one transaction and commit it durably."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in self._writes:
                connection.executemany(sql, rows)
            if self._answers is not None:
                _delete_answers(connection, self._answers)
        except BaseException:
            # SQLite rolls back by itself if the disk is full; a second ROLLBACK would hide that error.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        if self._answers is not None:
            self._answers.done()


def _delete_answers(connection: sqlite3.Connection, answers: AnswerDeletion) -> None:
    def delete(name: str, values: Mapping[str, int]) -> None:
        statement = _STATEMENTS[name]
        answers.deleted(connection.execute(statement.sql, statement.bind(values)).fetchall())

    delete("delete_expired_answers", answers.expired)
    if answers.exceeds:
        delete("evict_answers", answers.early)
