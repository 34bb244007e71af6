"""Units of work: what they say they need, and what they see and write while they decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Generic, Protocol, TypeVar

from sessiond.domain.event import Event, EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.lifecycle import expired_view
from sessiond.domain.policy import Policy
from sessiond.domain.session import Activity, Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import NOBODY, Cause, ClientContext, Instant, Millis, Revision, SessionId
from sessiond.store.contract import Changes, KeptAnswer

__all__ = ["AT_ONCE", "NOTHING", "DoFirst", "Done", "Memory", "Needs", "Read", "Unit", "Work"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_STARTS_AFRESH = (EventType.SESSION_AUTHENTICATED, EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED)


AT_ONCE = 100
"""How many sessions one unit may end beside its own: everybody waits while it does."""


@immutable
class Needs:
    """What a unit must have read before it decides.

    sessions  these sessions
    kin       the live sessions of whatever subjects these sessions have
    subjects  the live sessions of these subjects (application, subject)
    most      how many live sessions of a subject it must see; of a subject that has more it sees the oldest and newest
    data      the data of these sessions
    answers   the answers kept under these keys, and the sessions that they depend on
    """

    sessions: Sequence[SessionId] = ()
    kin: Sequence[SessionId] = ()
    subjects: Sequence[tuple[str, str]] = ()
    data: Sequence[SessionId] = ()
    answers: Sequence[bytes] = ()
    most: int = AT_ONCE


NOTHING = Needs()
"""What a unit needs that decides from its own parameters."""


class DoFirst(Exception):
    """Raised by a unit that is too large: `unit` must be carried out before it, in a transaction of its own.

    Then the unit is carried out again, however often it asks for more. Each time there must be less to do.
    """

    def __init__(self, unit: Unit[Any]) -> None:
        super().__init__("something has to be done first")
        self.unit = unit


class Unit(Protocol[T_co]):
    """One change, decided in one go.

    `apply` may run more than once: a store repeats a conflict. So it must change nothing but its `Work`; only the last
    run counts. It must not wait, read a clock or draw randomness. What it raises is handed to its caller, and then
    nothing of the unit is kept. It must see only what `needs` named, or `work` holds.
    """

    def needs(self) -> Needs:
        """What to read first."""

    def apply(self, work: Work) -> T_co:
        """Decide and write."""


@immutable
class Done(Generic[T]):
    """A unit's result, committed; the newest revision of the log that has it, and the time it was decided at."""

    result: T
    revision: Revision
    at: Instant


class Memory(Protocol):
    """What this process knows that the store does not. Units only read it; commits change it."""

    def with_activity(self, session: Session) -> Session:
        """A session as the store has it, with later activity that is not saved yet."""

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        """Whether a suspicion of this kind was reported of the session within the window."""

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Whether this is, as far as can be told, the client that uses the session."""

    def is_new_old_token(self, session: Session, client: ClientContext, others: Sequence[ClientContext]) -> bool:
        """Return whether it must be recorded that this client presented a token from before the session's last roll.

        `others` presented one in this transaction.
        """

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Sequence[ClientContext]
    ) -> bool:
        """Return whether this client, and as far as is known no other, presented such a token."""


@immutable
class Read:
    """What was read for the units of one transaction."""

    sessions: Mapping[SessionId, Session] = field(default_factory=dict)
    data: Mapping[SessionId, Mapping[str, bytes]] = field(default_factory=dict)
    answers: Mapping[bytes, KeptAnswer] = field(default_factory=dict)
    crowds: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Subjects that have more live sessions than were read: how many."""


