"""The contract of a store. The docstrings state what every store must do; `tests/contracts` checks each store.

A store converts between rows and domain values. Only domain values pass through this interface.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sessiond.domain.access import CallerRecord
from sessiond.domain.errors import Unavailable
from sessiond.domain.event import Event
from sessiond.domain.immutable import immutable
from sessiond.domain.key_ring import KeyHolder, SealingKey
from sessiond.domain.position import Incarnation
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Activity, Session
from sessiond.domain.values import Instant, Millis, Revision, SessionId, VersionedData

__all__ = [
    "ANY_GENERATION",
    "Changes",
    "Commit",
    "DataWalk",
    "Decision",
    "Head",
    "KeptAnswer",
    "Live",
    "Moved",
    "Place",
    "Snapshot",
    "SnapshotFacts",
    "Store",
    "StoreFailed",
    "StoreHeld",
    "StoreRefused",
    "StoreUnavailable",
    "TokenAge",
    "Transaction",
]

T = TypeVar("T")


class StoreRefused(Exception):
    """The store cannot be opened in its present condition. The text gives the reason and the remedy.

    No data in the store has been changed.
    """


class StoreHeld(StoreRefused):
    """Another process has the store open. The text names the process; the store can be opened after it has stopped."""


class StoreUnavailable(Unavailable):
    """The store is temporarily not responding. The outcome of a write that raises this is unknown."""

    @property
    def public(self) -> str:
        """The message for callers. It does not reveal the location of the store."""
        return "the store is not responding; the outcome of a change is unknown"


class StoreFailed(Unavailable):
    """The store failed (I/O error, disk full). This is fatal: the process must stop.

    Acknowledged writes are safe. The outcome of a write that was not acknowledged is unknown.
    """

    @property
    def public(self) -> str:
        """The message for callers. It does not reveal the location of the store."""
        return "the store failed; the authority is stopping"


@immutable
class Head:
    """The log's newest revision (0 if it is empty), and the oldest revision that a subscriber can resume from."""

    revision: Revision
    horizon: Revision


@immutable
class KeptAnswer:
    """The stored response of a call that may be retried. A retry gets this response again.

    key         32 bytes: a digest of the caller's secret id for the call
    parameters  32 bytes: a digest of the call's other fields
    sealed      the response, encrypted under a key derived from that secret id; nothing else can decrypt it
    expires     when the response may be dropped
    session_id  the response is valid only while this session lives; None: it is valid until it expires
    generation  the response is valid only while that session is at this generation; `ANY_GENERATION`: at any
    """

    key: bytes
    parameters: bytes
    sealed: bytes = field(repr=False)
    expires: Instant
    session_id: SessionId | None = None
    generation: int = 0


ANY_GENERATION = -1
"""The generation of a kept answer that is valid while its session lives, however often its token is replaced."""


Place = tuple[bytes, str]
"""A place in the session data: a session id and a key of its data."""


@immutable
class Moved:
    """What is stored again under the sealing key. None of it changes for any caller.

    data     values of session data, in plain, to be encrypted
    answers  kept answers, in the form in which they are to be stored
    counts   how many of them each key had sealed, by its fingerprint
    """

    data: Mapping[SessionId, Mapping[str, bytes]]
    answers: Mapping[bytes, bytes]
    counts: Mapping[bytes, int]


@immutable
class DataWalk:
    """A part of the session data.

    marks   how many of the values are sealed under the key with each mark; plain ones are counted under an empty mark
    stale   values that the sealing key should seal, and did not, in plain; those that cannot be opened are left out
    stale_marks  under which mark each of the stale values is sealed, with the number of them
    after   where the next part begins; None: this was the last one
    """

    marks: Mapping[bytes, int]
    stale: Mapping[SessionId, Mapping[str, bytes]]
    stale_marks: Mapping[bytes, int]
    after: Place | None


@immutable
class TokenAge:
    """When the current token of a session was issued, as far as the store knows, and when it ends at the latest.

    began    when the token was first used, or rolled
    rolled   whether a roll made it, so that it was issued then
    idle     the session's idle timeout; None: it has none
    """

    session_id: SessionId
    ended: bool
    began: Instant
    rolled: bool
    idle: Millis | None
    absolute_deadline: Instant | None


