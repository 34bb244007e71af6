"""The units of work: what each change decides, in one go, from the state it is committed against.

Every unit that takes a token judges it here, inside the transaction: what was true when the call came in does not
count, so no call can act on a session that another has just ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sessiond.domain import session as lifecycle
from sessiond.domain.errors import InvalidField, SessionNotFound, SubjectMismatch, VersionMismatch
from sessiond.domain.event import EventType
from sessiond.domain.judge import UNKNOWN, Judgement, Presented, Verdict, ended_verdict, judge
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import Authentication, Cause, CauseKind, ClientContext, Instant, Revision, SessionId
from sessiond.journal import NOTHING, Needs, Work

__all__ = [
    "Authenticate",
    "Call",
    "Create",
    "Expire",
    "NamedSession",
    "Outcome",
    "Prune",
    "PruneLog",
    "Refresh",
    "Revoke",
    "RevokeMany",
    "Roll",
    "SaveActivity",
    "Settle",
    "UpdateData",
]


@dataclass(frozen=True, slots=True)
class Call:
    """What every call has: the application, its policy, who calls, and what they saw of the client."""

    application: str
    policy: Policy
    actor: str
    client: ClientContext
    reason: str = ""

    @property
    def cause(self) -> Cause:
        """The call as the cause of what it does."""
        return Cause(CauseKind.REQUEST, self.actor, self.reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a presented token was worth, and the session as it is after the unit.

    `session` is None where the verdict is not VALID.
    """

    judgement: Judgement
    session: Session | None

    @property
    def verdict(self) -> Verdict:
        """The judgement's verdict."""
        return self.judgement.verdict


NamedSession = Presented | SessionId
"""A session as a call names it: by an opened token, or by its public id."""


def _id_of(named: NamedSession) -> SessionId:
    return named if isinstance(named, SessionId) else named.session_id


def _settle(work: Work, call: Call, presented: Presented) -> Outcome:
    """Judge a token and carry out what follows from it."""
    session = work.session(presented.session_id)
    if session is None or session.application != call.application:
        return Outcome(UNKNOWN, None)
    judgement = judge(session, presented, call.policy, work.now)
    if judgement.signals:
        work.record(
            EventType.HIJACK_SUSPECTED, session, Cause(CauseKind.SIGNAL), call.client, signals=judgement.signals
        )
    if judgement.verdict is not Verdict.VALID:
        return Outcome(judgement, None)
    if judgement.activates:
        session = lifecycle.activate(session, presented.generation, work.now)
        work.put(session)
        work.record(EventType.SESSION_RENEWED, session, Cause(CauseKind.RENEWAL), call.client)
    return Outcome(judgement, session)


def _look_up(work: Work, call: Call, session_id: SessionId) -> Outcome:
    """A session named by its id. Raises `SessionNotFound`."""
    session = work.session(session_id)
    if session is None or session.application != call.application:
        raise SessionNotFound("session_id: no such session in this application")
    session = lifecycle.expired_view(session, work.now)
    verdict = ended_verdict(session)
    return Outcome(Judgement(verdict), session if verdict is Verdict.VALID else None)


def _find(work: Work, call: Call, named: NamedSession) -> Outcome:
    return _look_up(work, call, named) if isinstance(named, SessionId) else _settle(work, call, named)


@dataclass(frozen=True, slots=True)
class Create:
    """Open a session."""

    call: Call
    session_id: SessionId
    subject: str
    digest: bytes
    level: int
    methods: tuple[str, ...]
    data: Mapping[str, bytes]

    def needs(self) -> Needs:
        """Nothing."""
        return NOTHING

    def apply(self, work: Work) -> Session:
        """Write the session, its first data, and the event."""
        authentication = Authentication(self.level, self.methods, work.now) if self.subject else None
        session = lifecycle.open_session(
            self.session_id,
            self.call.application,
            self.subject,
            self.digest,
            authentication,
            self.call.client,
            self.call.policy,
            work.now,
        )
        if self.data:
            session = lifecycle.with_data(session, _checked_size("data", self.data, self.call.policy))
            work.put_data(session.id, self.data)
        work.put(session)
        work.record(EventType.SESSION_CREATED, session, self.call.cause, self.call.client)
        return session


