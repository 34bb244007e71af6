"""The session: the server-side record, and the pure steps from one state of it to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from sessiond.domain.policy import Policy
from sessiond.domain.values import Authentication, Cause, CauseKind, ClientContext, Instant, SessionId

__all__ = [
    "Deadline",
    "Elevation",
    "Ending",
    "Session",
    "SessionState",
    "activate",
    "as_seen",
    "authenticate",
    "authentication_at",
    "elevate",
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
class Elevation:
    """An authentication that counts until `until`, and then no more."""

    authentication: Authentication
    until: Instant


@dataclass(frozen=True, slots=True)
class Session:
    """The record of one session. Of its token it holds SHA-256(secret) and the current generation, nothing else.

    `absolute_deadline` and `idle_deadline` are None where the policy has no such timeout.
    `rolled_digest` is the digest that the last roll replaced, at `rolled_at`.
    `login_page` says that the absolute deadline is the login timeout of an anonymous session.
    `must_authenticate` says that its token is not enough until the subject has authenticated: a signal's reaction.
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
    persistent: bool = False
    login_page: bool = False
    elevation: Elevation | None = None
    must_authenticate: bool = False

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
        return Deadline(CauseKind.LOGIN_TIMEOUT if session.login_page else CauseKind.ABSOLUTE_TIMEOUT, absolute)
    return None


def authentication_at(session: Session, policy: Policy, now: Instant) -> Authentication | None:
    """The authentication that counts now: an elevation while it lasts, else the session's own.

    Of a remembered session that has been without activity for the policy's ordinary idle timeout, the level has fallen.
    A session's level is never higher than its authentication's (NIST SP 800-63B-4 section 5).
    """
    if session.elevation is not None and now < session.elevation.until:
        return session.elevation.authentication
    return _fallen(session, policy, now)


def as_seen(session: Session, policy: Policy, now: Instant) -> Session:
    """The session as callers are to see it: with the authentication that counts now."""
    if session.elevation is None and not session.persistent:
        return session
    elevation = session.elevation if session.elevation is not None and now < session.elevation.until else None
    return replace(session, authentication=authentication_at(session, policy, now), elevation=elevation)


def _fallen(session: Session, policy: Policy, now: Instant) -> Authentication | None:
    own = session.authentication
    if own is None or not session.persistent or own.level <= policy.remember_level:
        return own
    if policy.idle_timeout is None or now < session.last_active + policy.idle_timeout:
        return own
    return replace(own, level=policy.remember_level)


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
    *,
    persistent: bool = False,
    login_page: bool = False,
) -> Session:
    """A new session, at generation 0, with all its timeouts starting now."""
    absolute = _after(now, policy.absolute_for(persistent=persistent))
    if login_page:
        login = Instant(now + policy.login_timeout)
        absolute = login if absolute is None else min(absolute, login)
    return Session(
        id=session_id,
        application=application,
        subject=subject,
        created=now,
        last_active=now,
        idle_deadline=_after(now, policy.idle_for(persistent=persistent)),
        absolute_deadline=absolute,
        generation=0,
        generation_began=now,
        digest=digest,
        authentication=authentication,
        client=client,
        persistent=persistent,
        login_page=login_page,
    )


def idle_deadline(session: Session, policy: Policy, last_active: Instant) -> Instant | None:
    """When the session, with that activity, expires without more of it."""
    return _after(last_active, policy.idle_for(persistent=session.persistent))


def touch(session: Session, policy: Policy, at: Instant) -> Session:
    """The session with activity at `at`. Activity never moves backwards, nor revives an ended session."""
    if session.ending is not None or at <= session.last_active:
        return session
    idle_deadline = _after(at, policy.idle_for(persistent=session.persistent))
    if not session.persistent:
        return replace(session, last_active=at, idle_deadline=idle_deadline)
    fallen = _fallen(session, policy, at)
    return replace(session, last_active=at, idle_deadline=idle_deadline, authentication=fallen)


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
    *,
    persistent: bool = False,
) -> Session:
    """The session bound to `subject`, rolled, with both lifetimes starting now (NIST SP 800-63B-4 section 5).

    Once remembered, a session stays so: authenticating again is no wish to be forgotten.
    """
    persistent = persistent or session.persistent
    rolled = roll(session, digest, policy, now)
    return replace(
        rolled,
        subject=subject,
        authentication=authentication,
        client=client,
        idle_deadline=_after(now, policy.idle_for(persistent=persistent)),
        absolute_deadline=_after(now, policy.absolute_for(persistent=persistent)),
        persistent=persistent,
        login_page=False,
        elevation=None,
        must_authenticate=False,
    )


def elevate(
    session: Session,
    authentication: Authentication,
    client: ClientContext,
    digest: bytes,
    policy: Policy,
    now: Instant,
) -> Session:
    """The session rolled, with an authentication that counts for the policy's elevation timeout."""
    rolled = roll(session, digest, policy, now)
    elevation = Elevation(authentication, Instant(now + policy.elevation_timeout))
    return replace(rolled, elevation=elevation, client=client, must_authenticate=False)


def refresh(session: Session, policy: Policy, now: Instant) -> Session:
    """The session as good as new: last activity starts again, and the lifetime too where the policy allows it."""
    touched = touch(session, policy, now)
    if not policy.refresh_extends_lifetime or session.login_page:
        return touched
    return replace(touched, absolute_deadline=_after(now, policy.absolute_for(persistent=session.persistent)))


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