@dataclass(slots=True)
class Changes:
    """What one transaction writes. Units of work fill it, and `Store.write` applies it.

    sessions   new and changed sessions, in their new state
    activity   the last activity of each session
    data       for each session, the keys to set (bytes) and to delete (None)
    retention  for each session that ends, how long to keep it afterwards
    events     events numbered consecutively, beginning right after the log's head
    answers    responses of calls that may be retried, and used tickets
    forget     drop kept answers that expired at or before this time, a bounded number of them; None: drop none
    pruned     ended sessions to delete
    callers    callers by name, in their new state; None: to delete
    keys       the whole key ring in its new state, the sealing key first; None: unchanged
    moved      what to store again under the sealing key; None: nothing. The other changes of the same data count
    horizon    delete events up to and including this revision; None: delete none
    """

    sessions: dict[SessionId, Session] = field(default_factory=dict)
    activity: dict[SessionId, Activity] = field(default_factory=dict)
    data: dict[SessionId, dict[str, bytes | None]] = field(default_factory=dict)
    retention: dict[SessionId, Millis] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    answers: list[KeptAnswer] = field(default_factory=list)
    forget: Instant | None = None
    pruned: list[SessionId] = field(default_factory=list)
    callers: dict[str, CallerRecord | None] = field(default_factory=dict)
    keys: Sequence[SealingKey] | None = None
    moved: Moved | None = None
    horizon: Revision | None = None

    def merge(self, other: Changes) -> None:
        """Add the changes of a later unit of the same transaction."""
        # There are thousands of units, and most of them leave most fields empty.
        if other.sessions:
            self.sessions.update(other.sessions)
        if other.events:
            self.events.extend(other.events)
        for session_id, activity in other.activity.items():
            # The sweeper may record older activity than a validation in the same group.
            known = self.activity.get(session_id)
            if known is None:
                self.activity[session_id] = activity
            elif known.at < activity.at:
                # Activity of an unknown client keeps the last known client, as it would in a separate transaction.
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
        if other.callers:
            self.callers.update(other.callers)
        if other.keys is not None:
            self.keys = other.keys
        self.forget = other.forget if self.forget is None else self.forget
        if other.horizon is not None and (self.horizon is None or self.horizon < other.horizon):
            self.horizon = other.horizon

    def clear(self) -> None:
        """Remove all changes from this object. Objects that they were merged into keep them."""
        for part in (self.sessions, self.activity, self.data, self.retention, self.events, self.answers, self.pruned):
            part.clear()
        self.callers.clear()
        self.keys = self.moved = None
        self.forget = self.horizon = None


@immutable
class Commit:
    """What one committed transaction changed, for caches and event feeds.

    `outdated` are sessions that another process has changed; their new state has to be read.
    `callers` are all callers after the commit; None: no caller has changed. `keys` are those of the key ring; None: it
    has not changed.
    """

    sessions: Mapping[SessionId, Session]
    activity: Mapping[SessionId, Activity]
    pruned: Sequence[SessionId]
    events: Sequence[Event]
    revision: Revision
    horizon: Revision
    outdated: Sequence[SessionId] = ()
    callers: Sequence[CallerRecord] | None = None
    keys: Sequence[SealingKey] | None = None


@immutable
class Decision(Generic[T]):
    """The outcome of one run of a write: the changes to apply, and the value that `Store.write` is to return."""

    changes: Changes
    answer: T


@immutable
class Live:
    """Sessions of one subject that have not ended, oldest first, and their total number.

    If `count` exceeds the number of `sessions`, some sessions were left out.
    """

    sessions: Sequence[Session]
    count: int


@immutable
class SnapshotFacts:
    """What a snapshot is of.

    size             how many bytes it has
    revision         that of the newest event in it
    schema_version   the version of its schema
    keys             the key ring as recorded in it, the sealing key first
    """

    size: int
    revision: Revision
    schema_version: int
    keys: Sequence[SealingKey]


class Snapshot(Protocol):
    """The database as it was at one moment, in the form of a file, read from the beginning to the end."""

    @property
    def facts(self) -> SnapshotFacts:
        """What it is of."""

    @property
    def sha256(self) -> bytes:
        """SHA-256 of what was read: 32 bytes."""

    async def read(self, length: int) -> bytes:
        """Return the next part, of at most `length` bytes; empty at the end.

        Raises `Overloaded` if so much was committed meanwhile that it has to end, and `Unavailable` if the file cannot
        be read.
        """

    async def close(self) -> None:
        """End the snapshot. Must be called."""


