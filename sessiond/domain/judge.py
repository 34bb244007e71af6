"""Judging presented tokens: the core decision of the authority, written as a table."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from hmac import compare_digest

from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session, SessionState, passed_deadline
from sessiond.domain.signals import Signal, token_replay
from sessiond.domain.values import CauseKind, Instant, SessionId

__all__ = [
    "FORGED",
    "LOCKED",
    "MALFORMED",
    "PLAIN",
    "UNKNOWN",
    "Judgement",
    "Presented",
    "Verdict",
    "ended_verdict",
    "judge",
]


class Verdict(StrEnum):
    """The outcome of a validation."""

    VALID = "valid"
    MALFORMED = "malformed"
    FORGED = "forged"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    EXPIRED_IDLE = "expired_idle"
    EXPIRED_ABSOLUTE = "expired_absolute"
    REPLAYED = "replayed"
    SUPERSEDED = "superseded"
    INSUFFICIENT = "insufficient"
    LOCKED = "locked"


@immutable
class Presented:
    """The content of an opened token: the session id, the generation, and SHA-256 of the secret."""

    session_id: SessionId
    generation: int
    digest: bytes = field(repr=False)


@immutable
class Judgement:
    """The verdict on one presented token, and its consequences.

    activates             this is the first use of a successor token: its generation must become the current one
    hand_out              the generation of the token that the client must use from now on; None: it keeps its own
    signals               reasons for suspicion
    may_have_missed_roll  the token was rolled away, but its client may never have received the new one; this is not
                          suspicious by itself, but the next use of the new token will be
    in_flight             the session ended moments ago, and this request may have been sent before; a newer token may
                          be on its way to the client, so the response must not delete the client's cookie
    newer_in_use          REPLAYED: somebody has used a newer token of the session
    keeps_token           REPLAYED: the client may hold a newer token by now, so the response must not delete its cookie
    """

    verdict: Verdict
    activates: bool = False
    hand_out: int | None = None
    signals: tuple[Signal, ...] = ()
    may_have_missed_roll: bool = False
    in_flight: bool = False
    newer_in_use: bool = False
    keeps_token: bool = False


MALFORMED = Judgement(Verdict.MALFORMED)
FORGED = Judgement(Verdict.FORGED)
UNKNOWN = Judgement(Verdict.UNKNOWN)
LOCKED = Judgement(Verdict.LOCKED)
PLAIN = Judgement(Verdict.VALID)  # valid without consequences; callers compare by identity (`is PLAIN`)
_SUPERSEDED = Judgement(Verdict.SUPERSEDED)
_MAY_HAVE_MISSED_ROLL = Judgement(Verdict.REPLAYED, may_have_missed_roll=True)
_BY_CAUSE = {
    CauseKind.IDLE_TIMEOUT: Verdict.EXPIRED_IDLE,
    CauseKind.ABSOLUTE_TIMEOUT: Verdict.EXPIRED_ABSOLUTE,
    CauseKind.LOGIN_TIMEOUT: Verdict.EXPIRED_ABSOLUTE,
}


def ended_verdict(session: Session) -> Verdict:
    """Return VALID for a live session, else the verdict for its ending. For calls that name a session by its id."""
    if session.ending is None:
        return Verdict.VALID
    if session.ending.state is SessionState.REVOKED:
        return Verdict.REVOKED
    return _BY_CAUSE[session.ending.cause.kind]


def judge(session: Session, presented: Presented, policy: Policy, now: Instant) -> Judgement:
    """Judge one presented token.

    Implements the table "Judging a token" in docs/design.md row by row; the first row that matches decides.
    The digest is compared on every path and in constant time, so that response times reveal nothing.
    """
    proven = compare_digest(presented.digest, session.digest)
    if session.ending is not None:
        return Judgement(ended_verdict(session), in_flight=now < session.ending.at + policy.roll_tolerance)
    if (deadline := passed_deadline(session, now)) is not None:
        return Judgement(_BY_CAUSE[deadline.kind], in_flight=now < deadline.at + policy.roll_tolerance)
    if not proven:
        return _judge_other_secret(session, presented, policy, now)
    signals = _second_holder(session)
    match presented.generation - session.generation:
        case 0:
            due = policy.renewal_timeout is not None and now >= session.generation_began + policy.renewal_timeout
            if not due and not signals:
                return PLAIN
            return Judgement(Verdict.VALID, hand_out=session.generation + 1 if due else None, signals=signals)
        case 1:
            return Judgement(Verdict.VALID, activates=True, signals=signals)
        case -1 if now < session.generation_began + policy.renewal_overlap:
            # The client may have missed a Set-Cookie: send the same current token again.
            return Judgement(Verdict.VALID, hand_out=session.generation, signals=signals)
        case _:
            replay = token_replay(session.generation, presented.generation, other_secret=False)
            # A generation becomes current at its first use.
            return Judgement(
                Verdict.REPLAYED, signals=(replay,), newer_in_use=presented.generation < session.generation
            )


def _second_holder(session: Session) -> tuple[Signal, ...]:
    """Return a signal if a pre-roll token was presented earlier: now the new token is used, so two clients hold it."""
    if session.old_token is None:
        return ()
    return (token_replay(session.generation, session.old_token, other_secret=True),)


def _judge_other_secret(session: Session, presented: Presented, policy: Policy, now: Instant) -> Judgement:
    rolled_away = session.rolled_digest is not None and compare_digest(presented.digest, session.rolled_digest)
    if rolled_away and session.rolled_at is not None:
        if now < session.rolled_at + policy.roll_tolerance:
            return _SUPERSEDED
        if _may_have_missed_roll(session, presented) and now < session.rolled_at + policy.lost_answer_tolerance:
            return _MAY_HAVE_MISSED_ROLL
    replay = token_replay(session.generation, presented.generation, other_secret=True)
    return Judgement(Verdict.REPLAYED, signals=(replay,), newer_in_use=_is_used_since_roll(session))


def _is_used_since_roll(session: Session) -> bool:
    return session.rolled_at is not None and session.last_active > session.rolled_at


def _may_have_missed_roll(session: Session, presented: Presented) -> bool:
    """Return whether the holder of a pre-roll token may never have received the new token.

    This requires that nobody has used the new token yet, and that the old token was in use at the time of the roll,
    not replaced by renewals long before. It never applies to an anonymous session: there the new token may be in the
    hands of a thief, who could log in with it as another subject.
    """
    unused = not _is_used_since_roll(session)
    return unused and bool(session.subject) and presented.generation >= session.generation - 2
