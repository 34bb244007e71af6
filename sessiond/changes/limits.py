"""The limit of concurrent sessions: decided against the transaction's own state, so that logins cannot race past it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sessiond.changes.idempotency import KEEP_FOR
from sessiond.changes.judging import Crowd, EndSome, end_session
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.lifecycle import expired_view
from sessiond.domain.policy import LimitRule
from sessiond.domain.session import Session
from sessiond.domain.values import Cause, CauseKind, Instant, SessionId
from sessiond.eventlog.work import AT_ONCE, DoFirst, Needs, Work
from sessiond.store.contract import KeptAnswer

__all__ = ["Choice", "Room", "enforce_limit", "with_limit"]


@immutable
class Choice:
    """What a subject chose when the limit stood in the way, under a ticket that is good once.

    `key` names the ticket among the kept answers, so that using it twice is noticed. With `evict_oldest` as many of the
    oldest sessions end, beside those that are named, as have to.
    """

    key: bytes
    expires: Instant
    evict: Sequence[SessionId]
    evict_oldest: bool = False


@immutable
class Room:
    """Whether there is room for one more session: what was ended for it, or the live sessions that stand in the way."""

    evicted: tuple[SessionId, ...] = ()
    refused: Crowd | None = None


_ROOM = Room()  # there is no limit


def with_limit(needs: Needs, call: Call, subject: str, choice: Choice | None) -> Needs:
    """What a unit needs that may have to enforce the limit."""
    policy = call.policy
    subjects = [(call.application, subject)] if subject and (policy.max_sessions or policy.revokes_subjects) else []
    if not subjects and choice is None:
        return needs
    needs = replace(needs, subjects=subjects, most=policy.max_sessions + AT_ONCE)
    if choice is None:
        return needs
    return replace(needs, sessions=(*needs.sessions, *choice.evict), answers=(choice.key,))


def enforce_limit(work: Work, call: Call, subject: str, own: SessionId | None, choice: Choice | None) -> Room:
    """Make room for one more session of the subject, as the policy says. `own` is the session that is to be bound.

    Raises `InvalidField` for a ticket that is no longer good, or a choice that names too few sessions, and `DoFirst` if
    there are so many that ending them at once would keep everybody waiting.
    """
    if choice is not None:
        _use_ticket(work, choice)
    policy = call.policy
    if not subject or not policy.max_sessions:
        return _ROOM
    crowd, cause = work.crowd(call.application, subject), Cause(CauseKind.CONCURRENCY_LIMIT)

    def end_first(ids: Sequence[SessionId]) -> DoFirst:
        return DoFirst(EndSome(call, ids[:AT_ONCE], subject, cause))

    if crowd and (overdue := work.overdue(call.application, subject)):
        raise end_first(overdue)  # to know how many live
    live = [session for session in work.live_sessions(call.application, subject) if session.id != own]
    if len(live) < policy.max_sessions:
        if crowd:  # units before this one have ended all that was read of it: look again
            raise end_first([])
        return _ROOM
    excess = (crowd or len(live)) - policy.max_sessions + 1
    work.record_other(EventType.CONCURRENCY_LIMIT_REACHED, call.application, call.cause, subject=subject)
    match policy.on_limit:
        case LimitRule.EVICT_OLDEST:
            doomed = sorted(live, key=lambda session: (session.created, session.id))[:excess]
        case LimitRule.EVICT_LEAST_RECENT:
            doomed = sorted(live, key=lambda session: (session.last_active, session.id))[:excess]
        case LimitRule.ASK if choice is not None:
            doomed = _chosen(work, live, choice, excess)
        case _:
            newest_first = sorted(live, key=lambda session: session.id, reverse=True)
            return Room(refused=Crowd(tuple(newest_first), crowd or len(live)))
    if crowd or len(doomed) > AT_ONCE:
        raise end_first([session.id for session in doomed])
    for session in doomed:
        end_session(work, call, session, cause)
    return Room(evicted=tuple(session.id for session in doomed))


def _chosen(work: Work, live: Sequence[Session], choice: Choice, excess: int) -> list[Session]:
    """What the subject chose to end: what it named, and the oldest if it said so."""
    subject = (live[0].application, live[0].subject)
    named = [work.session(session_id) for session_id in dict.fromkeys(choice.evict)]
    doomed = [
        session
        for session in named
        if session is not None
        and (session.application, session.subject) == subject
        and expired_view(session, work.now).ending is None
    ]
    if len(doomed) >= excess:
        return doomed
    if not choice.evict_oldest:
        remedy = f"must name at least {excess} of the subject's live sessions, or set evict_oldest"
        raise InvalidField("evict_session_ids", remedy)
    chosen = {session.id for session in doomed}
    return doomed + [session for session in live if session.id not in chosen][: excess - len(doomed)]


def _use_ticket(work: Work, choice: Choice) -> None:
    if work.now >= choice.expires or work.answer(choice.key) is not None:
        raise InvalidField("ticket", "has been used or has expired; repeat the call without it to get another")
    # Longer than the ticket itself: a clock that is set back must not make it good again.
    work.keep_answer(KeptAnswer(choice.key, bytes(32), b"", Instant(choice.expires + KEEP_FOR)))
