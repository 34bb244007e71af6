"""What the units share: judging inside the transaction, and what follows from a judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sessiond.domain import session as lifecycle
from sessiond.domain.errors import InvalidField, SessionNotFound
from sessiond.domain.event import EventType
from sessiond.domain.judge import UNKNOWN, Judgement, Presented, Verdict, ended_verdict, judge
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import OF_THE_SESSION, Reaction, Signal
from sessiond.domain.values import Cause, CauseKind, ClientContext, SessionId
from sessiond.eventlog.journal import Needs, Work

__all__ = [
    "Call",
    "NamedSession",
    "Outcome",
    "Suspicion",
    "checked_size",
    "end_session",
    "expire_due",
    "find",
    "needs_of",
    "react",
    "settle",
]


@dataclass(frozen=True, slots=True)
class Call:
    """What every call has: the application, its policy, who calls, and what they saw of the client.

    `tells_client` is false where the call says nothing of a client; saying that nothing was seen is another matter.
    """

    application: str
    policy: Policy
    actor: str
    client: ClientContext
    reason: str = ""
    tells_client: bool = True

    @property
    def cause(self) -> Cause:
        """The call as the cause of what it does."""
        return Cause(CauseKind.REQUEST, self.actor, self.reason)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a presented token was worth, and the session as it is after the unit.

    session   None where the verdict is neither VALID nor INSUFFICIENT, or where the limit stood in the way
    evicted   the sessions that had to end for this one
    refused   the subject's live sessions, where the limit of concurrent sessions stood in the way; else None
    """

    judgement: Judgement
    session: Session | None
    evicted: tuple[SessionId, ...] = ()
    refused: tuple[Session, ...] | None = None

    @property
    def verdict(self) -> Verdict:
        """The judgement's verdict."""
        return self.judgement.verdict

    @property
    def usable(self) -> Session | None:
        """The session, where the token suffices for what only its subject may do."""
        return self.session if self.verdict is Verdict.VALID else None


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What was noticed about a use of a session whose record has the client `expected`.

    `fresh` says that it was not told lately: a repeat is not told again.
    """

    signals: tuple[Signal, ...]
    expected: ClientContext
    fresh: bool


NamedSession = Presented | SessionId
"""A session as a call names it: by an opened token, or by its public id."""


def needs_of(call: Call, named: NamedSession) -> Needs:
    """What a unit needs that judges a session: itself, and its subject's others where a signal may end them all."""
    session_id = named if isinstance(named, SessionId) else named.session_id
    return Needs(sessions=(session_id,), kin=(session_id,) if call.policy.revokes_subjects else ())


def settle(
    work: Work, call: Call, presented: Presented, suspicion: Suspicion | None = None, *, renews: bool = True
) -> Outcome:
    """Judge a token and carry out what follows from it; `renews` says whether a first use counts as one."""
    session = work.session(presented.session_id)
    if session is None or session.application != call.application:
        return Outcome(UNKNOWN, None)
    judgement = judge(session, presented, call.policy, work.now)
    expire_due(work, session, call.policy)
    fresh = True
    if suspicion is not None:
        fresh = suspicion.fresh
        # Another login may have given the session to this very client meanwhile.
        if judgement.verdict is Verdict.VALID and session.client == suspicion.expected:
            judgement = replace(judgement, signals=suspicion.signals)
    if judgement.signals:
        judgement = react(work, call, session, judgement, fresh=fresh)
        session = work.session(session.id) or session
    if session.must_authenticate and judgement.verdict is Verdict.VALID:
        judgement = replace(judgement, verdict=Verdict.INSUFFICIENT)
    if judgement.verdict not in (Verdict.VALID, Verdict.INSUFFICIENT):
        return Outcome(judgement, None)
    # A stranger's denied use renews nothing: the honest client would be taken for a thief after the overlap.
    if renews and judgement.activates and judgement.verdict is Verdict.VALID:
        session = lifecycle.activate(session, presented.generation, work.now)
        work.put(session)
        work.record(EventType.SESSION_RENEWED, session, Cause(CauseKind.RENEWAL), call.client)
    return Outcome(judgement, session)


def react(work: Work, call: Call, session: Session, judgement: Judgement, *, fresh: bool) -> Judgement:
    """Carry out the policy's reaction to a judgement's signals; the judgement as it is after that."""
    reaction = call.policy.reaction_to(judgement.signals)
    if reaction is Reaction.IGNORE:
        return judgement
    cause = Cause(CauseKind.SIGNAL)
    revokes = reaction in (Reaction.REVOKE_SESSION, Reaction.REVOKE_SUBJECT)
    if fresh or revokes:
        work.record(
            EventType.HIJACK_SUSPECTED,
            session,
            cause,
            call.client,
            signals=judgement.signals,
            reaction=reaction,
        )
    if revokes:
        end_session(work, call, session, cause)
    if reaction is Reaction.REVOKE_SUBJECT and session.subject:
        for other in work.live_sessions(session.application, session.subject):
            end_session(work, call, other, cause)
    if reaction is Reaction.STEP_UP and any(
        s.type in OF_THE_SESSION and call.policy.reactions[s.type] is reaction for s in judgement.signals
    ):
        work.put(replace(session, must_authenticate=True))
    if judgement.verdict is not Verdict.VALID:
        return judgement
    if revokes:
        return Judgement(Verdict.REVOKED, signals=judgement.signals)
    return replace(judgement, verdict=Verdict.INSUFFICIENT) if reaction is Reaction.STEP_UP else judgement


def end_session(work: Work, call: Call, session: Session, cause: Cause) -> Session:
    """Revoke a live session; the session as it is then."""
    ended = lifecycle.end(session, work.now, cause)
    work.put_ended(ended, call.policy.retention)
    work.record(EventType.SESSION_REVOKED, ended, cause, call.client)
    return ended


def expire_due(work: Work, session: Session, policy: Policy) -> Session:
    """The session as it is now; a deadline that has passed is recorded.

    Whoever is told of an expiry is told of a fact: a clock that is set back must not make the session live again.
    """
    expired = lifecycle.expired_view(session, work.now)
    if expired.ending is not None and session.ending is None:
        work.put_ended(expired, policy.retention)
        work.record(EventType.SESSION_EXPIRED, expired, expired.ending.cause)
    return expired


def find(work: Work, call: Call, named: NamedSession) -> Outcome:
    """A session as a call names it. Raises `SessionNotFound` for an id."""
    if not isinstance(named, SessionId):
        return settle(work, call, named)
    session = work.session(named)
    if session is None or session.application != call.application:
        raise SessionNotFound("session_id: no such session in this application")
    session = expire_due(work, session, call.policy)
    verdict = ended_verdict(session)
    return Outcome(Judgement(verdict), session if verdict is Verdict.VALID else None)


def checked_size(field: str, data: Mapping[str, bytes], policy: Policy) -> int:
    """How many bytes the data takes. Raises `InvalidField` where that is too many."""
    size = sum(len(key.encode()) + len(value) for key, value in data.items())
    if size > policy.max_data_bytes:
        raise InvalidField(
            field, f"the session's data would take {size} bytes, the policy's max_data_bytes is {policy.max_data_bytes}"
        )
    return size
