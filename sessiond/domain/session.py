"""The session: the server-side record, and the pure steps from one state of it to the next."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

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
    "activate",
    "activity_of",
    "as_seen",
    "cacheable_until",
    "authenticate",
    "authentication_at",
    "elevate",
    "end",
    "expired_view",
    "idle_deadline",
    "in_application",
    "open_session",
    "passed_deadline",
    "refresh",
    "retention_of",
    "roll",
    "touch",
    "touch_granularity",
    "with_activity",
    "with_data",
]

_NEVER = 2**63
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
    lifetimes: Lifetimes = POLICY_LIFETIMES,
    labels: Labels = (),
    revision: Revision = NO_REVISION,
) -> Session:
    """A new session, at generation 0, with all its timeouts starting now."""
    lifetimes = _bounded(lifetimes, policy, persistent=persistent)
    absolute = _after(now, _shorter(policy.absolute_for(persistent=persistent), lifetimes.absolute))
    if login_page:
        login = Instant(now + policy.login_timeout)
        absolute = login if absolute is None else min(absolute, login)
    return Session(
        id=session_id,
        application=application,
        subject=subject,
        created=now,
        last_active=now,
        idle_deadline=_after(now, _shorter(policy.idle_for(persistent=persistent), lifetimes.idle)),
        absolute_deadline=absolute,
        generation=0,
        generation_began=now,
        digest=digest,
        authentication=authentication,
        client=client,
        persistent=persistent,
        login_page=login_page,
        last_client=_seen(client),
        labels=labels,
        lifetimes=lifetimes,
        revision=revision,
    )


def _shorter(limit: Millis | None, own: Millis | None) -> Millis | None:
    if own is None or limit is None:
        return limit if own is None else own
    return min(limit, own)


def _bounded(lifetimes: Lifetimes, policy: Policy, *, persistent: bool) -> Lifetimes:
    """The lifetimes without those that would be longer than the policy's."""
    if lifetimes == POLICY_LIFETIMES:
        return POLICY_LIFETIMES
    idle, absolute = policy.idle_for(persistent=persistent), policy.absolute_for(persistent=persistent)
    return Lifetimes(
        None if idle is not None and lifetimes.idle is not None and lifetimes.idle >= idle else lifetimes.idle,
        None
        if absolute is not None and lifetimes.absolute is not None and lifetimes.absolute >= absolute
        else lifetimes.absolute,
    )


def _seen(client: ClientContext, before: ClientContext = NOBODY) -> ClientContext:
    """What is kept of the client of an activity: address and user agent. One that tells neither hides nobody before."""
    if not client.ip_address and not client.user_agent:
        return before
    if not client.certificate_thumbprint and not client.device_id:
        return client
    return ClientContext(client.ip_address, client.user_agent)


def activity_of(session: Session) -> Activity:
    """The last activity of a session, to be written without the rest of it."""
    seen = None if session.last_client == NOBODY else session.last_client
    return Activity(session.id, session.last_active, session.idle_deadline, seen)


def idle_deadline(session: Session, policy: Policy, last_active: Instant) -> Instant | None:
    """When the session, with that activity, expires without more of it."""
    return _after(last_active, _shorter(policy.idle_for(persistent=session.persistent), session.lifetimes.idle))


def _absolute_deadline(session: Session, policy: Policy, now: Instant) -> Instant | None:
    return _after(now, _shorter(policy.absolute_for(persistent=session.persistent), session.lifetimes.absolute))


def touch_granularity(session: Session, policy: Policy) -> Millis:
    """How far the recorded activity of this session may lag behind: a twentieth of its idle timeout, 60 s at most."""
    own = session.lifetimes.idle
    if own is None:
        return policy.touch_granularity
    return min(granularity_of(own), policy.touch_granularity)


def touch(session: Session, policy: Policy, at: Instant, client: ClientContext = NOBODY) -> Session:
    """The session with activity at `at`. Activity never moves backwards, nor revives an ended session."""
    if session.ending is not None or at <= session.last_active:
        return session
    deadline = idle_deadline(session, policy, at)
    seen = _seen(client, session.last_client)
    if not session.persistent:
        return replace(session, last_active=at, idle_deadline=deadline, last_client=seen)
    fallen = _fallen(session, policy, at)
    return replace(session, last_active=at, idle_deadline=deadline, authentication=fallen, last_client=seen)


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
    if session.elevation is not None:
        until = min(until, session.elevation.until)
    if session.persistent and policy.idle_timeout is not None:
        until = min(until, session.last_active + policy.idle_timeout)
    if max_age is not None:
        authentication = authentication_at(session, policy, now)
        until = now if authentication is None else min(until, authentication.at + max_age)
    return Instant(until) if now < until < _NEVER else None


