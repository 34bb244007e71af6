"""The statements that apply a set of changes, shared by every engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sessiond.crypto.session_data import DataCipher
from sessiond.domain.values import SessionId
from sessiond.store.contract import Changes, Head
from sessiond.store.rows import activity_row, answer_row, caller_row, event_row, key_row, session_row
from sessiond.store.sealed_data import value_row
from sessiond.store.statements import Statements, insertions

__all__ = ["Write", "Writes"]

_ROWS_PER_STATEMENT = 64


class Write(NamedTuple):
    """One statement, to be run once for each tuple of parameters."""

    sql: str
    parameters: list[tuple[Any, ...]]


class Writes:
    """The statements that apply a set of changes, and the log's head afterwards. False if there is nothing to do.

    Deleting expired answers is not among them, because how much to delete is the engine's decision.
    """

    def __init__(self, changes: Changes, cipher: DataCipher | None, head: Head, statements: Statements) -> None:
        self.head = head
        self._named = statements
        self._writes: list[Write] = []
        self._moved(changes, cipher)
        self._sessions(changes)
        self._data(changes, cipher)
        # Two units may keep an answer under the same key: the later one counts.
        self._insert("keep_answer", map(answer_row, {answer.key: answer for answer in changes.answers}.values()))
        self._among("prune_sessions", changes.pruned)
        self._among("prune_labels", changes.pruned)
        self._callers(changes)
        self._keys(changes)
        self._log(changes)

    def __bool__(self) -> bool:
        return bool(self._writes)

    def __iter__(self) -> Iterator[Write]:
        return iter(self._writes)

    def _sessions(self, changes: Changes) -> None:
        sessions = changes.sessions.values()
        self._insert("put_session", (session_row(s, changes.retention.get(s.id)) for s in sessions))
        self._insert(
            "put_label",
            (
                {"session_id": bytes(s.id), "key": key, "value": value, "application": s.application}
                for s in sessions
                for key, value in s.labels
            ),
        )
        # In the order of their ids: two replicas that touch the same sessions must not wait for each other.
        self._many("touch_session", map(activity_row, sorted(changes.activity.values(), key=lambda a: a.session_id)))

    def _data(self, changes: Changes, cipher: DataCipher | None) -> None:
        cells = [(i, key, value) for i, keys in changes.data.items() for key, value in keys.items()]
        self._insert("set_data", (value_row(cipher, i, k, v) for i, k, v in cells if v is not None))
        self._many("delete_data", ({"session_id": bytes(i), "key": k} for i, k, v in cells if v is None))
        self._among("delete_all_data", [s.id for s in changes.sessions.values() if s.ending is not None])

    def _callers(self, changes: Changes) -> None:
        self._many("delete_caller", ({"name": name} for name in changes.callers))
        self._many("put_caller", (caller_row(caller) for caller in changes.callers.values() if caller is not None))

    def _keys(self, changes: Changes) -> None:
        if changes.keys is not None:
            self._many("delete_keys", [{}])
            self._many("put_key", (key_row(number, key) for number, key in enumerate(changes.keys)))

    def _moved(self, changes: Changes, cipher: DataCipher | None) -> None:
        """Store values and answers again. This precedes everything else, so that other changes of them count."""
        moved = changes.moved
        if moved is None or cipher is None:
            return
        cells = [(i, key, value) for i, values in moved.data.items() for key, value in values.items()]
        self._many("reseal_data", (value_row(cipher, i, key, value, sealed=True) for i, key, value in cells))
        self._many("reseal_answer", ({"key": key, "sealed": sealed} for key, sealed in moved.answers.items()))
        self._many("count_moved", ({"fingerprint": f, "count": count} for f, count in moved.counts.items()))

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

    def _among(self, name: str, ids: Sequence[SessionId]) -> None:
        """Run a statement about rows {among} ids."""
        for statement, parameters in self._named[name].among([bytes(session_id) for session_id in ids]):
            self._writes.append(Write(statement.sql, [parameters]))

    def _many(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        statement = self._named[name]
        rows = [statement.bind(row) for row in values]
        if rows:
            self._writes.append(Write(statement.sql, rows))

    def _insert(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows, several with each statement. The columns of a row must be in the statement's order.

        Fewer statements mean fewer round trips, and in SQLite fewer times that Python releases the GIL and then
        competes with the event loop's thread to acquire it again.
        """
        rows = [tuple(row.values()) for row in values]
        for sql, parameters in insertions(self._named[name], rows, _ROWS_PER_STATEMENT):
            self._writes.append(Write(sql, [parameters]))
