"""The session: the server-side record, and what can be read off it at a point of time."""

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
    """Whether a session lives."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@immutable
class Ending:
    """How a session ended. For an expiry `at` is the deadline itself, not the moment it was noticed."""

    at: Instant
    cause: Cause

    @property
    def state(self) -> SessionState:
        """EXPIRED where a deadline ended it, REVOKED for anything else."""
        return SessionState.EXPIRED if self.cause.kind in _EXPIRIES else SessionState.REVOKED


@immutable
class Deadline:
    """A deadline that has passed, and which one it was."""

    kind: CauseKind
    at: Instant


@immutable
class Elevation:
    """An authentication that counts until `until`, and then no more."""

    authentication: Authentication
    until: Instant


@immutable
class Session:
    """The record of one session. Of its token it holds SHA-256(secret) and the current generation, nothing else.

    `absolute_deadline` and `idle_deadline` are None where the policy has no such timeout.
    `rolled_digest` is the digest that the last roll replaced, at `rolled_at`.
    `login_page` says that the absolute deadline is the login timeout of an anonymous session.
    `must_authenticate` says that its token is not enough until the subject has authenticated: a signal's reaction.
    `old_token` is the generation of a token from before the last roll that came back, although no active validation had
    used the new one: its client may never have received that. None: none came back.
    `last_client` is the address and user agent of the last recorded activity.
    `revision` is that of the session's last event that changed it.
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
    last_client: ClientContext = NOBODY
    labels: Labels = ()
    lifetimes: Lifetimes = POLICY_LIFETIMES
    revision: Revision = NO_REVISION

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


class Activity(NamedTuple):
    """The last activity of a session, the idle deadline that follows, and the client, if anything was seen of it."""

    session_id: SessionId
    at: Instant
    idle_deadline: Instant | None
    client: ClientContext | None = None


def in_application(session: Session | None, application: str) -> Session | None:
    """The session, if it belongs to the application. Another application's is as unknown as one that never was."""
    return session if session is not None and session.application == application else None


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
    return own_authentication_at(session, policy, now)


def as_seen(session: Session, policy: Policy, now: Instant) -> Session:
    """The session as callers are to see it: with the authentication that counts now."""
    if session.elevation is None and not session.persistent:
        return session
    elevation = session.elevation if session.elevation is not None and now < session.elevation.until else None
    return replace(session, authentication=authentication_at(session, policy, now), elevation=elevation)


def own_authentication_at(session: Session, policy: Policy, now: Instant) -> Authentication | None:
    """The session's own authentication as far as it counts now, whatever elevation there is."""
    own = session.authentication
    if own is None or not session.persistent or own.level <= policy.remember_level:
        return own
    if policy.idle_timeout is None or now < session.last_active + policy.idle_timeout:
        return own
    return replace(own, level=policy.remember_level)


def activity_of(session: Session) -> Activity:
    """The last activity of a session, to be written without the rest of it."""
    seen = None if session.last_client == NOBODY else session.last_client
    return Activity(session.id, session.last_active, session.idle_deadline, seen)


def touch_granularity(session: Session, policy: Policy) -> Millis:
    """How far the recorded activity of this session may lag behind: a twentieth of its idle timeout, 60 s at most."""
    own = session.lifetimes.idle
    if own is None:
        return policy.touch_granularity
    return min(granularity_of(own), policy.touch_granularity)


def cacheable_until(
    session: Session, policy: Policy, now: Instant, active: bool, max_age: Millis | None
) -> Instant | None:
    """Until when a plain VALID answer about a session stays what it is if nothing changes; None: for no time at all.

    The earliest of: activity that must be reported, a renewal that falls due, any deadline, and any change of what
    counts of the authentication. `active` says that the answer counted as activity at `now`; `max_age` is how old the
    request's authentication may be.
    """
    # Step by step rather than as the minimum of a list: every validation asks.
    until = now + touch_granularity(session, policy) if active else _NEVER
    if session.idle_deadline is not None and session.idle_deadline < until:
        until = session.idle_deadline
    if session.absolute_deadline is not None and session.absolute_deadline < until:
        until = session.absolute_deadline
    if policy.renewal_timeout is not None and session.generation_began + policy.renewal_timeout < until:
        until = session.generation_began + policy.renewal_timeout
    # An elevation that is over, or a level that has fallen, changes nothing any more.
    if session.elevation is not None and now < session.elevation.until:
        until = min(until, session.elevation.until)
    if session.persistent and policy.idle_timeout is not None:
        falls = session.last_active + policy.idle_timeout
        until = min(until, falls) if now < falls else until
    if max_age is not None:
        authentication = authentication_at(session, policy, now)
        until = now if authentication is None else min(until, authentication.at + max_age)
    return Instant(until) if now < until < _NEVER else None


def retention_of(session: Session, policy: Policy) -> Millis:
    """How long the session's history is kept once it has ended."""
    return policy.retention if session.subject else policy.anonymous_retention
