"""What every unit that takes a token shares: judging inside the transaction, and carrying out what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sessiond.domain import lifecycle
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField, SessionNotFound
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.judge import UNKNOWN, Judgement, Presented, Verdict, ended_verdict, judge
from sessiond.domain.policy import Policy
from sessiond.domain.reactions import Consequences, consequences_of
from sessiond.domain.session import Session, in_application, retention_of
from sessiond.domain.signals import Reaction, Signal, as_copies
from sessiond.domain.values import Cause, CauseKind, ClientContext, SessionId
from sessiond.eventlog.work import AT_ONCE, DoFirst, Needs, Work

__all__ = [
    "Crowd",
    "EndSome",
    "NamedSession",
    "Outcome",
    "Suspicion",
    "carry_out",
    "checked_size",
    "end_session",
    "expire_due",
    "find",
    "judge_and_apply",
    "needs_of",
    "save_lowered",
    "size_of",
]


@immutable
class Crowd:
    """The live sessions that stand in the way of one more, newest first; `count` is how many there are in all."""

    sessions: tuple[Session, ...]
    count: int


@immutable
class Outcome:
    """The judgement on a presented token, and the session as it is after the unit.

    session    None if the verdict is neither VALID nor INSUFFICIENT, or if the limit stood in the way
    evicted    the sessions that had to end for this one
    refused    the subject's live sessions, if the limit of concurrent sessions stood in the way; else None
    replaced   the verdict on the presented token, if a fresh session was opened instead of using it; else None
    data       the session's data after the unit, if it was asked for; else None
    """

    judgement: Judgement
    session: Session | None
    evicted: tuple[SessionId, ...] = ()
    refused: Crowd | None = None
    replaced: Verdict | None = None
    data: Mapping[str, bytes] | None = None

    @property
    def verdict(self) -> Verdict:
        """The judgement's verdict."""
        return self.judgement.verdict

    @property
    def usable(self) -> Session | None:
        """The session, if the token suffices for what only its subject may do."""
        return self.session if self.verdict is Verdict.VALID else None


@immutable
class Suspicion:
    """What was noticed about a use of a session whose record has the client `expected`."""

    signals: tuple[Signal, ...]
    expected: ClientContext


NamedSession = Presented | SessionId
"""A session as a call names it: by an opened token, or by its public id."""


def needs_of(call: Call, named: NamedSession) -> Needs:
    """What a unit needs that judges a session: itself, and its subject's others if a signal may end them all."""
    session_id = named if isinstance(named, SessionId) else named.session_id
    return Needs(sessions=(session_id,), kin=(session_id,) if call.policy.revokes_subjects else ())


def judge_and_apply(
    work: Work,
    call: Call,
    presented: Presented,
    suspicion: Suspicion | None = None,
    *,
    renews: bool = True,
    allow_suspicious: bool = False,
) -> Outcome:
    """Judge a token and carry out what follows from it.

    `renews` says whether a first use counts as one. `allow_suspicious` is for what an intruder may do as well, since it
    harms nobody or proves who it is (authenticate, revoke, report): signals of a valid token's use count for nothing.
    """
    session = in_application(work.session(presented.session_id), call.application)
    if session is None:
        return Outcome(UNKNOWN, None)
    judgement = judge(session, presented, call.policy, work.now)
    expire_due(work, session, call.policy)
    if judgement.missed and work.is_new_old_token(session, call.client):
        returned = replace(session, old_token=presented.generation)
        session = work.save(returned, EventType.OLD_TOKEN_PRESENTED, Cause(CauseKind.SIGNAL), call.client)
    if judgement.verdict is Verdict.REPLAYED and work.is_own_client(session, call.client, call.policy):
        judgement = replace(judgement, signals=as_copies(judgement.signals))
    one_holder = (
        judgement.verdict is Verdict.VALID
        and session.old_token is not None
        and work.presented_old_token(session, call.client, call.policy)
    )
    if one_holder:
        judgement = replace(judgement, signals=as_copies(judgement.signals))
    if judgement.verdict is Verdict.VALID:
        if allow_suspicious and judgement.signals:
            judgement = replace(judgement, signals=())
        # Another login may have given the session to this very client meanwhile.
        if suspicion is not None and session.client == suspicion.expected:
            judgement = replace(judgement, signals=(*judgement.signals, *suspicion.signals))
    consequences = consequences_of(session, judgement, call.policy)
    session = carry_out(work, call, session, consequences, one_holder=one_holder)
    judgement = consequences.judgement
    if judgement.verdict not in (Verdict.VALID, Verdict.INSUFFICIENT):
        return Outcome(judgement, None)
    # A stranger's denied use renews nothing: the honest client would be taken for a thief after the overlap.
    if renews and judgement.activates and judgement.verdict is Verdict.VALID:
        session = lifecycle.activate(session, presented.generation, work.now)
        session = work.save(session, EventType.SESSION_RENEWED, Cause(CauseKind.RENEWAL), call.client)
    return Outcome(judgement, session)


