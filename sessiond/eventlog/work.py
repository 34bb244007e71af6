"""Units of work: what they declare to need, and what they read and write while they decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Generic, Protocol, TypeVar

from sessiond.domain.access import CallerRecord
from sessiond.domain.event import Event, EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.key_ring import KeyHolder, SealingKey
from sessiond.domain.lifecycle import expired_view
from sessiond.domain.policy import Policy
from sessiond.domain.session import Activity, Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import NOBODY, Cause, ClientContext, Instant, Millis, Revision, SessionId
from sessiond.store.contract import Changes, KeptAnswer

__all__ = [
    "MAX_ENDED_PER_UNIT",
    "NOTHING",
    "QUIET",
    "PrerequisiteRequired",
    "Done",
    "Memory",
    "Needs",
    "Read",
    "Unit",
    "Work",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_RESETTING_EVENTS = (EventType.SESSION_AUTHENTICATED, EventType.SESSION_REVOKED, EventType.SESSION_EXPIRED)

MAX_ENDED_PER_UNIT = 100
"""How many other sessions one unit may end. All other units wait in the meantime, so the number is bounded."""


@immutable
class Needs:
    """What must be read before a unit decides.

    sessions     these sessions
    subjects_of  the live sessions of the subjects to which these sessions belong
    subjects     the live sessions of these subjects (application, subject)
    data         the data of these sessions
    callers      all callers
    keys         the recorded key ring, and which process holds which keys
    answers      the answers kept under these keys, and the sessions that they depend on
    max_live     how many live sessions of a subject to read; if it has more, the oldest and the newest are read
    quiet        the unit is expected to record activity alone, or to delete what has expired, and no event
    """

    sessions: Sequence[SessionId] = ()
    subjects_of: Sequence[SessionId] = ()
    subjects: Sequence[tuple[str, str]] = ()
    data: Sequence[SessionId] = ()
    answers: Sequence[bytes] = ()
    max_live: int = MAX_ENDED_PER_UNIT
    quiet: bool = False
    callers: bool = False
    keys: bool = False


NOTHING = Needs()
"""The needs of a unit that decides from its parameters alone."""

QUIET = Needs(quiet=True)
"""The same for a unit that records no event."""


class PrerequisiteRequired(Exception):
    """Raised by a unit that is too large for one transaction: `unit` must be committed before it.

    The journal commits `unit` and then runs the raising unit again, as often as it raises this. Each time there must be
    less left to do, or this does not end.
    """

    def __init__(self, unit: Unit[Any]) -> None:
        super().__init__("another unit must be committed first")
        self.unit = unit


class Unit(Protocol[T_co]):
    """One change, decided and written by a single function call.

    `apply` may run more than once, because a store retries after a conflict; only the last run counts. So it must
    change nothing but its `Work`, and must not wait, read a clock or use randomness. It must read only what `needs`
    declares or what `work` holds. If it raises, nothing of the unit is kept and its caller gets the exception.
    """

    def needs(self) -> Needs:
        """Return what must be read before `apply`."""

    def apply(self, work: Work) -> T_co:
        """Decide, and write to `work`."""


@immutable
class Done(Generic[T]):
    """The result of a committed unit.

    revision  the newest revision of the log after the unit, including its events
    at        the time at which it was decided
    """

    result: T
    revision: Revision
    at: Instant


class Memory(Protocol):
    """What this process knows in addition to the store. Units only read it; commits change it."""

    def with_activity(self, session: Session) -> Session:
        """Return a session from the store with its unsaved activity."""

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        """Return whether a signal of this type was reported for the session within the window."""

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Return whether this is, as far as can be determined, the client that used the session last."""

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Return whether the policy denies this client until its subject has authenticated, or altogether."""

    def is_new_old_token(self, session: Session, client: ClientContext, others: Sequence[ClientContext]) -> bool:
        """Return whether to record that this client presented a token from before the session's last roll.

        `others` are clients that presented one in this transaction.
        """

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Sequence[ClientContext]
    ) -> bool:
        """Return whether only this client presented a token from before the last login, as far as is known."""


@immutable
class Read:
    """What was read for the units of one transaction."""

    sessions: Mapping[SessionId, Session] = field(default_factory=dict)
    data: Mapping[SessionId, Mapping[str, bytes]] = field(default_factory=dict)
    answers: Mapping[bytes, KeptAnswer] = field(default_factory=dict)
    callers: Mapping[str, CallerRecord] = field(default_factory=dict)
    keys: Sequence[SealingKey] = ()
    holders: Sequence[KeyHolder] = ()
    truncated: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """The number of live sessions of each subject that has more than were read."""


class RingWork:
    """What the units of one transaction read and write of the key ring."""

    def __init__(self, read: Read, changes: Changes, draft: Changes) -> None:
        self._read = read
        self._changes = changes
        self._draft = draft

    @property
    def keys(self) -> Sequence[SealingKey]:
        """Return the key ring, including the changes of earlier units and of this one."""
        for layer in (self._draft, self._changes):
            if layer.keys is not None:
                return layer.keys
        return self._read.keys

    @property
    def holders(self) -> Sequence[KeyHolder]:
        """Return which keys each process holds that may use the store; empty if none but this one may."""
        return self._read.holders

    def put(self, keys: Sequence[SealingKey]) -> None:
        """Save the whole key ring, the sealing key first. The same unit must record an event."""
        self._draft.keys = keys


class Work:
    """What the units of one transaction read and write. `now` is the same for all of them.

    Each unit writes to a draft, which `run` merges into `changes` when the unit has succeeded.
    """

    def __init__(self, now: Instant, head: Revision, read: Read, memory: Memory) -> None:
        self.now = now
        self.changes = Changes()
        self._head = head
        self._read = read
        self._memory = memory
        self._draft = Changes()
        self.ring = RingWork(read, self.changes, self._draft)
        # An index of sessions by subject, built on first use because most applications set no limit. It may hold
        # sessions that belong to another subject by now.
        self._subjects: dict[tuple[str, str], set[SessionId]] | None = None

    # What a unit reads

    @property
    def revision(self) -> Revision:
        """Return the newest revision, including the events of this unit."""
        return Revision(self._head + len(self.changes.events) + len(self._draft.events))

    @property
    def next_revision(self) -> Revision:
        """Return the revision that the next event will have."""
        return Revision(self.revision + 1)

    @property
    def has_no_events(self) -> bool:
        """Return whether this unit has recorded no event so far."""
        return not self._draft.events

    def session(self, session_id: SessionId) -> Session | None:
        """Return a session, including the changes of earlier units and of this one."""
        for layer in (self._draft.sessions, self.changes.sessions, self._read.sessions):
            if (session := layer.get(session_id)) is not None:
                return session
        return None

    def data(self, session_id: SessionId) -> dict[str, bytes]:
        """Return a session's data, including the changes of earlier units and of this one."""
        changes = (layer.data.get(session_id, {}) for layer in (self.changes, self._draft))
        return _changed(self._read.data.get(session_id, {}), changes)

    def callers(self) -> dict[str, CallerRecord]:
        """Return all callers, including the changes of earlier units and of this one."""
        return _changed(self._read.callers, (layer.callers for layer in (self.changes, self._draft)))

    def data_count(self, session_id: SessionId) -> int:
        """Return how many keys a session's data has, including the changes of earlier units and of this one."""
        read = self._read.data.get(session_id, {})
        changed = {**self.changes.data.get(session_id, {}), **self._draft.data.get(session_id, {})}
        return len(read) + sum((value is not None) - (key in read) for key, value in changed.items())

    def data_value(self, session_id: SessionId, key: str) -> bytes | None:
        """Return one value of a session's data; None if there is no such key. Raises `DataUnreadable`."""
        for layer in (self._draft, self.changes):
            changed = layer.data.get(session_id, {})
            if key in changed:
                return changed[key]
        return self._read.data.get(session_id, {}).get(key)

    def live_sessions(self, application: str, subject: str) -> list[Session]:
        """Return a subject's live sessions, oldest first, including the changes of earlier units and of this one."""
        return [s for s in self._unended(application, subject) if expired_view(s, self.now).ending is None]

    def count_if_truncated(self, application: str, subject: str) -> int:
        """Return how many live sessions a subject has in the store if not all of them were read, else 0."""
        return self._read.truncated.get((application, subject), 0)

    def overdue(self, application: str, subject: str) -> list[SessionId]:
        """Return those of a subject's sessions that are past a deadline, but whose expiry is not recorded yet."""
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
        """Return the newest answer kept under this key, unless it has expired."""
        for answers in (self._draft.answers, self.changes.answers):
            for answer in reversed(answers):
                if answer.key == key:
                    return answer if self.now < answer.expires else None
        read = self._read.answers.get(key)
        return read if read is not None and self.now < read.expires else None

    def is_unreported(self, session_id: SessionId, signals: Iterable[Signal], policy: Policy) -> bool:
        """Return whether any of the signals that the policy does not ignore was not reported recently."""
        kinds = {signal.type for signal in signals if policy.reactions[signal.type] is not Reaction.IGNORE}
        reset, reported = False, set[SignalType]()
        for event in self._events:
            if event.session_id != session_id:
                continue
            if event.type is EventType.HIJACK_SUSPECTED:
                reported |= {signal.type for signal in event.signals}
            elif event.type in _RESETTING_EVENTS:
                reset, reported = True, set()
        if not reset:
            window = policy.fold_window
            reported |= {kind for kind in kinds if self._memory.was_reported(session_id, kind, window, self.now)}
        return not kinds <= reported

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Return whether this is, as far as can be determined, the client that used the session last."""
        return self._memory.is_own_client(session, client, policy)

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Return whether the policy denies this client until its subject has authenticated, or altogether."""
        return self._memory.is_denied_client(session, client, policy)

    def presented_old_token(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """Return whether only this client presented a token from before the last login, as far as is known."""
        return self._memory.presented_old_token(session, client, policy, _old_token_clients(self._events, session.id))

    def is_new_old_token(self, session: Session, client: ClientContext) -> bool:
        """Return whether to record that this client presented a token from before the last roll."""
        return self._memory.is_new_old_token(session, client, _old_token_clients(self._events, session.id))

    @property
    def _events(self) -> Sequence[Event]:
        return (*self.changes.events, *self._draft.events)

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
        """Save a session together with the event for the change. Return the session with the event's revision.

        This is the only way to save a session, because a follower learns of changes only from events.
        """
        if session.revision != self.next_revision:
            session = replace(session, revision=self.next_revision)
        self.record(type, session, cause, client, signals, reaction)
        self._draft.sessions[session.id] = session
        return session

    def save_ended(
        self, session: Session, retention: Millis, type: EventType, cause: Cause, client: ClientContext = NOBODY
    ) -> Session:
        """Save a session that has just ended, like `save`; its history is kept for `retention` milliseconds."""
        self._draft.retention[session.id] = retention
        return self.save(session, type, cause, client)

    def put_activity(self, activity: Activity) -> None:
        """Save activity without reading the session. An ended session stays ended."""
        self._draft.activity[activity.session_id] = activity

    def put_data(self, session_id: SessionId, changed: Mapping[str, bytes | None]) -> None:
        """Set (bytes) and delete (None) keys of a session's data. The same unit must save the session too."""
        self._draft.data.setdefault(session_id, {}).update(changed)

    def put_caller(self, name: str, caller: CallerRecord | None) -> None:
        """Save a caller, or delete it (None). The same unit must record an event, whose revision the caller has."""
        self._draft.callers[name] = caller

    def keep_answer(self, answer: KeptAnswer) -> None:
        """Keep the first answer to a call. This also deletes some answers that have expired."""
        self._draft.answers.append(answer)
        self._draft.forget = self.now

    def forget_answers(self) -> None:
        """Delete some of the answers that have expired."""
        self._draft.forget = self.now

    def prune(self, ids: Sequence[SessionId]) -> None:
        """Delete the history of ended sessions."""
        self._draft.pruned.extend(ids)

    def move_horizon(self, horizon: Revision) -> None:
        """Delete the log up to and including this revision."""
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
        """Record an event about a session that it does not change. Changes of a session use `save`."""
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
        """Record an event that belongs to no session."""
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
        """Run one unit. If it raises, the exception is passed on and nothing of the unit is kept."""
        draft, before = self._draft, self.revision
        try:
            result = unit.apply(self)
            _check_recorded(draft, before)
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


def _old_token_clients(events: Iterable[Event], session_id: SessionId) -> list[ClientContext]:
    return [
        event.client
        for event in events
        if event.session_id == session_id and event.type is EventType.OLD_TOKEN_PRESENTED
    ]


def _changed(read: Mapping[str, T], changes: Iterable[Mapping[str, T | None]]) -> dict[str, T]:
    """Return what was read with changes applied in their order; None: the entry was deleted."""
    merged: dict[str, T | None] = dict(read)
    for change in changes:
        merged.update(change)
    return {name: value for name, value in merged.items() if value is not None}


def _check_recorded(draft: Changes, before: Revision) -> None:
    """Raise AssertionError if the draft changes a session or its data without recording an event."""
    for session in draft.sessions.values():
        if session.revision <= before:
            raise AssertionError(f"session {session.id} was changed without an event")
    if draft.callers and not draft.events:
        raise AssertionError(f"callers were changed without an event: {sorted(draft.callers)}")
    if draft.keys is not None and not draft.events:
        raise AssertionError("the key ring was changed without an event")
    for session_id in draft.data:
        if session_id not in draft.sessions:
            raise AssertionError(f"the data of session {session_id} was changed without an event")


def _by_subject(
    index: dict[tuple[str, str], set[SessionId]], sessions: Iterable[Session]
) -> dict[tuple[str, str], set[SessionId]]:
    for session in sessions:
        index.setdefault((session.application, session.subject), set()).add(session.id)
    return index
