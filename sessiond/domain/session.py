"""The session: the server-side record, and what follows from it at a given time."""

from __future__ import annotations

import sys
from dataclasses import field, replace
from enum import StrEnum
from typing import NamedTuple

from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy, granularity_of
from sessiond.domain.values import (
    NO_REVISION,
    NOBODY,
    POLICY_LIFETIMES,
    Authentication,
    Cause,
    CauseKind,
    ClientContext,
    Instant,
    Labels,
    Lifetimes,
    Millis,
    Revision,
    SessionId,
)

__all__ = [
    "Activity",
    "Deadline",
    "Elevation",
    "Ending",
    "Session",
    "SessionState",
    "activity_of",
    "as_seen",
    "accepted_earlier_csrf",
    "cacheable_until",
    "authentication_at",
    "in_application",
    "own_authentication_at",
    "passed_deadline",
    "retention_of",
    "touch_granularity",
]

_NEVER = sys.maxsize
_EXPIRIES = (CauseKind.IDLE_TIMEOUT, CauseKind.ABSOLUTE_TIMEOUT, CauseKind.LOGIN_TIMEOUT)


class SessionState(StrEnum):
    """Whether a session is live, and if not, how it ended."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@immutable
class Ending:
    """How a session ended. For an expiry `at` is the deadline itself, not the time at which it was detected."""

    at: Instant
    cause: Cause

    @property
    def state(self) -> SessionState:
        """Return EXPIRED if a deadline ended the session, else REVOKED."""
        return SessionState.EXPIRED if self.cause.kind in _EXPIRIES else SessionState.REVOKED


@immutable
class Deadline:
    """A deadline that has passed: its kind and its time."""

    kind: CauseKind
    at: Instant


@immutable
class Elevation:
    """An authentication that counts only until `until`."""

    authentication: Authentication
    until: Instant


@immutable
class Session:
    """The record of one session. It holds nothing of the token except SHA-256(secret) and the current generation.

    absolute_deadline, idle_deadline
                       None if the session has no such timeout
    digest             SHA-256 of the token's secret
    rolled_digest      the digest that the last roll replaced
    rolled_at          when it did so, or when its login was last repeated late; the tolerances count from then
    login_page         whether the absolute deadline is the login timeout of an anonymous session
    must_authenticate  set by a step-up reaction: the token is not enough until the subject authenticates again
    old_token          the generation of a pre-roll token that was presented before any active validation had used the
                       new token, so its client may never have received the new one; None: this did not happen
    earlier_csrf       SHA-256 of the CSRF token from before the last roll, if its subject authenticated again or was
                       elevated by that roll; None: only the current CSRF token is accepted
    earlier_csrf_at    when that roll was; the policy's `csrf_overlap` counts from then
    client             the home: the client context of the opening or of the last authentication
    last_client        IP address and user agent of the last recorded activity
    revision           the revision of the last event that changed the session
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
    old_token: int | None = None
    earlier_csrf: bytes | None = field(default=None, repr=False)
    earlier_csrf_at: Instant | None = None
    last_client: ClientContext = NOBODY
    labels: Labels = ()
    lifetimes: Lifetimes = POLICY_LIFETIMES
    revision: Revision = NO_REVISION

    @property
    def due_at(self) -> Instant | None:
        """Return the deadline that ends the session first if nothing else happens; None if it has no deadline."""
        if self.idle_deadline is None or (
            self.absolute_deadline is not None and self.absolute_deadline < self.idle_deadline
        ):
            return self.absolute_deadline
        return self.idle_deadline

    @property
    def state(self) -> SessionState:
        """Return the recorded state. `passed_deadline` finds a deadline that has passed but is not recorded yet."""
        return SessionState.ACTIVE if self.ending is None else self.ending.state


class Activity(NamedTuple):
    """The last activity of a session, the resulting idle deadline, and the client (None: nothing was seen of it)."""

    session_id: SessionId
    at: Instant
    idle_deadline: Instant | None
    client: ClientContext | None = None


def in_application(session: Session | None, application: str) -> Session | None:
    """Return the session if it belongs to the application, else None, as if the session did not exist."""
    return session if session is not None and session.application == application else None


