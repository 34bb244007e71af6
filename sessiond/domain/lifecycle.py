"""The lifecycle: the pure steps from one state of a session to the next."""

from __future__ import annotations

from dataclasses import replace

from sessiond.domain.policy import Policy
from sessiond.domain.session import Activity, Elevation, Ending, Session, own_authentication_at, passed_deadline
from sessiond.domain.values import (
    NO_REVISION,
    NOBODY,
    POLICY_LIFETIMES,
    Authentication,
    Cause,
    ClientContext,
    Instant,
    Labels,
    Lifetimes,
    Millis,
    Revision,
    SessionId,
)

__all__ = [
    "activate",
    "authenticate",
    "elevate",
    "end",
    "expired_view",
    "idle_deadline",
    "open_session",
    "refresh",
    "roll",
    "touch",
    "with_activity",
    "with_data",
]


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
    if lifetimes is POLICY_LIFETIMES or lifetimes == POLICY_LIFETIMES:
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


def idle_deadline(session: Session, policy: Policy, last_active: Instant) -> Instant | None:
    """When the session, with that activity, expires without more of it."""
    return _after(last_active, _shorter(policy.idle_for(persistent=session.persistent), session.lifetimes.idle))


def _absolute_deadline(session: Session, policy: Policy, now: Instant) -> Instant | None:
    return _after(now, _shorter(policy.absolute_for(persistent=session.persistent), session.lifetimes.absolute))


def touch(session: Session, policy: Policy, at: Instant, client: ClientContext = NOBODY) -> Session:
    """The session with activity at `at`. Activity never moves backwards, nor revives an ended session."""
    if session.ending is not None or at <= session.last_active:
        return session
    deadline = idle_deadline(session, policy, at)
    seen = _seen(client, session.last_client)
    if not session.persistent:
        return replace(session, last_active=at, idle_deadline=deadline, last_client=seen)
    fallen = own_authentication_at(session, policy, at)
    return replace(session, last_active=at, idle_deadline=deadline, authentication=fallen, last_client=seen)


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
        client=_rebound(session.client, client),
        last_client=_seen(client, session.last_client),
        persistent=persistent or session.persistent,
        login_page=False,
        elevation=None,
        must_authenticate=False,
        old_token=None,
        labels=_joined(session.labels, labels),
    )
    return _restarted(rolled, lifetimes, policy, now)


def _joined(labels: Labels, more: Labels) -> Labels:
    return tuple(sorted({**dict(labels), **dict(more)}.items())) if more else labels


def _rebound(home: ClientContext, told: ClientContext) -> ClientContext:
    """The client that a session belongs to after an authentication.

    What the call does not tell stays as it was: leaving out a certificate or a device must not undo a binding.
    """
    if told == home or home == NOBODY:
        return told
    return ClientContext(
        told.ip_address or home.ip_address,
        told.user_agent or home.user_agent,
        told.certificate_thumbprint or home.certificate_thumbprint,
        told.device_id or home.device_id,
    )


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
    *,
    lifetimes: Lifetimes | None = None,
    labels: Labels = (),
) -> Session:
    """The session rolled, with an authentication that counts for the policy's elevation timeout.

    `lifetimes` shorten what is left of it, as in `refresh`; `labels` are added to those it has.
    """
    rolled = roll(session, digest, policy, now)
    if lifetimes is not None:
        rolled = _shortened(rolled, lifetimes, policy, now)
    elevation = Elevation(authentication, Instant(now + policy.elevation_timeout))
    return replace(
        rolled,
        elevation=elevation,
        client=_rebound(session.client, client),
        last_client=_seen(client, session.last_client),
        must_authenticate=False,
        old_token=None,
        labels=_joined(session.labels, labels),
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
        session = _shortened(session, lifetimes, policy, now)
    touched = touch(session, policy, now, client)
    if policy.refresh_extends_lifetime and not touched.login_page:
        return replace(touched, absolute_deadline=_absolute_deadline(touched, policy, now))
    return touched


def _shortened(session: Session, lifetimes: Lifetimes, policy: Policy, now: Instant) -> Session:
    """The session with these lifetimes from now on, of which the absolute one only shortens what is left."""
    session = replace(session, lifetimes=_bounded(lifetimes, policy, persistent=session.persistent))
    ends = [end for end in (session.absolute_deadline, _absolute_deadline(session, policy, now)) if end is not None]
    return replace(
        session,
        idle_deadline=idle_deadline(session, policy, session.last_active),
        absolute_deadline=min(ends, default=None),
    )


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


def expired_view(session: Session, now: Instant) -> Session:
    """The session as it is at `now`: ended by a deadline that has passed though no sweep recorded it yet."""
    if session.ending is None and (deadline := passed_deadline(session, now)) is not None:
        return end(session, deadline.at, Cause(deadline.kind))
    return session