def activate(session: Session, generation: int, now: Instant) -> Session:
    """The successor's first use: its generation becomes current. The caller decides whether this counts as activity."""
    return replace(session, generation=generation, generation_began=now)


def roll(session: Session, digest: bytes, policy: Policy, now: Instant, client: ClientContext = NOBODY) -> Session:
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
        client,
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
    lifetimes: Lifetimes | None = None,
    labels: Labels = (),
) -> Session:
    """The session bound to `subject`, rolled, with both lifetimes starting now (NIST SP 800-63B-4 section 5).

    Once remembered, a session stays so: authenticating again is no wish to be forgotten. Without `lifetimes` it keeps
    its own; `labels` are added to those it has.
    """
    rolled = replace(
        roll(session, digest, policy, now),
        subject=subject,
        authentication=authentication,
        client=client,
        last_client=_seen(client, session.last_client),
        persistent=persistent or session.persistent,
        login_page=False,
        elevation=None,
        must_authenticate=False,
        old_token=None,
        labels=tuple(sorted({**dict(session.labels), **dict(labels)}.items())) if labels else session.labels,
    )
    return _restarted(rolled, lifetimes, policy, now)


def _restarted(session: Session, lifetimes: Lifetimes | None, policy: Policy, now: Instant) -> Session:
    """The session with both lifetimes starting now."""
    kept = session.lifetimes if lifetimes is None else lifetimes
    session = replace(session, lifetimes=_bounded(kept, policy, persistent=session.persistent))
    return replace(
        session,
        idle_deadline=idle_deadline(session, policy, now),
        absolute_deadline=_absolute_deadline(session, policy, now),
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
    return replace(
        rolled,
        elevation=elevation,
        client=client,
        last_client=_seen(client, session.last_client),
        must_authenticate=False,
        old_token=None,
    )


def refresh(
    session: Session,
    policy: Policy,
    now: Instant,
    lifetimes: Lifetimes | None = None,
    client: ClientContext = NOBODY,
) -> Session:
    """The session as good as new: last activity starts again, and the lifetime too if the policy allows it.

    With `lifetimes` the session gets these from now on. They shorten what is left of it and never lengthen it past what
    the policy allows: the absolute lifetime counts from now only if the policy says so.
    """
    if lifetimes is not None:
        session = replace(session, lifetimes=_bounded(lifetimes, policy, persistent=session.persistent))
        session = replace(session, idle_deadline=idle_deadline(session, policy, session.last_active))
    touched = touch(session, policy, now, client)
    fresh = _absolute_deadline(touched, policy, now)
    if policy.refresh_extends_lifetime and not touched.login_page:
        return replace(touched, absolute_deadline=fresh)
    if lifetimes is None or fresh is None:
        return touched
    left = touched.absolute_deadline
    return replace(touched, absolute_deadline=fresh if left is None else min(left, fresh))


def with_activity(session: Session, activity: Activity) -> Session:
    """The session with activity that was judged elsewhere; itself if that is not later, or if it has ended."""
    if session.ending is not None or activity.at <= session.last_active:
        return session
    seen = session.last_client if activity.client is None else _seen(activity.client, session.last_client)
    return replace(session, last_active=activity.at, idle_deadline=activity.idle_deadline, last_client=seen)


def with_data(session: Session, data_bytes: int) -> Session:
    """The session after a change of its data, which now takes that many bytes."""
    return replace(session, data_version=session.data_version + 1, data_bytes=data_bytes)


def end(session: Session, at: Instant, cause: Cause) -> Session:
    """The session ended. The first ending stands: one that has ended already comes back unchanged."""
    if session.ending is not None:
        return session
    return replace(session, ending=Ending(at, cause), data_bytes=0)


def retention_of(session: Session, policy: Policy) -> Millis:
    """How long the session's history is kept once it has ended."""
    return policy.retention if session.subject else policy.anonymous_retention


def expired_view(session: Session, now: Instant) -> Session:
    """The session as it is at `now`: ended by a deadline that has passed though no sweep recorded it yet."""
    if session.ending is None and (deadline := passed_deadline(session, now)) is not None:
        return end(session, deadline.at, Cause(deadline.kind))
    return session