def carry_out(
    work: Work,
    call: Call,
    session: Session,
    consequences: Consequences,
    *,
    always: bool = False,
    one_holder: bool = False,
) -> Session:
    """Carry out what follows from a judgement; the session as it is after that.

    A suspicion that was reported lately is not reported again, unless it changes the session or `always` is set.
    `one_holder`: the same client presented the old token and now uses the new one, so the old one is dealt with.
    """
    signals, reaction = consequences.judgement.signals, consequences.reaction
    if reaction is Reaction.IGNORE:
        return session
    cause = Cause(CauseKind.SIGNAL)
    if consequences.holds_session:
        held = replace(session, must_authenticate=True)
        session = work.save(held, EventType.HIJACK_SUSPECTED, cause, call.client, signals, reaction)
    elif one_holder and not consequences.ends_session:
        settled = replace(session, old_token=None)
        session = work.save(settled, EventType.HIJACK_SUSPECTED, cause, call.client, signals, reaction)
    elif always or consequences.changes_session or work.is_news(session.id, signals, call.policy):
        work.record(EventType.HIJACK_SUSPECTED, session, cause, call.client, signals, reaction)
    if consequences.ends_session:
        session = end_session(work, call, session, cause)
    if consequences.ends_subject:
        others = work.live_sessions(session.application, session.subject)
        # Another unit of the group may have had more of them read than this one needs: count what is there.
        if len(others) > AT_ONCE or work.crowd(session.application, session.subject):
            ids = [other.id for other in others] + work.overdue(session.application, session.subject)
            raise DoFirst(EndSome(call, ids[:AT_ONCE], session.subject, cause))
        for other in others:
            end_session(work, call, other, cause)
    return session


@immutable
class EndSome:
    """End these sessions of a subject, some of more: a unit that must end them all does not end them at once."""

    call: Call
    ids: Sequence[SessionId]
    subject: str
    cause: Cause

    def needs(self) -> Needs:
        """The sessions."""
        return Needs(sessions=self.ids)

    def apply(self, work: Work) -> None:
        """End those that live and are still the subject's."""
        for session_id in self.ids:
            session = in_application(work.session(session_id), self.call.application)
            if session is None or session.ending is not None or session.subject != self.subject:
                continue
            session = expire_due(work, session, self.call.policy)
            if session.ending is None:
                end_session(work, self.call, session, self.cause)


def end_session(work: Work, call: Call, session: Session, cause: Cause) -> Session:
    """Revoke a live session; the session as it is then."""
    ended = lifecycle.end(session, work.now, cause)
    retention = retention_of(session, call.policy)
    return work.save_ended(ended, retention, EventType.SESSION_REVOKED, cause, call.client)


def expire_due(work: Work, session: Session, policy: Policy) -> Session:
    """The session as it is now; a deadline that has passed is recorded.

    An answer that says "expired" states a fact: a clock that is set back must not make the session live again.
    """
    expired = lifecycle.expired_view(session, work.now)
    if expired.ending is None or session.ending is not None:
        return expired
    retention = retention_of(session, policy)
    return work.save_ended(expired, retention, EventType.SESSION_EXPIRED, expired.ending.cause)


def save_lowered(work: Work, call: Call, before: Session, active: Session) -> Session:
    """The session after activity. If a remembered session's level has fallen, it is saved, with the event of that."""
    if active.authentication == before.authentication:
        return active
    return work.save(active, EventType.SESSION_LEVEL_LOWERED, Cause(CauseKind.IDLE_TIMEOUT), call.client)


def find(work: Work, call: Call, named: NamedSession, *, allow_suspicious: bool = False) -> Outcome:
    """A session as a call names it. Raises `SessionNotFound` for an id."""
    if not isinstance(named, SessionId):
        return judge_and_apply(work, call, named, allow_suspicious=allow_suspicious)
    session = in_application(work.session(named), call.application)
    if session is None:
        raise SessionNotFound
    session = expire_due(work, session, call.policy)
    verdict = ended_verdict(session)
    return Outcome(Judgement(verdict), session if verdict is Verdict.VALID else None)


MAX_KEYS = 1_000
"""How many keys a session's data may have: each costs a row, whatever its length."""


def size_of(key: str, value: bytes | None) -> int:
    """How many bytes one key takes of the bound on a session's data; None: it is not there."""
    return 0 if value is None else len(key.encode()) + len(value)


def checked_size(field: str, keys: int, size: int, policy: Policy) -> int:
    """How many bytes the data takes. Raises `InvalidField` if these are too many, or the keys."""
    if keys > MAX_KEYS:
        raise InvalidField(field, f"the session's data would have {keys} keys, at most {MAX_KEYS} are allowed")
    if size > policy.max_data_bytes:
        raise InvalidField(
            field, f"the session's data would take {size} bytes, the policy's max_data_bytes is {policy.max_data_bytes}"
        )
    return size