class Transaction(Protocol):
    """The view of the store that one run of a write has. No other write may run from its beginning to its end.

    Every method raises `StoreUnavailable` if the store does not respond, and `StoreFailed` if it fails.
    """

    head: Head
    """The log's head when the transaction began."""

    async def sessions(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Session]:
        """Return the sessions with these ids in their current state. Omit ids that do not exist."""

    async def data(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Mapping[str, bytes]]:
        """Return the current data of the sessions with these ids. Omit sessions without data.

        Reading a value from the returned mapping raises `DataUnreadable` if that value cannot be decrypted. So only
        the unit that reads the value fails.
        """

    async def live_sessions(self, subjects: Sequence[tuple[str, str]], most: int) -> Mapping[tuple[str, str], Live]:
        """Return the sessions of each (application, subject) that have not ended, even if their deadline has passed.

        For a subject with more than `most` sessions, return only the `most` oldest and the `most` newest.
        """

    async def answers(self, keys: Sequence[bytes]) -> Mapping[bytes, KeptAnswer]:
        """Return the current kept answers with these keys. Omit keys that do not exist."""

    async def callers(self) -> Sequence[CallerRecord]:
        """Return all callers, by name."""

    async def keys(self) -> Sequence[SealingKey]:
        """Return the recorded key ring, the sealing key first; empty if the store was opened without keys."""

    async def holders(self) -> Sequence[KeyHolder]:
        """Return which keys each process holds that may use the store; empty if no other one can."""

    async def walk_data(self, after: Place, rows: int, size: int) -> DataWalk:
        """Return a part of the session data after a place: at most `rows` values, and about `size` bytes of stale ones.

        Plain values count as stale if the store was opened to encrypt.
        """

    async def walk_answers(self, after: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        """Return the next `limit` kept answers after a key: their keys, and what is stored."""


class Store(Protocol):
    """The durable storage of sessions and the event log.

    Reads must see every write that has returned, and nothing of a write that has not been committed.
    Every method raises `StoreUnavailable` if the store does not respond, and `StoreFailed` if it fails.
    """

    authority_id: bytes
    """16 bytes: a UUID created together with the database. Cursors are bound to it."""

    incarnations: Sequence[Incarnation]
    """The incarnations of the log, oldest first, from the one that contains the horizon to the current one."""

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]], *, quiet: bool = False) -> T:
        """Run `decide` in one write transaction, apply its changes atomically, commit durably, and return its answer.

        With `quiet` the caller expects that `decide` records activity alone, so a store may let other writers work at
        the same time. If it turns out otherwise, `decide` is run again without them.

        May run `decide` more than once (after a conflict or a lost connection). Only the changes and the answer of the
        last run count, so `decide` must have no side effects except the decision that it returns.
        Must change nothing if `decide` raises; the exception propagates to the caller.
        Must not number events: they arrive numbered, following the head. The head must move to the last of them.
        Must not revive a session: if the stored session has ended, `sessions` and `activity` must not change it.
        Must not move a session's last activity backwards because of `activity`.
        Must delete the data of a session that ends.
        """

    async def head(self) -> Head:
        """Return the log's newest revision and its horizon."""

    async def session(self, session_id: SessionId) -> Session | None:
        """Return one session, or None. Must return ended sessions too, until they are pruned."""

    async def sessions(self, query: SessionQuery) -> list[Session]:
        """Return at most `query.limit` matching sessions, newest first."""

    async def walk_end(self, query: SessionQuery, rows: int) -> SessionId | None:
        """Return the last id of a scan of `rows` rows that starts at `query.before`; None if the scan reaches the end.

        The rows are counted without the conditions that no index supports. Listing down to this id is therefore a
        bounded amount of work, even if those conditions match no row at all.
        """

    async def data(self, session_id: SessionId) -> VersionedData:
        """Return a session's data and its version in one consistent read; empty and version 0 if there is none.

        Reading a value from the returned mapping raises `DataUnreadable` if that value cannot be decrypted.
        """

    async def due(self, now: Instant, limit: int) -> list[SessionId]:
        """Return at most `limit` live sessions with a stored deadline at or before `now`, the longest overdue first."""

    async def prunable(self, now: Instant, limit: int) -> list[SessionId]:
        """Return at most `limit` ended sessions whose retention has passed at `now`, the longest overdue first."""

    async def horizon_for(self, before: Instant, limit: int) -> Revision | None:
        """Return the horizon that results from dropping at most `limit` of the log's oldest events before `before`.

        Return None if there is nothing to drop. An older event that follows an event at or after `before` is kept.
        """

    async def events(self, after: Revision, limit: int) -> list[Event]:
        """Return at most `limit` events that follow `after`, in order. The caller checks the horizon."""

    async def activity(self, application: str, subject: str, before: Revision | None, limit: int) -> list[Event]:
        """Return at most `limit` events of a subject with a revision less than `before`, newest first."""

    async def callers(self) -> Sequence[CallerRecord]:
        """Return all callers, by name."""

    async def keys(self) -> Sequence[SealingKey]:
        """Return the recorded key ring, the sealing key first; empty if the store was opened without keys."""

    async def data_marks(self, after: Place, limit: int) -> tuple[Mapping[bytes, int], Place | None]:
        """Return how many of the next `limit` values are sealed under the key with each mark, and where to go on.

        Plain values are counted under an empty mark. None: there are no more values.
        """

    async def token_ages(self, after: SessionId, before: SessionId, limit: int) -> Sequence[TokenAge]:
        """Return the next `limit` sessions between two ids, those that have ended included."""

    async def size(self) -> int:
        """Return how many bytes the store takes, with everything else in the same database."""

    async def tidy(self) -> None:
        """If deleted rows have left much unused space, release a bounded amount of it."""

    async def snapshot(self) -> Snapshot:
        """Begin a snapshot of everything that is committed. Writes go on meanwhile.

        Raises `BackupRefused` if there is one already, or if the database has tools of its own for this.
        """

    async def close(self) -> None:
        """Release all resources. No method may be called afterwards."""
