"""Units that give tokens: opening, authenticating, rolling; and refreshing, which renews a lifetime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sessiond.changes.idempotency import KEEP_FOR
from sessiond.changes.judging import Call, Outcome, checked_size, end_session, needs_of, settle
from sessiond.domain import session as lifecycle
from sessiond.domain.errors import InvalidField, SubjectMismatch
from sessiond.domain.event import EventType
from sessiond.domain.judge import Judgement, Presented, Verdict
from sessiond.domain.policy import LimitRule
from sessiond.domain.session import Session
from sessiond.domain.values import Authentication, Cause, CauseKind, Instant, SessionId
from sessiond.eventlog.journal import NOTHING, Needs, Work
from sessiond.store.contract import KeptAnswer

__all__ = ["Authenticate", "Choice", "Create", "Refresh", "Roll"]

_OPENED = Judgement(Verdict.VALID)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a subject chose when the limit stood in the way, under a ticket that is good once.

    `key` names the ticket among the kept answers, so that using it twice is noticed.
    """

    key: bytes
    expires: Instant
    evict: Sequence[SessionId]


@dataclass(frozen=True, slots=True)
class _Room:
    evicted: tuple[SessionId, ...] = ()
    refused: tuple[Session, ...] | None = None


_ROOM = _Room()  # there is no limit


def _with_limit(needs: Needs, call: Call, subject: str, choice: Choice | None) -> Needs:
    policy = call.policy
    subjects = [(call.application, subject)] if subject and (policy.max_sessions or policy.revokes_subjects) else []
    if not subjects and choice is None:
        return needs
    return replace(needs, subjects=subjects, answers=() if choice is None else (choice.key,))


def _make_room(work: Work, call: Call, subject: str, own: SessionId | None, choice: Choice | None) -> _Room:
    """See to it that one more session of the subject is within the limit, as the policy says.

    Decided against the transaction's own state, so that simultaneous logins cannot pass the limit together.
    """
    if choice is not None:
        _use_ticket(work, choice)
    policy = call.policy
    if not subject or not policy.max_sessions:
        return _ROOM
    live = [session for session in work.live_sessions(call.application, subject) if session.id != own]
    if len(live) < policy.max_sessions:
        return _ROOM
    cause = Cause(CauseKind.CONCURRENCY_LIMIT)
    work.record_other(EventType.CONCURRENCY_LIMIT_REACHED, call.application, call.cause, subject=subject)
    excess = len(live) - policy.max_sessions + 1
    match policy.on_limit:
        case LimitRule.EVICT_OLDEST:
            doomed = sorted(live, key=lambda session: (session.created, session.id))[:excess]
        case LimitRule.EVICT_LEAST_RECENT:
            doomed = sorted(live, key=lambda session: (session.last_active, session.id))[:excess]
        case LimitRule.ASK if choice is not None:
            doomed = [session for session in live if session.id in choice.evict]
            if len(doomed) < excess:
                raise InvalidField("evict_session_ids", f"must name at least {excess} of the subject's live sessions")
        case _:
            newest_first = sorted(live, key=lambda session: session.id, reverse=True)
            return _Room(refused=tuple(newest_first))
    for session in doomed:
        end_session(work, call, session, cause)
    return _Room(evicted=tuple(session.id for session in doomed))


def _use_ticket(work: Work, choice: Choice) -> None:
    if work.now >= choice.expires or work.answer(choice.key) is not None:
        raise InvalidField("ticket", "has been used or has expired; repeat the call without it to get another")
    # Longer than the ticket itself: a clock that is set back must not make it good again.
    work.keep_answer(KeptAnswer(choice.key, bytes(32), b"", Instant(choice.expires + KEEP_FOR)))


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
    persistent: bool = False
    login_page: bool = False
    choice: Choice | None = None

    def needs(self) -> Needs:
        """The subject's live sessions, where there is a limit."""
        return _with_limit(NOTHING, self.call, self.subject, self.choice)

    def apply(self, work: Work) -> Outcome:
        """Write the session, its first data, and the event; unless the limit stands in the way."""
        room = _ROOM
        if self.call.policy.max_sessions or self.choice is not None:
            room = _make_room(work, self.call, self.subject, None, self.choice)
            if room.refused is not None:
                return Outcome(_OPENED, None, refused=room.refused)
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
            persistent=self.persistent,
            login_page=self.login_page,
        )
        if self.data:
            session = lifecycle.with_data(session, checked_size("data", self.data, self.call.policy))
            work.put_data(session.id, self.data)
        work.put(session)
        work.record(EventType.SESSION_CREATED, session, self.call.cause, self.call.client)
        return Outcome(_OPENED, session, room.evicted)


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Bind a subject, authenticate the same one again, or elevate: always a roll."""

    call: Call
    presented: Presented
    subject: str
    digest: bytes
    level: int
    methods: tuple[str, ...]
    persistent: bool = False
    elevates: bool = False
    choice: Choice | None = None

    def needs(self) -> Needs:
        """The session, and the subject's other live sessions, where there is a limit."""
        return _with_limit(needs_of(self.call, self.presented), self.call, self.subject, self.choice)

    def apply(self, work: Work) -> Outcome:
        """Raises `SubjectMismatch` where the session is somebody else's."""
        outcome = settle(work, self.call, self.presented)
        session = outcome.session
        if session is None:
            return outcome
        if session.subject not in ("", self.subject):
            raise SubjectMismatch("subject: the session belongs to another subject; revoke it and open a new one")
        authentication = Authentication(self.level, self.methods, work.now)
        room = _ROOM
        if self.elevates:
            if not session.subject:
                raise SubjectMismatch("elevate: an anonymous session has nothing to elevate; authenticate it first")
            session = lifecycle.elevate(
                session, authentication, self.call.client, self.digest, self.call.policy, work.now
            )
        else:
            if not session.subject or self.choice is not None:  # authenticating again takes no second place
                room = _make_room(work, self.call, self.subject, session.id, self.choice)
            if room.refused is not None:
                return Outcome(_OPENED, None, refused=room.refused)
            session = lifecycle.authenticate(
                session,
                self.subject,
                authentication,
                self.call.client,
                self.digest,
                self.call.policy,
                work.now,
                persistent=self.persistent,
            )
        work.put(session)
        work.record(EventType.SESSION_AUTHENTICATED, session, self.call.cause, self.call.client)
        work.record(EventType.SESSION_ROLLED, session, self.call.cause, self.call.client)
        # A token that did not suffice for anything else was enough for this.
        return Outcome(_OPENED, session, room.evicted)


@dataclass(frozen=True, slots=True)
class Roll:
    """Replace the token at a privilege change."""

    call: Call
    presented: Presented
    digest: bytes

    def needs(self) -> Needs:
        """The session."""
        return needs_of(self.call, self.presented)

    def apply(self, work: Work) -> Outcome:
        """A fresh secret, no overlap."""
        outcome = settle(work, self.call, self.presented)
        if outcome.usable is None:
            return Outcome(outcome.judgement, None)
        session = lifecycle.roll(outcome.usable, self.digest, self.call.policy, work.now)
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
        return needs_of(self.call, self.presented)

    def apply(self, work: Work) -> Outcome:
        """Last activity starts again, and the lifetime where the policy says so."""
        outcome = settle(work, self.call, self.presented)
        if outcome.usable is None:
            return Outcome(outcome.judgement, None)
        session = lifecycle.refresh(outcome.usable, self.call.policy, work.now)
        work.put(session)
        work.record(EventType.SESSION_REFRESHED, session, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session)