@dataclass(frozen=True, slots=True)
class Settle:
    """Judge a token whose verdict has consequences: a first use, a suspicion, or activity that must be durable."""

    call: Call
    presented: Presented
    passive: bool

    def needs(self) -> Needs:
        """The session."""
        return Needs(sessions=(self.presented.session_id,))

    def apply(self, work: Work) -> Outcome:
        """Judge, and carry out what follows."""
        outcome = _settle(work, self.call, self.presented)
        if outcome.session is None or self.passive:
            return outcome
        touched = lifecycle.touch(outcome.session, self.call.policy, work.now)
        work.put_activity(touched.id, touched.last_active, touched.idle_deadline)
        return Outcome(outcome.judgement, touched)


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Bind a subject, or authenticate the same one again: always a roll."""

    call: Call
    presented: Presented
    subject: str
    digest: bytes
    level: int
    methods: tuple[str, ...]

    def needs(self) -> Needs:
        """The session."""
        return Needs(sessions=(self.presented.session_id,))

    def apply(self, work: Work) -> Outcome:
        """Raises `SubjectMismatch` where the session is somebody else's."""
        outcome = _settle(work, self.call, self.presented)
        if outcome.session is None:
            return outcome
        if outcome.session.subject not in ("", self.subject):
            raise SubjectMismatch("subject: the session belongs to another subject; revoke it and open a new one")
        session = lifecycle.authenticate(
            outcome.session,
            self.subject,
            Authentication(self.level, self.methods, work.now),
            self.call.client,
            self.digest,
            self.call.policy,
            work.now,
        )
        work.put(session)
        work.record(EventType.SESSION_AUTHENTICATED, session, self.call.cause, self.call.client)
        work.record(EventType.SESSION_ROLLED, session, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session)


@dataclass(frozen=True, slots=True)
class Roll:
    """Replace the token at a privilege change."""

    call: Call
    presented: Presented
    digest: bytes

    def needs(self) -> Needs:
        """The session."""
        return Needs(sessions=(self.presented.session_id,))

    def apply(self, work: Work) -> Outcome:
        """A fresh secret, no overlap."""
        outcome = _settle(work, self.call, self.presented)
        if outcome.session is None:
            return outcome
        session = lifecycle.roll(outcome.session, self.digest, self.call.policy, work.now)
        work.put(session)
        work.record(EventType.SESSION_ROLLED, session, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session)


@dataclass(frozen=True, slots=True)
class Refresh:
    """Make a session as good as new, as far as policy allows."""

    call: Call
    presented: Presented

    def needs(self) -> Needs:
        """The session."""
        return Needs(sessions=(self.presented.session_id,))

    def apply(self, work: Work) -> Outcome:
        """Last activity starts again, and the lifetime where the policy says so."""
        outcome = _settle(work, self.call, self.presented)
        if outcome.session is None:
            return outcome
        session = lifecycle.refresh(outcome.session, self.call.policy, work.now)
        work.put(session)
        work.record(EventType.SESSION_REFRESHED, session, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session)


@dataclass(frozen=True, slots=True)
class Revoke:
    """End one session."""

    call: Call
    named: NamedSession

    def needs(self) -> Needs:
        """The session."""
        return Needs(sessions=(_id_of(self.named),))

    def apply(self, work: Work) -> tuple[Outcome, bool]:
        """The outcome with the session as it is now, and whether this ended it."""
        outcome = _find(work, self.call, self.named)
        if outcome.session is None:
            known = work.session(self.named) if isinstance(self.named, SessionId) else None
            ended = None if known is None else lifecycle.expired_view(known, work.now)
            return Outcome(outcome.judgement, ended), False
        return Outcome(outcome.judgement, _revoke(work, self.call, outcome.session)), True


