"""The reads of a store, shared by every engine. An engine says how to run one of the named statements."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sessiond.crypto.session_data import DataCipher
from sessiond.domain.access import CallerRecord
from sessiond.domain.errors import DataUnreadable
from sessiond.domain.event import Event
from sessiond.domain.key_ring import KeyHolder, SealingKey
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Session
from sessiond.domain.values import Instant, Millis, Revision, SessionId, VersionedData
from sessiond.store.contract import DataWalk, Head, KeptAnswer, Live, Place, TokenAge
from sessiond.store.listing import listing, walk_end
from sessiond.store.rows import Row, answer_from_row, caller_from_row, event_from_row, key_from_row, session_from_row
from sessiond.store.sealed_data import SealedValues

__all__ = ["StoreReads", "TransactionReads"]

_MAX_REVISION = 2**63 - 1


class StoreReads(ABC):
    """The reads of `Store`, each of which is one statement."""

    _walked_application: str
    """The expression for `application` that keeps the engine's planner on the primary key during a scan."""

    def __init__(self) -> None:
        self._cipher: DataCipher | None = None
        # Lists run one at a time, so that no other call waits for more than one of them.
        self._list_lock = asyncio.Lock()

    @abstractmethod
    async def _query(self, name: str, values: Mapping[str, Any], **texts: str) -> Sequence[Row]:
        """Run the statement of that name, with its {braces} replaced by `texts`, and return its rows."""

    @abstractmethod
    async def _by_keys(self, name: str, keys: Sequence[bytes]) -> Sequence[Row]:
        """Run a statement that finds rows {among} keys, and return its rows."""

    async def session(self, session_id: SessionId) -> Session | None:
        """See `Store`."""
        rows = await self._by_keys("get_sessions", [bytes(session_id)])
        return session_from_row(rows[0]) if rows else None

    async def sessions(self, query: SessionQuery) -> list[Session]:
        """See `Store`."""
        wanted = listing(query)
        async with self._list_lock:
            rows = await self._query(
                wanted.name, wanted.values, conditions=wanted.conditions, application=self._walked_application
            )
        return [session_from_row(row) for row in rows]

    async def walk_end(self, query: SessionQuery, rows: int) -> SessionId | None:
        """See `Store`."""
        wanted = walk_end(query, rows)
        async with self._list_lock:
            found = await self._query(wanted.name, wanted.values)
        return SessionId(found[0]["session_id"]) if found else None

    async def data(self, session_id: SessionId) -> VersionedData:
        """See `Store`."""
        rows = await self._query("read_data", {"session_id": bytes(session_id)})
        values = SealedValues(self._cipher, session_id, [row for row in rows if row["key"] is not None])
        return VersionedData(values, rows[0]["data_version"] if rows else 0)

    async def due(self, now: Instant, limit: int) -> list[SessionId]:
        """See `Store`."""
        return _ids(await self._query("due_sessions", {"now": now, "limit": limit}))

    async def prunable(self, now: Instant, limit: int) -> list[SessionId]:
        """See `Store`."""
        return _ids(await self._query("prunable_sessions", {"now": now, "limit": limit}))

    async def horizon_for(self, before: Instant, limit: int) -> Revision | None:
        """See `Store`."""
        horizon = None
        for row in await self._query("oldest_events", {"limit": limit}):
            if row["at"] >= before:
                break
            horizon = Revision(row["revision"])
        return horizon

    async def events(self, after: Revision, limit: int) -> list[Event]:
        """See `Store`."""
        return [event_from_row(row) for row in await self._query("read_events", {"after": after, "limit": limit})]

    async def activity(self, application: str, subject: str, before: Revision | None, limit: int) -> list[Event]:
        """See `Store`."""
        values = {
            "application": application,
            "subject": subject,
            "before": _MAX_REVISION if before is None else before,
            "limit": limit,
        }
        return [event_from_row(row) for row in await self._query("read_activity", values)]

    async def callers(self) -> Sequence[CallerRecord]:
        """See `Store`."""
        return [caller_from_row(row) for row in await self._query("read_callers", {})]

    async def keys(self) -> Sequence[SealingKey]:
        """See `Store`."""
        return [key_from_row(row) for row in await self._query("read_keys", {})]

    async def data_marks(self, after: Place, limit: int) -> tuple[Mapping[bytes, int], Place | None]:
        """See `Store`."""
        rows = await self._query("walk_data", {"session_id": after[0], "key": after[1], "limit": limit})
        return _marks(rows), _place_of(rows[-1]) if len(rows) == limit else None

    async def token_ages(self, after: SessionId, before: SessionId, limit: int) -> Sequence[TokenAge]:
        """See `Store`."""
        values = {"after": bytes(after), "before": bytes(before), "limit": limit}
        return [_token_age(row) for row in await self._query("walk_tokens", values)]


