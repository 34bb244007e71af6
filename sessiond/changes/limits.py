"""The limit of concurrent sessions: decided against the transaction's own state, so that logins cannot race past it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sessiond.changes.idempotency import KEEP_FOR
from sessiond.changes.judging import EndBatch, LimitReached, end_session
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.lifecycle import expired_view
from sessiond.domain.policy import LimitRule
from sessiond.domain.session import Session
from sessiond.domain.values import Cause, CauseKind, Instant, SessionId
from sessiond.eventlog.work import MAX_ENDED_PER_UNIT, Needs, PrerequisiteRequired, Work
from sessiond.store.contract import KeptAnswer

__all__ = ["Choice", "LimitDecision", "enforce_limit", "with_limit"]


@immutable
class Choice:
    """The sessions that a subject chose to end at its limit, authorized by a ticket that can be used once.

    key           identifies the ticket among the kept answers, so that a second use is detected
    expires       when the ticket expires
    evict         the chosen sessions
    evict_oldest  also end as many of the oldest sessions as necessary
    """

    key: bytes
    expires: Instant
    evict: Sequence[SessionId]
    evict_oldest: bool = False


@immutable
class LimitDecision:
    """The result of enforcing the limit: the sessions that were ended, or the live sessions that prevent a new one."""

    evicted: tuple[SessionId, ...] = ()
    limit_reached: LimitReached | None = None


_ALLOWED = LimitDecision()


def with_limit(needs: Needs, call: Call, subject: str, choice: Choice | None) -> Needs:
    """Return the needs of a unit extended by those of `enforce_limit`."""
    policy = call.policy
    subjects = [(call.application, subject)] if subject and (policy.max_sessions or policy.revokes_subjects) else []
    if not subjects and choice is None:
        return needs
    needs = replace(needs, subjects=subjects, max_live=policy.max_sessions + MAX_ENDED_PER_UNIT)
    if choice is None:
        return needs
    return replace(needs, sessions=(*needs.sessions, *choice.evict), answers=(choice.key,))


def enforce_limit(work: Work, call: Call, subject: str, own: SessionId | None, choice: Choice | None) -> LimitDecision:
    """Enforce the policy's limit before one more session is bound to the subject.

    `own` is the session that is about to be bound; it does not count. Raises `InvalidField` if the ticket is expired or
    used, or if the choice names too few sessions. Raises `PrerequisiteRequired` if so many sessions must end that one
    transaction would block other calls for too long.
    """
    if choice is not None:
        _use_ticket(work, choice)
    policy = call.policy
    if not subject or not policy.max_sessions:
        return _ALLOWED
    total, cause = work.count_if_truncated(call.application, subject), Cause(CauseKind.CONCURRENCY_LIMIT)

    def end_first(ids: Sequence[SessionId]) -> PrerequisiteRequired:
        return PrerequisiteRequired(EndBatch(call, ids[:MAX_ENDED_PER_UNIT], subject, cause))

    if total and (overdue := work.overdue(call.application, subject)):
        raise end_first(overdue)  # once these are recorded as expired, the count has live sessions only
    live = [session for session in work.live_sessions(call.application, subject) if session.id != own]
    if len(live) < policy.max_sessions:
        if total:  # earlier units of this transaction have ended the sessions that were read: read again
            raise end_first([])
        return _ALLOWED
    excess = (total or len(live)) - policy.max_sessions + 1
    work.record_other(EventType.CONCURRENCY_LIMIT_REACHED, call.application, call.cause, subject=subject)
    match policy.on_limit:
        case LimitRule.EVICT_OLDEST:
            to_end = sorted(live, key=lambda session: (session.created, session.id))[:excess]
        case LimitRule.EVICT_LEAST_RECENT:
            to_end = sorted(live, key=lambda session: (session.last_active, session.id))[:excess]
        case LimitRule.ASK if choice is not None:
            to_end = _chosen(work, live, choice, excess)
        case _:
            newest_first = sorted(live, key=lambda session: session.id, reverse=True)
            return LimitDecision(limit_reached=LimitReached(tuple(newest_first), total or len(live)))
    if total or len(to_end) > MAX_ENDED_PER_UNIT:
        raise end_first([session.id for session in to_end])
    for session in to_end:
        end_session(work, call, session, cause)
    return LimitDecision(evicted=tuple(session.id for session in to_end))


def _chosen(work: Work, live: Sequence[Session], choice: Choice, excess: int) -> list[Session]:
    """Return the sessions that the subject chose to end: those it named, and the oldest ones if it asked for that."""
    subject = (live[0].application, live[0].subject)
    named = [work.session(session_id) for session_id in dict.fromkeys(choice.evict)]
    to_end = [
        session
        for session in named
        if session is not None
        and (session.application, session.subject) == subject
        and expired_view(session, work.now).ending is None
    ]
    if len(to_end) >= excess:
        return to_end
    if not choice.evict_oldest:
        remedy = f"must name at least {excess} of the subject's live sessions, or set evict_oldest"
        raise InvalidField("evict_session_ids", remedy)
    chosen = {session.id for session in to_end}
    return to_end + [session for session in live if session.id not in chosen][: excess - len(to_end)]


def _use_ticket(work: Work, choice: Choice) -> None:
    if work.now >= choice.expires or work.answer(choice.key) is not None:
        raise InvalidField("ticket", "has been used or has expired; repeat the call without it to get a new one")
    # Kept for longer than the ticket is valid: a clock that is set back must not make it valid again.
    work.keep_answer(KeptAnswer(choice.key, bytes(32), b"", Instant(choice.expires + KEEP_FOR)))