class Work:
    """What the units of one transaction see and write. `now` is the same for all of them."""

    def __init__(self, now: Instant, head: Revision, read: Read, memory: Memory) -> None:
        self.now = now
        self.changes = Changes()
        self._head = head
        self._read = read
        self._memory = memory
        self._draft = Changes()
        # Which sessions may be a subject's; made when first asked for, as most applications set no limit.
        self._subjects: dict[tuple[str, str], set[SessionId]] | None = None

    # What a unit sees

    @property
    def revision(self) -> Revision:
        """The newest revision, the unit's own events included."""
        return Revision(self._head + len(self.changes.events) + len(self._draft.events))

    @property
    def next_revision(self) -> Revision:
        """The revision that the next event will have."""
        return Revision(self.revision + 1)

    @property
    def untouched(self) -> bool:
        """Whether the unit has recorded no event so far."""
        return not self._draft.events

    def session(self, session_id: SessionId) -> Session | None:
        """A session as this and the earlier units leave it."""
        for layer in (self._draft.sessions, self.changes.sessions, self._read.sessions):
            if (session := layer.get(session_id)) is not None:
                return session
        return None

    def data(self, session_id: SessionId) -> dict[str, bytes]:
        """A session's data as this and the earlier units leave it."""
        data = dict(self._read.data.get(session_id, {}))
        for layer in (self.changes, self._draft):
            for key, value in layer.data.get(session_id, {}).items():
                if value is None:
                    data.pop(key, None)
                else:
                    data[key] = value
        return data

    def data_count(self, session_id: SessionId) -> int:
        """How many keys a session's data has as this and the earlier units leave it."""
        read = self._read.data.get(session_id, {})
        changed = {**self.changes.data.get(session_id, {}), **self._draft.data.get(session_id, {})}
        return len(read) + sum((value is not None) - (key in read) for key, value in changed.items())

    def data_value(self, session_id: SessionId, key: str) -> bytes | None:
        """One value of it; None if it is not there. Raises `DataUnreadable`."""
        for layer in (self._draft, self.changes):
            changed = layer.data.get(session_id, {})
            if key in changed:
                return changed[key]
        return self._read.data.get(session_id, {}).get(key)

    def live_sessions(self, application: str, subject: str) -> list[Session]:
        """A subject's live sessions as this and the earlier units leave them, in the order they were opened."""
        return [s for s in self._unended(application, subject) if expired_view(s, self.now).ending is None]

    def crowd(self, application: str, subject: str) -> int:
        """How many live sessions a subject has if they are more than the unit sees; else 0."""
        return self._read.crowds.get((application, subject), 0)

    def overdue(self, application: str, subject: str) -> list[SessionId]:
        """Those of a subject's sessions that are past a deadline, but have no ending on record."""
        return [s.id for s in self._unended(application, subject) if expired_view(s, self.now).ending is not None]

    def _unended(self, application: str, subject: str) -> list[Session]:
        if self._subjects is None:
            self._subjects = _by_subject({}, (*self._read.sessions.values(), *self.changes.sessions.values()))
        ids = self._subjects.get((application, subject), set()) | self._draft.sessions.keys()
        sessions = (self.session(session_id) for session_id in sorted(ids))
        return [
            session
            for session in sessions
            if session is not None
            and (session.application, session.subject) == (application, subject)
            and session.ending is None
        ]

    def answer(self, key: bytes) -> KeptAnswer | None:
        """The newest answer kept under this key, unless it has expired."""
        for answers in (self._draft.answers, self.changes.answers):
            for answer in reversed(answers):
                if answer.key == key:
                    return answer if self.now < answer.expires else None
        read = self._read.answers.get(key)
        return read if read is not None and self.now < read.expires else None

    def is_news(self, session_id: SessionId, signals: Iterable[Signal], policy: Policy) -> bool:
        """Whether any of the signals that the policy does not ignore was not reported of the session lately."""
        kinds = {signal.type for signal in signals if policy.reactions[signal.type] is not Reaction.IGNORE}
        afresh, reported = False, set[SignalType]()
        for event in (*self.changes.events, *self._draft.events):
            if event.session_id != session_id:
                continue
            if event.type is EventType.HIJACK_SUSPECTED:
                reported |= {signal.type for signal in event.signals}
            elif event.type in _STARTS_AFRESH:
                afresh, reported = True, set()
        if not afresh:
            window = policy.fold_window
            reported |= {kind for kind in kinds if self._memory.was_reported(session_id, kind, window, self.now)}
        return not kinds <= reported

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Whether this is, as far as can be told, the client that uses the session."""
        return self._memory.is_own_client(session, client, policy)

    def presented_old_token(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Return whether this client, and as far as is known no other, presented a token from before the last roll."""
        return self._memory.presented_old_token(session, client, policy, self._old_token_clients(session.id))

    def is_new_old_token(self, session: Session, client: ClientContext) -> bool:
        """Return whether it must be recorded that this client presented a token from before the last roll."""
        return self._memory.is_new_old_token(session, client, self._old_token_clients(session.id))

    def _old_token_clients(self, session_id: SessionId) -> list[ClientContext]:
        return [
            event.client
            for event in (*self.changes.events, *self._draft.events)
            if event.session_id == session_id and event.type is EventType.OLD_TOKEN_PRESENTED
        ]

    # What a unit writes

    def save(
        self,
        session: Session,
        type: EventType,
        cause: Cause,
        client: ClientContext = NOBODY,
        signals: tuple[Signal, ...] = (),
        reaction: Reaction | None = None,
    ) -> Session:
        """Write a session as it is to be, with the event that says so; the session with that event's revision.

        There is no other way to write one: what followers do not hear of does not exist for them.
        """
        if session.revision != self.next_revision:
            session = replace(session, revision=self.next_revision)
        self.record(type, session, cause, client, signals, reaction)
        self._draft.sessions[session.id] = session
        return session

    def save_ended(
        self, session: Session, retention: Millis, type: EventType, cause: Cause, client: ClientContext = NOBODY
    ) -> Session:
        """The same for a session that ends here; its history is kept for `retention`."""
        self._draft.retention[session.id] = retention
        return self.save(session, type, cause, client)

    def put_activity(self, activity: Activity) -> None:
        """Write activity, without having read the session. An ended session will stay ended."""
        self._draft.activity[activity.session_id] = activity

    def put_data(self, session_id: SessionId, changed: Mapping[str, bytes | None]) -> None:
        """Set keys to bytes, delete keys at None. The session itself must be saved by the same unit."""
        self._draft.data.setdefault(session_id, {}).update(changed)

    def keep_answer(self, answer: KeptAnswer) -> None:
        """Keep the first answer to a call. Some that have expired go for it."""
        self._draft.answers.append(answer)
        self._draft.forget = self.now

    def forget_answers(self) -> None:
        """Drop some of the answers that have expired."""
        self._draft.forget = self.now

    def prune(self, ids: Sequence[SessionId]) -> None:
        """Drop the history of ended sessions."""
        self._draft.pruned.extend(ids)

    def move_horizon(self, horizon: Revision) -> None:
        """Drop the log up to and including this revision."""
        self._draft.horizon = horizon

    def record(
        self,
        type: EventType,
        session: Session,
        cause: Cause,
        client: ClientContext = NOBODY,
        signals: tuple[Signal, ...] = (),
        reaction: Reaction | None = None,
    ) -> None:
        """Add an event about a session that it does not change. What changes one goes through `save`."""
        self._draft.events.append(
            Event(
                revision=self.next_revision,
                type=type,
                at=self.now,
                application=session.application,
                subject=session.subject,
                session_id=session.id,
                cause=cause,
                client=client,
                generation=session.generation,
                authentication=session.authentication if type in _SHOWS_AUTHENTICATION else None,
                signals=signals,
                reaction=reaction,
                labels=session.labels,
            )
        )

    def record_other(
        self, type: EventType, application: str, cause: Cause, *, subject: str = "", source: str = ""
    ) -> None:
        """Add an event about no single session to the log."""
        self._draft.events.append(
            Event(
                revision=self.next_revision,
                type=type,
                at=self.now,
                application=application,
                subject=subject,
                session_id=None,
                cause=cause,
                client=NOBODY,
                source=source,
            )
        )

    def run(self, unit: Unit[T]) -> Done[T]:
        """Let one unit decide. What it raises comes through, and then nothing of it is kept."""
        draft, before = self._draft, self.revision
        try:
            result = unit.apply(self)
            _check_told(draft, before)
            self.changes.merge(draft)
            if self._subjects is not None:
                _by_subject(self._subjects, draft.sessions.values())
        finally:
            draft.clear()
        return Done(result, self.revision, self.now)


_SHOWS_AUTHENTICATION = (
    EventType.SESSION_CREATED,
    EventType.SESSION_AUTHENTICATED,
    EventType.SESSION_LEVEL_LOWERED,
)


def _check_told(draft: Changes, before: Revision) -> None:
    """Refuse a draft that changes a session and records no event of it."""
    for session in draft.sessions.values():
        if session.revision <= before:
            raise AssertionError(f"session {session.id} was changed without an event")
    for session_id in draft.data:
        if session_id not in draft.sessions:
            raise AssertionError(f"the data of session {session_id} was changed without an event")


def _by_subject(
    index: dict[tuple[str, str], set[SessionId]], sessions: Iterable[Session]
) -> dict[tuple[str, str], set[SessionId]]:
    for session in sessions:
        index.setdefault((session.application, session.subject), set()).add(session.id)
    return index
