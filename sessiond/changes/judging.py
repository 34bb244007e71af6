"""Shared by every unit that takes a token: judging it inside the transaction, and carrying out the consequences."""

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
from sessiond.eventlog.work import MAX_ENDED_PER_UNIT, Needs, PrerequisiteRequired, Work

__all__ = [
    "LimitReached",
    "EndBatch",
    "OpenedSessionRef",
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
class LimitReached:
    """A subject's live sessions, newest first, if its limit prevents one more. `count`: how many there are in all."""

    sessions: tuple[Session, ...]
    count: int


@immutable
class Outcome:
    """The judgement on a presented token, and the session after the unit.

    session        None if the verdict is neither VALID nor INSUFFICIENT, or if the limit prevented the change
    evicted        the sessions that were ended because of the limit
    limit_reached  the subject's live sessions, if the limit of concurrent sessions prevented the change; else None
    replaced       the verdict on the presented token, if a new session was opened instead of using it; else None
    data           the session's data after the unit, if requested; else None
    """

    judgement: Judgement
    session: Session | None
    evicted: tuple[SessionId, ...] = ()
    limit_reached: LimitReached | None = None
    replaced: Verdict | None = None
    data: Mapping[str, bytes] | None = None

    @property
    def verdict(self) -> Verdict:
        """Return the judgement's verdict."""
        return self.judgement.verdict

    @property
    def usable(self) -> Session | None:
        """Return the session if the verdict is VALID, else None."""
        return self.session if self.verdict is Verdict.VALID else None


@immutable
class Suspicion:
    """Signals found outside the transaction. They hold only while the session's home is still the client `expected`."""

    signals: tuple[Signal, ...]
    expected: ClientContext


OpenedSessionRef = Presented | SessionId
"""How a call names a session, after its token was opened: by the token's content, or by public id."""


def needs_of(call: Call, named: OpenedSessionRef) -> Needs:
    """Return what a unit that judges a session must read.

    That is the session and, if the policy has a reaction that ends all sessions of the subject, those too.
    """
    session_id = named if isinstance(named, SessionId) else named.session_id
    return Needs(sessions=(session_id,), subjects_of=(session_id,) if call.policy.revokes_subjects else ())


def judge_and_apply(
    work: Work,
    call: Call,
    presented: Presented,
    suspicion: Suspicion | None = None,
    *,
    renews: bool = True,
    allow_suspicious: bool = False,
) -> Outcome:
    """Judge a token and carry out the consequences.

    renews            whether the first use of a successor token makes its generation current
    allow_suspicious  ignore the judgement's own signals if the token is valid; for changes that are harmless in the
                      hands of an intruder, or that prove the subject's identity (authenticate, revoke, report)
    suspicion         signals found outside the transaction
    """
    session = in_application(work.session(presented.session_id), call.application)
    if session is None:
        return Outcome(UNKNOWN, None)
    judgement = judge(session, presented, call.policy, work.now)
    expire_due(work, session, call.policy)
    if judgement.may_have_missed_roll and work.is_new_old_token(session, call.client):
        returned = replace(session, old_token=presented.generation)
        session = work.save(returned, EventType.OLD_TOKEN_PRESENTED, Cause(CauseKind.SIGNAL), call.client)
    if judgement.verdict is Verdict.REPLAYED and work.is_own_client(session, call.client, call.policy):
        judgement = replace(judgement, signals=as_copies(judgement.signals))
    one_holder = (
        judgement.verdict is Verdict.VALID
        and not allow_suspicious
        and session.old_token is not None
        and work.presented_old_token(session, call.client, call.policy)
    )
    if one_holder:
        judgement = replace(judgement, signals=as_copies(judgement.signals))
    if judgement.verdict is Verdict.VALID:
        if allow_suspicious and judgement.signals:
            judgement = replace(judgement, signals=())
        # Ignore the signals if a login has made another client the session's home in the meantime.
        if suspicion is not None and session.client == suspicion.expected:
            judgement = replace(judgement, signals=(*judgement.signals, *suspicion.signals))
    consequences = consequences_of(session, judgement, call.policy)
    session = carry_out(work, call, session, consequences, one_holder=one_holder)
    judgement = consequences.judgement
    if judgement.verdict not in (Verdict.VALID, Verdict.INSUFFICIENT):
        return Outcome(judgement, None)
    # A denied use must not activate the successor: after the overlap the honest client's token would be a replay.
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
    """Carry out the consequences of a judgement. Return the session after that.

    A suspicion that was reported recently is not reported again, unless it changes the session or `always` is set,
    because the caller reports it.
    `one_holder` says that the same client presented the old token and now uses the new one: unless the session ends,
    its record of the old token is cleared.
    """
    signals, reaction = consequences.judgement.signals, consequences.reaction
    # What somebody reports is that caller's doing, whatever it leads to.
    cause = Cause(CauseKind.SIGNAL, call.caller.name) if always else Cause(CauseKind.SIGNAL)
    if reaction is Reaction.IGNORE:
        if one_holder:
            session = work.save(replace(session, old_token=None), EventType.SESSION_REFRESHED, cause, call.client)
        return session
    if consequences.requires_authentication:
        held = replace(session, must_authenticate=True, old_token=None if one_holder else session.old_token)
        session = work.save(held, EventType.HIJACK_SUSPECTED, cause, call.client, signals, reaction)
    elif one_holder and not consequences.ends_session:
        settled = replace(session, old_token=None)
        session = work.save(settled, EventType.HIJACK_SUSPECTED, cause, call.client, signals, reaction)
    elif always or consequences.changes_session or work.is_unreported(session.id, signals, call.policy):
        work.record(EventType.HIJACK_SUSPECTED, session, cause, call.client, signals, reaction)
    if consequences.ends_session:
        session = end_session(work, call, session, cause)
    if consequences.ends_subject:
        others = work.live_sessions(session.application, session.subject)
        # Do not rely on the limit of the read: another unit of the group may have requested more sessions.
        if len(others) > MAX_ENDED_PER_UNIT or work.count_if_truncated(session.application, session.subject):
            ids = [other.id for other in others] + work.overdue(session.application, session.subject)
            raise PrerequisiteRequired(EndBatch(call, ids[:MAX_ENDED_PER_UNIT], session.subject, cause))
        for other in others:
            end_session(work, call, other, cause)
    return session


@immutable
class EndBatch:
    """End these sessions of a subject. A unit that must end too many at once is preceded by several of these."""

    call: Call
    ids: Sequence[SessionId]
    subject: str
    cause: Cause

    def needs(self) -> Needs:
        """Return what to read: the sessions."""
        return Needs(sessions=self.ids)

    def apply(self, work: Work) -> None:
        """End those that are live and still belong to the subject."""
        for session_id in self.ids:
            session = in_application(work.session(session_id), self.call.application)
            if session is None or session.ending is not None or session.subject != self.subject:
                continue
            session = expire_due(work, session, self.call.policy)
            if session.ending is None:
                end_session(work, self.call, session, self.cause)


def end_session(work: Work, call: Call, session: Session, cause: Cause) -> Session:
    """Revoke a live session and return it ended."""
    ended = lifecycle.end(session, work.now, cause)
    retention = retention_of(session, call.policy)
    return work.save_ended(ended, retention, EventType.SESSION_REVOKED, cause, call.client)


def expire_due(work: Work, session: Session, policy: Policy) -> Session:
    """Return the session as it is now. If a deadline has passed, record the expiry.

    It is recorded before the caller sees the verdict, so that setting the clock back cannot revive the session.
    """
    expired = lifecycle.expired_view(session, work.now)
    if expired.ending is None or session.ending is not None:
        return expired
    retention = retention_of(session, policy)
    return work.save_ended(expired, retention, EventType.SESSION_EXPIRED, expired.ending.cause)


def save_lowered(work: Work, call: Call, before: Session, active: Session) -> Session:
    """Return the session after activity. If the level of a remembered session has dropped, save it with its event."""
    if active.authentication == before.authentication:
        return active
    return work.save(active, EventType.SESSION_LEVEL_LOWERED, Cause(CauseKind.IDLE_TIMEOUT), call.client)


def find(work: Work, call: Call, named: OpenedSessionRef, *, allow_suspicious: bool = False) -> Outcome:
    """Find and judge the session that a call names. Raises `SessionNotFound` for an unknown id."""
    if not isinstance(named, SessionId):
        return judge_and_apply(work, call, named, allow_suspicious=allow_suspicious)
    session = in_application(work.session(named), call.application)
    if session is None:
        raise SessionNotFound
    session = expire_due(work, session, call.policy)
    verdict = ended_verdict(session)
    return Outcome(Judgement(verdict), session if verdict is Verdict.VALID else None)


MAX_KEYS = 1_000
"""The maximum number of keys of a session's data. Each key takes a row of the store, however short it is."""


def size_of(key: str, value: bytes | None) -> int:
    """Return how many bytes one key and its value count towards the limit on a session's data; 0 if value is None."""
    return 0 if value is None else len(key.encode()) + len(value)


def checked_size(field: str, keys: int, size: int, policy: Policy) -> int:
    """Return `size`. Raises `InvalidField` if the data has too many bytes or too many keys."""
    if keys > MAX_KEYS:
        raise InvalidField(field, f"the session's data would have {keys} keys, at most {MAX_KEYS} are allowed")
    if size > policy.max_data_bytes:
        raise InvalidField(
            field, f"the session's data would have {size} bytes, the policy's max_data_bytes is {policy.max_data_bytes}"
        )
    return size
