"""The stores' contract. Docstrings say what every store must keep; `tests/contracts` holds each store to them.

A store knows rows, everything above it knows domain values: only those travel through here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sessiond.domain.errors import Unavailable
from sessiond.domain.event import Event
from sessiond.domain.immutable import immutable
from sessiond.domain.position import Incarnation
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Activity, Session
from sessiond.domain.values import Instant, Millis, Revision, SessionId, VersionedData

__all__ = [
    "ANY_GENERATION",
    "Changes",
    "Commit",
    "Decision",
    "Head",
    "KeptAnswer",
    "Live",
    "Store",
    "StoreFailed",
    "StoreHeld",
    "StoreRefused",
    "StoreUnavailable",
    "Transaction",
]

T = TypeVar("T")


class StoreRefused(Exception):
    """The store cannot be opened as it is: the text says why and what to do. Nothing was changed."""


class StoreHeld(StoreRefused):
    """Another process holds the store: the text names it. It can be opened once that process has stopped."""


class StoreUnavailable(Unavailable):
    """The store does not answer now and may soon. Of a write nobody can know whether it was carried out."""

    @property
    def public(self) -> str:
        """Says nothing about where the store is."""
        return "the store does not answer; whether a change was made is unknown"


class StoreFailed(Unavailable):
    """The store broke (I/O error, disk full). What was acknowledged is safe; what was not is unknown. Fatal."""

    @property
    def public(self) -> str:
        """Says nothing about where the store is."""
        return "the store failed; the authority is stopping"


@immutable
class Head:
    """Where the log stands: its newest revision (0 when empty), and the oldest revision that can be resumed from."""

    revision: Revision
    horizon: Revision


@immutable
class KeptAnswer:
    """The first answer to a call that may be repeated.

    key         32 bytes: a digest of the caller's secret id for the call
    parameters  32 bytes: a digest of the call's other fields
    sealed      the answer, sealed under a key that only the id gives: without it nobody can read the token in it
    session_id  the session that the answer is about, if it counts only while that session lives; None: it always counts
    generation  the answer counts only while that session is at this generation; `ANY_GENERATION`: at whichever
    """

    key: bytes
    parameters: bytes
    sealed: bytes = field(repr=False)
    expires: Instant
    session_id: SessionId | None = None
    generation: int = 0


ANY_GENERATION = -1
"""Of a kept answer that counts while its session lives, however often its token is replaced."""


@dataclass(slots=True)
class Changes:
    """What one transaction writes. Filled by units of work, carried out by `Transaction.write`.

    sessions   rows as they are to be, new ones included
    activity   per session its last activity
    data       per session what to set (bytes) and what to delete (None)
    retention  per ended session how long its history is kept
    events     numbered, following the head without a gap
    answers    first answers to calls with a request id, and used tickets
    forget     answers that expired at or before this time are dropped, some at a time; None: none
    pruned     ended sessions whose history is dropped
    horizon    events up to and including this revision are dropped; None: none
    """

    sessions: dict[SessionId, Session] = field(default_factory=dict)
    activity: dict[SessionId, Activity] = field(default_factory=dict)
    data: dict[SessionId, dict[str, bytes | None]] = field(default_factory=dict)
    retention: dict[SessionId, Millis] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    answers: list[KeptAnswer] = field(default_factory=list)
    forget: Instant | None = None
    pruned: list[SessionId] = field(default_factory=list)
    horizon: Revision | None = None

    def merge(self, other: Changes) -> None:
        """Add what a later unit of the same transaction changes."""
        # Units come by the thousand, and most of them leave most of it empty.
        if other.sessions:
            self.sessions.update(other.sessions)
        if other.events:
            self.events.extend(other.events)
        for session_id, activity in other.activity.items():
            # The sweeper may bring older activity than a validation of the same group.
            known = self.activity.get(session_id)
            if known is None:
                self.activity[session_id] = activity
            elif known.at < activity.at:
                # One of an unknown client leaves the last known client, as it would in a transaction of its own.
                client = known.client if activity.client is None else activity.client
                self.activity[session_id] = activity._replace(client=client)
        for session_id, changed in other.data.items():
            self.data.setdefault(session_id, {}).update(changed)
        if other.retention:
            self.retention.update(other.retention)
        if other.answers:
            self.answers.extend(other.answers)
        if other.pruned:
            self.pruned.extend(other.pruned)
        self.forget = other.forget if self.forget is None else self.forget
        if other.horizon is not None and (self.horizon is None or self.horizon < other.horizon):
            self.horizon = other.horizon

    def clear(self) -> None:
        """Be empty again. What was merged elsewhere stays there."""
        for part in (self.sessions, self.activity, self.data, self.retention, self.events, self.answers, self.pruned):
            part.clear()
        self.forget = self.horizon = None


@immutable
class Commit:
    """What one committed transaction changed: for caches and feeds."""

    sessions: Mapping[SessionId, Session]
    activity: Mapping[SessionId, Activity]
    pruned: Sequence[SessionId]
    events: Sequence[Event]
    revision: Revision
    horizon: Revision


@immutable
class Decision(Generic[T]):
    """What one run of a write decided: what to write, and the answer that counts if this run is the last."""

    changes: Changes
    answer: T


@immutable
class Live:
    """Sessions of one subject that have not ended, oldest first, and how many there are; more than given: a crowd."""

    sessions: Sequence[Session]
    count: int


class Transaction(Protocol):
    """What one run of a write sees. It holds the log's head from its beginning to its end: no other writer is between.

    Every method raises `StoreUnavailable` or `StoreFailed` if the store does not answer or breaks.
    """

    head: Head
    """The log's head when the transaction began."""

    async def sessions(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Session]:
        """The named sessions, as they are now; one that is not there is left out."""

    async def data(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Mapping[str, bytes]]:
        """The data of the named sessions, as it is now; one without data is left out.

        Taking a value that cannot be read out of the answer raises `DataUnreadable`: the unit that does fails alone.
        """

    async def live_sessions(self, subjects: Sequence[tuple[str, str]], most: int) -> Mapping[tuple[str, str], Live]:
        """The sessions of these subjects (application, subject) that have not ended, past deadlines included.

        Of a subject that has more than `most` only the `most` oldest and the `most` newest.
        """

    async def answers(self, keys: Sequence[bytes]) -> Mapping[bytes, KeptAnswer]:
        """The kept answers under these keys, as they are now; one that is not there is left out."""


