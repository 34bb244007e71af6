"""One run of a write: its reads, and the statements that apply its changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from sessiond.crypto.session_data import DataCipher
from sessiond.domain.session import Session
from sessiond.domain.values import SessionId
from sessiond.store.contract import Changes, Head, KeptAnswer, Live
from sessiond.store.rows import activity_row, answer_from_row, answer_row, event_row, session_from_row, session_row
from sessiond.store.sealed_data import SealedValues, value_row
from sessiond.store.sqlite.answers import AnswerBudget
from sessiond.store.sqlite.connection import Connection
from sessiond.store.statements import STATEMENTS

__all__ = ["SqliteTransaction", "Writes"]

_IDS_PER_STATEMENT = 500
_ROWS_PER_STATEMENT = 64


@lru_cache(maxsize=64)
def _inserts(name: str, count: int) -> str:
    return STATEMENTS[name].times(count)


class SqliteTransaction:
    """See `Transaction`.

    The store's connection lock and the exclusive lock on the file exclude other writers from the first read on. So
    the SQLite transaction begins only when all changes are known.
    """

    def __init__(self, db: Connection, cipher: DataCipher | None, head: Head) -> None:
        self._db = db
        self._cipher = cipher
        self.head = head

    async def sessions(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Session]:
        """See `Transaction`."""
        rows = await self._by_ids("get_sessions", ids)
        return {session.id: session for session in map(session_from_row, rows)}

    async def data(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Mapping[str, bytes]]:
        """See `Transaction`. Reading a value from the returned mapping may raise `DataUnreadable`."""
        found: dict[SessionId, list[sqlite3.Row]] = {}
        for row in await self._by_ids("get_data", ids):
            found.setdefault(SessionId(row["session_id"]), []).append(row)
        return {session_id: SealedValues(self._cipher, session_id, rows) for session_id, rows in found.items()}

    async def live_sessions(self, subjects: Sequence[tuple[str, str]], most: int) -> Mapping[tuple[str, str], Live]:
        """See `Transaction`."""
        found: dict[tuple[str, str], Live] = {}
        for application, subject in subjects:
            values = {"application": application, "subject": subject, "limit": most + 1}
            sessions = await self._sessions("oldest_live_sessions", values)
            count = len(sessions)
            if count > most:
                (row,) = await self._all("count_live_sessions", values)
                newest = await self._sessions("newest_live_sessions", values)
                both = {session.id: session for session in (*sessions[:most], *reversed(newest[:most]))}
                sessions, count = list(both.values()), row["count"]
            found[application, subject] = Live(sessions, count)
        return found

    async def _sessions(self, name: str, values: Mapping[str, Any]) -> list[Session]:
        return [session_from_row(row) for row in await self._all(name, values)]

    async def _all(self, name: str, values: Mapping[str, Any]) -> list[sqlite3.Row]:
        statement = STATEMENTS[name]
        return await self._db.all(statement.sql, statement.bind(values))

    async def answers(self, keys: Sequence[bytes]) -> Mapping[bytes, KeptAnswer]:
        """See `Transaction`."""
        return {answer.key: answer for answer in map(answer_from_row, await self._by_ids("get_answers", keys))}

    async def _by_ids(self, name: str, ids: Sequence[bytes]) -> list[sqlite3.Row]:
        rows: list[sqlite3.Row] = []
        for start in range(0, len(ids), _IDS_PER_STATEMENT):
            some = tuple(bytes(session_id) for session_id in ids[start : start + _IDS_PER_STATEMENT])
            statement = STATEMENTS[name].fill(ids=", ".join("?" * len(some)))
            rows += await self._db.all(statement.sql, some)
        return rows


class Writes:
    """The statements that apply a set of changes, and the log's head afterwards. False if there is nothing to do."""

    def __init__(self, changes: Changes, cipher: DataCipher | None, head: Head, answers: AnswerBudget) -> None:
        self.head = head
        self._statements: list[tuple[str, list[tuple[Any, ...]]]] = []
        self._sessions(changes)
        self._data(changes, cipher)
        self._many("keep_answer", map(answer_row, changes.answers))
        self._answers = answers.for_changes(changes)
        self._many("prune_session", ({"session_id": bytes(i)} for i in changes.pruned))
        self._many("prune_labels", ({"session_id": bytes(i)} for i in changes.pruned))
        self._log(changes)

    def __bool__(self) -> bool:
        return bool(self._statements) or self._answers is not None

    def carry_out(self, connection: sqlite3.Connection) -> None:
        """Run all statements in one transaction and commit it durably."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in self._statements:
                connection.executemany(sql, rows)
            if self._answers is not None:
                self._answers.carry_out(connection)
        except BaseException:
            # SQLite rolls back by itself if the disk is full; a second ROLLBACK would hide that error.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        if self._answers is not None:
            self._answers.done()

    def _sessions(self, changes: Changes) -> None:
        sessions = changes.sessions.values()
        self._insert("put_session", (session_row(s, changes.retention.get(s.id)) for s in sessions))
        self._many(
            "put_label",
            (
                {"session_id": bytes(s.id), "key": key, "value": value, "application": s.application}
                for s in sessions
                for key, value in s.labels
            ),
        )
        self._many("touch_session", map(activity_row, changes.activity.values()))

    def _data(self, changes: Changes, cipher: DataCipher | None) -> None:
        cells = [(i, key, value) for i, keys in changes.data.items() for key, value in keys.items()]
        self._many("set_data", (value_row(cipher, i, k, v) for i, k, v in cells if v is not None))
        self._many("delete_data", ({"session_id": bytes(i), "key": k} for i, k, v in cells if v is None))
        ended = [s.id for s in changes.sessions.values() if s.ending is not None]
        self._many("delete_all_data", ({"session_id": bytes(i)} for i in ended))

    def _log(self, changes: Changes) -> None:
        self._insert("append_event", map(event_row, changes.events))
        revision, horizon = self.head.revision, self.head.horizon
        if changes.events:
            revision = changes.events[-1].revision
            self._many("move_head", [{"revision": revision}])
        if changes.horizon is not None and changes.horizon > horizon:
            horizon = changes.horizon
            self._many("move_horizon", [{"horizon": horizon}])
            self._many("delete_events", [{"horizon": horizon}])
        self.head = Head(revision, horizon)

    def _many(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        statement = STATEMENTS[name]
        rows = [statement.bind(row) for row in values]
        if rows:
            self._statements.append((statement.sql, rows))

    def _insert(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows, several with each statement. The columns of a row must be in the statement's order.

        Python releases the GIL once for each statement, and then competes with the event loop's thread to acquire it
        again; fewer statements mean fewer such waits. Sizes are powers of two, so that few statements are prepared.
        """
        rows = [tuple(row.values()) for row in values]
        size = _ROWS_PER_STATEMENT
        while rows:
            if len(rows) < size:
                size //= 2
                continue
            flat = tuple(chain.from_iterable(rows[:size]))
            self._statements.append((_inserts(name, size), [flat]))
            rows = rows[size:]