@dataclass(frozen=True, slots=True)
class RevokeMany:
    """End the given sessions, where they still live and still have the subject that they were found by."""

    call: Call
    found: Sequence[Session]

    def needs(self) -> Needs:
        """The sessions."""
        return Needs(sessions=[session.id for session in self.found])

    def apply(self, work: Work) -> int:
        """How many this ended."""
        ended = 0
        for found in self.found:
            session = work.session(found.id)
            if session is None or session.subject != found.subject:
                continue
            if lifecycle.expired_view(session, work.now).ending is not None:
                continue
            _revoke(work, self.call, session)
            ended += 1
        return ended


def _revoke(work: Work, call: Call, session: Session) -> Session:
    ended = lifecycle.end(session, work.now, call.cause)
    work.put_ended(ended, call.policy.retention)
    work.record(EventType.SESSION_REVOKED, ended, call.cause, call.client)
    return ended


@dataclass(frozen=True, slots=True)
class UpdateData:
    """Set and delete keys of a session's data, all or none."""

    call: Call
    named: NamedSession
    changed: Mapping[str, bytes | None]
    expected_version: int | None

    def needs(self) -> Needs:
        """The session and its data."""
        session_id = _id_of(self.named)
        return Needs(sessions=(session_id,), data=(session_id,))

    def apply(self, work: Work) -> Outcome:
        """Raises `VersionMismatch` and, where the data would grow too large, `InvalidField`."""
        outcome = _find(work, self.call, self.named)
        if outcome.session is None:
            return outcome
        session = outcome.session
        if self.expected_version is not None and self.expected_version != session.data_version:
            raise VersionMismatch(self.expected_version, session.data_version)
        data = work.data(session.id)
        for key, value in self.changed.items():
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value
        session = lifecycle.with_data(session, _checked_size("set", data, self.call.policy))
        work.put_data(session.id, self.changed)
        work.put(session)
        work.record(EventType.SESSION_DATA_CHANGED, session, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session)


def _checked_size(field: str, data: Mapping[str, bytes], policy: Policy) -> int:
    size = sum(len(key.encode()) + len(value) for key, value in data.items())
    if size > policy.max_data_bytes:
        raise InvalidField(
            field, f"the session's data would take {size} bytes, the policy's max_data_bytes is {policy.max_data_bytes}"
        )
    return size


@dataclass(frozen=True, slots=True)
class SaveActivity:
    """Write behind the activity that only memory has."""

    activities: Sequence[tuple[SessionId, Instant, Instant | None]]

    def needs(self) -> Needs:
        """Nothing: the store itself never revives nor moves backwards."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Write the last activity and the deadline that follows from it."""
        for session_id, at, idle_deadline in self.activities:
            work.put_activity(session_id, at, idle_deadline)


@dataclass(frozen=True, slots=True)
class Expire:
    """End the named sessions whose deadline has passed, at the deadline itself."""

    ids: Sequence[SessionId]
    policies: Mapping[str, Policy]
    fallback: Policy

    def needs(self) -> Needs:
        """The sessions."""
        return Needs(sessions=self.ids)

    def apply(self, work: Work) -> int:
        """How many this ended. One that only memory knows to be active gets its activity written instead."""
        ended = 0
        for session_id in self.ids:
            session = work.session(session_id)
            if session is None or session.ending is not None:
                continue
            expired = lifecycle.expired_view(session, work.now)
            if expired.ending is None:
                work.put_activity(session_id, session.last_active, session.idle_deadline)
                continue
            policy = self.policies.get(session.application, self.fallback)
            work.put_ended(expired, policy.retention)
            work.record(EventType.SESSION_EXPIRED, expired, expired.ending.cause)
            ended += 1
        return ended


@dataclass(frozen=True, slots=True)
class Prune:
    """Drop the history of ended sessions whose retention is over."""

    ids: Sequence[SessionId]

    def needs(self) -> Needs:
        """Nothing: the store drops only what has ended."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Drop them."""
        work.prune(self.ids)


@dataclass(frozen=True, slots=True)
class PruneLog:
    """Move the horizon."""

    horizon: Revision

    def needs(self) -> Needs:
        """Nothing."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Drop the log up to the new horizon."""
        work.move_horizon(self.horizon)