def passed_deadline(session: Session, now: Instant) -> Deadline | None:
    """Return the deadline that has ended the session by `now`, or None.

    If both have passed, the earlier one counts; if they are equal, the idle deadline. A deadline is passed as soon as
    `now` equals it. A later `now` gives the same result.
    """
    idle, absolute = session.idle_deadline, session.absolute_deadline
    if idle is not None and now >= idle and (absolute is None or idle <= absolute):
        return Deadline(CauseKind.IDLE_TIMEOUT, idle)
    if absolute is not None and now >= absolute:
        return Deadline(CauseKind.LOGIN_TIMEOUT if session.login_page else CauseKind.ABSOLUTE_TIMEOUT, absolute)
    return None


def authentication_at(session: Session, policy: Policy, now: Instant) -> Authentication | None:
    """Return the authentication that counts now: the elevation while it lasts, else the session's own.

    The level of a remembered session drops after the policy's ordinary idle timeout without activity. A session's level
    is never higher than that of its authentication (NIST SP 800-63B-4 section 5).
    """
    if session.elevation is not None and now < session.elevation.until:
        return session.elevation.authentication
    return own_authentication_at(session, policy, now)


def as_seen(session: Session, policy: Policy, now: Instant) -> Session:
    """Return the session as shown to callers: with the authentication that counts now."""
    if session.elevation is None and not session.persistent:
        return session
    elevation = session.elevation if session.elevation is not None and now < session.elevation.until else None
    return replace(session, authentication=authentication_at(session, policy, now), elevation=elevation)


def own_authentication_at(session: Session, policy: Policy, now: Instant) -> Authentication | None:
    """Return the session's own authentication at the level that it has now, ignoring any elevation."""
    own = session.authentication
    if own is None or not session.persistent or own.level <= policy.remember_level:
        return own
    if policy.idle_timeout is None or now < session.last_active + policy.idle_timeout:
        return own
    return replace(own, level=policy.remember_level)


def accepted_earlier_csrf(session: Session, policy: Policy, now: Instant) -> bytes | None:
    """Return the SHA-256 of the earlier CSRF token that is accepted beside the current one; None: there is none.

    At exactly the end of the policy's `csrf_overlap` it is no longer accepted.
    """
    at = session.earlier_csrf_at
    return session.earlier_csrf if at is not None and now < at + policy.csrf_overlap else None


def activity_of(session: Session) -> Activity:
    """Return the last activity of a session, so that it can be written without the rest of the session."""
    seen = None if session.last_client == NOBODY else session.last_client
    return Activity(session.id, session.last_active, session.idle_deadline, seen)


def touch_granularity(session: Session, policy: Policy) -> Millis:
    """Return how far this session's recorded activity may lag behind real activity, in milliseconds.

    This is a twentieth of the session's idle timeout, 60 s at most.
    """
    own = session.lifetimes.idle
    if own is None:
        return policy.touch_granularity
    return min(granularity_of(own), policy.touch_granularity)


def cacheable_until(
    session: Session, policy: Policy, now: Instant, active: bool, max_age: Millis | None
) -> Instant | None:
    """Return until when a plain VALID result stays correct if the session does not change; None: do not cache it.

    This is the earliest of: the time at which activity must be reported, the time at which renewal falls due, any
    deadline, and any change of the authentication that counts. `active` says whether the validation counted as activity
    at `now`; `max_age` is the maximum age of the authentication that the request requires, in milliseconds.
    """
    # Single comparisons instead of the minimum of a list: every validation runs this.
    until = now + touch_granularity(session, policy) if active else _NEVER
    if session.idle_deadline is not None and session.idle_deadline < until:
        until = session.idle_deadline
    if session.absolute_deadline is not None and session.absolute_deadline < until:
        until = session.absolute_deadline
    if policy.renewal_timeout is not None and session.generation_began + policy.renewal_timeout < until:
        until = session.generation_began + policy.renewal_timeout
    # An elevation that has ended and a level that has already dropped cause no further change.
    if session.elevation is not None and now < session.elevation.until:
        until = min(until, session.elevation.until)
    if session.persistent and policy.idle_timeout is not None:
        level_drops = session.last_active + policy.idle_timeout
        until = min(until, level_drops) if now < level_drops else until
    if max_age is not None:
        authentication = authentication_at(session, policy, now)
        until = now if authentication is None else min(until, authentication.at + max_age)
    return Instant(until) if now < until < _NEVER else None


def retention_of(session: Session, policy: Policy) -> Millis:
    """Return how long the session's history is kept after its end, in milliseconds."""
    return policy.retention if session.subject else policy.anonymous_retention