class Store(Protocol):
    """Where sessions and the log live.

    Reads must see every write that has returned, and no part of one that has not been committed.
    Every method raises `StoreUnavailable` or `StoreFailed` if the store does not answer or breaks.
    """

    authority_id: bytes
    """16 bytes, a UUID made with the database: what cursors are bound to."""

    incarnations: Sequence[Incarnation]
    """The runs of the log, oldest first, from the one that holds the horizon on. The last one is this run."""

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]]) -> T:
        """Run `decide` in one write transaction, write its changes all together, commit durably, and give its answer.

        May run `decide` more than once (a conflict, a lost connection): only the last run's changes are written, and
        only its answer counts. So `decide` must change nothing but its own decision.
        Must change nothing if `decide` raises; what it raises comes through.
        Must number nothing itself: events come numbered, following the head, and the head moves to the last of them.
        Must not revive: a row that is there and has ended stays as it is, whatever `sessions` or `activity` say.
        Must not move last activity backwards by `activity`.
        Must drop the data of a session that ends.
        """

    async def head(self) -> Head:
        """Where the log stands."""

    async def session(self, session_id: SessionId) -> Session | None:
        """One session, ended ones included until they are pruned."""

    async def sessions(self, query: SessionQuery) -> list[Session]:
        """At most `query.limit` sessions that match, newest first."""

    async def walk_end(self, query: SessionQuery, rows: int) -> SessionId | None:
        """Down to which id a walk of so many rows from `query.before` on would get; None: to the end.

        What a query's other conditions leave out may be all there is: a walk must have an end even so.
        """

    async def data(self, session_id: SessionId) -> VersionedData:
        """A session's data and its version, from one moment; empty and 0 if there is none.

        Taking a value that cannot be read out of the answer raises `DataUnreadable`.
        """

    async def due(self, now: Instant, limit: int) -> list[SessionId]:
        """Live sessions with a recorded deadline at or before `now`, the longest overdue first."""

    async def prunable(self, now: Instant, limit: int) -> list[SessionId]:
        """Ended sessions whose retention is over at `now`, the longest overdue first."""

    async def horizon_for(self, before: Instant, limit: int) -> Revision | None:
        """The horizon after dropping the log's oldest events from before that time, at most `limit` of them.

        None if there is nothing to drop. An event from before that time that follows a later one stays.
        """

    async def events(self, after: Revision, limit: int) -> list[Event]:
        """At most `limit` events that follow `after`, in order. The caller checks the horizon."""

    async def activity(self, application: str, subject: str, before: Revision | None, limit: int) -> list[Event]:
        """At most `limit` of a subject's events with a revision less than `before`, newest first."""

    async def tidy(self) -> None:
        """Give back a bounded amount of space that dropped rows have left, if there is much of it."""

    async def close(self) -> None:
        """Release everything. Nothing may be called afterwards."""
