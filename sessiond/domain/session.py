"""The session: the server-side record, and the pure steps from one state of it to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from sessiond.domain.policy import Policy
from sessiond.domain.values import Authentication, Cause, CauseKind, ClientContext, Instant, SessionId

__all__ = [
    "Deadline",
    "Ending",
    "Session",
    "SessionState",
    "activate",
    "authenticate",
    "end",
    "expired_view",
    "idle_deadline",
    "open_session",
    "passed_deadline",
    "refresh",
    "roll",
    "touch",
    "with_activity",
    "with_data",
]

_EXPIRIES = (CauseKind.IDLE_TIMEOUT, CauseKind.ABSOLUTE_TIMEOUT, CauseKind.LOGIN_TIMEOUT)


class SessionState(StrEnum):
    """Whether a session lives."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ended. For an expiry `at` is the deadline itself, not the moment it was noticed."""

    at: Instant
    cause: Cause

    @property
    def state(self) -> SessionState:
        """EXPIRED where a deadline ended it, REVOKED for anything else."""
        return SessionState.EXPIRED if self.cause.kind in _EXPIRIES else SessionState.REVOKED


@dataclass(frozen=True, slots=True)
class Deadline:
    """A deadline that has passed, and which one it was."""

    kind: CauseKind
    at: Instant


@dataclass(frozen=True, slots=True)
class Session:
    """The record of one session. Of its token it holds SHA-256(secret) and the current generation, nothing else.

    `absolute_deadline` and `idle_deadline` are None where the policy has no such timeout.
    `rolled_digest` is the digest that the last roll replaced, at `rolled_at`.
    """

    id: SessionId
    application: str
    subject: str
    created: Instant
    last_active: Instant
    idle_deadline: Instant | None
    absolute_deadline: Instant | None
    generation: int
    generation_began: Instant
    digest: bytes = field(repr=False)
    rolled_digest: bytes | None = field(default=None, repr=False)
    rolled_at: Instant | None = None
    authentication: Authentication | None = None
    client: ClientContext = ClientContext()
    data_version: int = 0
    data_bytes: int = 0
    ending: Ending | None = None

    @property
    def due_at(self) -> Instant | None:
        """The first deadline that will end the session if nothing happens until then."""
        if self.idle_deadline is None or (
            self.absolute_deadline is not None and self.absolute_deadline < self.idle_deadline
        ):
            return self.absolute_deadline
        return self.idle_deadline

    @property
    def state(self) -> SessionState:
        """As recorded: deadlines that passed unnoticed are told by `passed_deadline`."""
        return SessionState.ACTIVE if self.ending is None else self.ending.state


def passed_deadline(session: Session, now: Instant) -> Deadline | None:
    """The deadline that ended the session by `now`, if one did; of two the earlier, of two at once the idle one.

    A deadline is passed at the deadline itself. Asked again later, the answer is the same.
    """
    idle, absolute = session.idle_deadline, session.absolute_deadline
    if idle is not None and now >= idle and (absolute is None or idle <= absolute):
        return Deadline(CauseKind.IDLE_TIMEOUT, idle)
    if absolute is not None and now >= absolute:
        return Deadline(CauseKind.ABSOLUTE_TIMEOUT, absolute)
    return None


def _after(now: Instant, timeout: int | None) -> Instant | None:
    return None if timeout is None else Instant(now + timeout)


def open_session(
    session_id: SessionId,
    application: str,
    subject: str,
    digest: bytes,
    authentication: Authentication | None,
    client: ClientContext,
    policy: Policy,
    now: Instant,
) -> Session:
    """A new session, at generation 0, with all its timeouts starting now."""
    return Session(
        id=session_id,
        application=application,
        subject=subject,
        created=now,
        last_active=now,
        idle_deadline=_after(now, policy.idle_timeout),
        absolute_deadline=_after(now, policy.absolute_timeout),
        generation=0,
        generation_began=now,
        digest=digest,
        authentication=authentication,
        client=client,
    )


def idle_deadline(policy: Policy, last_active: Instant) -> Instant | None:
    """When a session with that activity expires without more of it."""
    return _after(last_active, policy.idle_timeout)


def touch(session: Session, policy: Policy, at: Instant) -> Session:
    """The session with activity at `at`. Activity never moves backwards, nor revives an ended session."""
    if session.ending is not None or at <= session.last_active:
        return session
    return replace(session, last_active=at, idle_deadline=_after(at, policy.idle_timeout))


def activate(session: Session, generation: int, now: Instant) -> Session:
    """The successor's first use: its generation becomes the current one. Whether it is activity, the call tells."""
    return replace(session, generation=generation, generation_began=now)


def roll(session: Session, digest: bytes, policy: Policy, now: Instant) -> Session:
    """A fresh secret and the next generation: every older token is worthless from now on."""
    return touch(
        replace(
            session,
            generation=session.generation + 1,
            generation_began=now,
            digest=digest,
            rolled_digest=session.digest,
            rolled_at=now,
        ),
        policy,
        now,
    )


def authenticate(
    session: Session,
    subject: str,
    authentication: Authentication,
    client: ClientContext,
    digest: bytes,
    policy: Policy,
    now: Instant,
) -> Session:
    """The session bound to `subject`, rolled, with both lifetimes starting now (NIST SP 800-63B-4 section 5)."""
    rolled = roll(session, digest, policy, now)
    return replace(
        rolled,
        subject=subject,
        authentication=authentication,
        client=client,
        absolute_deadline=_after(now, policy.absolute_timeout),
    )


def refresh(session: Session, policy: Policy, now: Instant) -> Session:
    """The session as good as new: last activity starts again, and the lifetime too where the policy allows it."""
    touched = touch(session, policy, now)
    if not policy.refresh_extends_lifetime:
        return touched
    return replace(touched, absolute_deadline=_after(now, policy.absolute_timeout))


def with_activity(session: Session, last_active: Instant, idle_deadline: Instant | None) -> Session:
    """The session with activity that was judged elsewhere."""
    return replace(session, last_active=last_active, idle_deadline=idle_deadline)


def with_data(session: Session, data_bytes: int) -> Session:
    """The session after a change of its data, which now takes that many bytes."""
    return replace(session, data_version=session.data_version + 1, data_bytes=data_bytes)


def end(session: Session, at: Instant, cause: Cause) -> Session:
    """The session ended. The first ending stands: one that has ended already comes back unchanged."""
    if session.ending is not None:
        return session
    return replace(session, ending=Ending(at, cause), data_bytes=0)


def expired_view(session: Session, now: Instant) -> Session:
    """The session as it is at `now`: ended by a deadline that has passed though no sweep recorded it yet."""
    if session.ending is None and (deadline := passed_deadline(session, now)) is not None:
        return end(session, deadline.at, Cause(deadline.kind))
    return session