class TransactionReads(ABC):
    """The reads of `Transaction`."""

    def __init__(self, cipher: DataCipher | None, head: Head) -> None:
        self._cipher = cipher
        self.head = head

    @abstractmethod
    async def _query(self, name: str, values: Mapping[str, Any]) -> Sequence[Row]:
        """Run the statement of that name in the transaction, and return its rows."""

    @abstractmethod
    async def _by_keys(self, name: str, keys: Sequence[bytes]) -> Sequence[Row]:
        """Run a statement that finds rows {among} keys in the transaction, and return its rows."""

    async def sessions(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Session]:
        """See `Transaction`."""
        rows = await self._by_keys("get_sessions", [bytes(session_id) for session_id in ids])
        return {session.id: session for session in map(session_from_row, rows)}

    async def data(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Mapping[str, bytes]]:
        """See `Transaction`. Reading a value from the returned mapping may raise `DataUnreadable`."""
        found: dict[SessionId, list[Row]] = {}
        for row in await self._by_keys("get_data", [bytes(session_id) for session_id in ids]):
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
                (row,) = await self._query("count_live_sessions", values)
                newest = await self._sessions("newest_live_sessions", values)
                both = {session.id: session for session in (*sessions[:most], *reversed(newest[:most]))}
                sessions, count = list(both.values()), row["count"]
            found[application, subject] = Live(sessions, count)
        return found

    async def answers(self, keys: Sequence[bytes]) -> Mapping[bytes, KeptAnswer]:
        """See `Transaction`."""
        return {answer.key: answer for answer in map(answer_from_row, await self._by_keys("get_answers", keys))}

    async def callers(self) -> Sequence[CallerRecord]:
        """See `Transaction`."""
        return [caller_from_row(row) for row in await self._query("read_callers", {})]

    async def keys(self) -> Sequence[SealingKey]:
        """See `Transaction`."""
        return [key_from_row(row) for row in await self._query("read_keys", {})]

    async def holders(self) -> Sequence[KeyHolder]:
        """See `Transaction`. No other process: an engine that several share overrides this."""
        return ()

    async def walk_data(self, after: Place, rows: int, size: int) -> DataWalk:
        """See `Transaction`."""
        found = await self._query("walk_data", {"session_id": after[0], "key": after[1], "limit": rows})
        part, total, cipher = list[Row](), 0, self._cipher
        current = b"" if cipher is None else cipher.marks()[0]
        stale, marks = dict[SessionId, dict[str, bytes]](), dict[bytes, int]()
        for row in found:
            part.append(row)
            if cipher is None or not _is_stale(row, current, encrypts=cipher.encrypts):
                continue
            session_id, key = SessionId(row["session_id"]), row["key"]
            values = await self._query("get_value", {"session_id": row["session_id"], "key": key})
            try:
                stale.setdefault(session_id, {})[key] = SealedValues(cipher, session_id, values)[key]
            except (DataUnreadable, KeyError):
                continue  # no key of the ring opens it, so none of them has to stay for it
            mark = row["mark"] if row["sealed"] else b""
            marks[mark] = marks.get(mark, 0) + 1
            total += row["size"]
            if total >= size:
                break
        is_last = len(part) == len(found) < rows
        return DataWalk(_marks(part), stale, marks, None if is_last else _place_of(part[-1]))

    async def walk_answers(self, after: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        """See `Transaction`."""
        rows = await self._query("walk_answers", {"after": after, "limit": limit})
        return [(row["answer_key"], row["sealed"]) for row in rows]

    async def _sessions(self, name: str, values: Mapping[str, Any]) -> list[Session]:
        return [session_from_row(row) for row in await self._query(name, values)]


def _is_stale(row: Row, current: bytes, *, encrypts: bool) -> bool:
    """Return whether a value should be sealed under the key with the mark `current`, and is not."""
    return bool(row["mark"] != current) if row["sealed"] else encrypts


def _marks(rows: Iterable[Row]) -> Mapping[bytes, int]:
    return Counter(row["mark"] if row["sealed"] else b"" for row in rows)


def _place_of(row: Row) -> Place:
    return row["session_id"], row["key"]


def _token_age(row: Row) -> TokenAge:
    idle = None if row["idle_deadline"] is None else Millis(row["idle_deadline"] - row["last_active"])
    return TokenAge(
        SessionId(row["session_id"]),
        ended=row["ended_at"] is not None,
        began=Instant(row["generation_began"]),
        rolled=row["rolled_at"] == row["generation_began"],
        idle=idle,
        absolute_deadline=row["absolute_deadline"],
    )


def _ids(rows: Iterable[Row]) -> list[SessionId]:
    return [SessionId(row["session_id"]) for row in rows]
