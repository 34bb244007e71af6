"""The lifecycle: pure functions that take a session from one state to the next."""

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
    """Return a new session at generation 0. All its timeouts start now."""
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
        last_client=_recorded_client(client),
        labels=labels,
        lifetimes=lifetimes,
        revision=revision,
    )


def _shorter(limit: Millis | None, own: Millis | None) -> Millis | None:
    if own is None or limit is None:
        return limit if own is None else own
    return min(limit, own)


def _bounded(lifetimes: Lifetimes, policy: Policy, *, persistent: bool) -> Lifetimes:
    """Return the lifetimes without those that are not shorter than the policy's."""
    if lifetimes is POLICY_LIFETIMES or lifetimes == POLICY_LIFETIMES:
        return POLICY_LIFETIMES
    idle, absolute = policy.idle_for(persistent=persistent), policy.absolute_for(persistent=persistent)
    return Lifetimes(
        None if idle is not None and lifetimes.idle is not None and lifetimes.idle >= idle else lifetimes.idle,
        None
        if absolute is not None and lifetimes.absolute is not None and lifetimes.absolute >= absolute
        else lifetimes.absolute,
    )


def _recorded_client(client: ClientContext, before: ClientContext = NOBODY) -> ClientContext:
    """Return the part of a client context that is recorded with an activity: IP address and user agent.

    If the context has neither, return `before`, so that it does not overwrite the last known client.
    """
    if not client.ip_address and not client.user_agent:
        return before
    if not client.certificate_thumbprint and not client.device_id:
        return client
    return ClientContext(client.ip_address, client.user_agent)


def idle_deadline(session: Session, policy: Policy, last_active: Instant) -> Instant | None:
    """Return when the session expires if `last_active` remains its last activity; None if it has no idle timeout."""
    return _after(last_active, _shorter(policy.idle_for(persistent=session.persistent), session.lifetimes.idle))


def _absolute_deadline(session: Session, policy: Policy, now: Instant) -> Instant | None:
    return _after(now, _shorter(policy.absolute_for(persistent=session.persistent), session.lifetimes.absolute))


def touch(session: Session, policy: Policy, at: Instant, client: ClientContext = NOBODY) -> Session:
    """Return the session with activity at `at`. Activity never moves backwards and never revives an ended session."""
    if session.ending is not None or at <= session.last_active:
        return session
    deadline = idle_deadline(session, policy, at)
    seen = _recorded_client(client, session.last_client)
    if not session.persistent:
        return replace(session, last_active=at, idle_deadline=deadline, last_client=seen)
    fallen = own_authentication_at(session, policy, at)
    return replace(session, last_active=at, idle_deadline=deadline, authentication=fallen, last_client=seen)


def activate(session: Session, generation: int, now: Instant) -> Session:
    """Make a successor's generation current at its first use. The caller decides whether this counts as activity."""
    return replace(session, generation=generation, generation_began=now)


def roll(session: Session, digest: bytes, policy: Policy, now: Instant, client: ClientContext = NOBODY) -> Session:
    """Return the session with a new secret, the next generation and activity now. All older tokens become invalid.

    So do all CSRF tokens; after a step-up, `authenticate` and `elevate` let the previous one be accepted for some time.
    """
    return touch(
        replace(
            session,
            generation=session.generation + 1,
            generation_began=now,
            digest=digest,
            rolled_digest=session.digest,
            rolled_at=now,
            earlier_csrf=None,
            earlier_csrf_at=None,
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
    csrf: bytes | None = None,
) -> Session:
    """Return the session bound to `subject`, rolled, with both timeouts starting now (NIST SP 800-63B-4 section 5).

    A remembered session stays remembered, even if `persistent` is false. Without `lifetimes` the session keeps its own
    timeouts. `labels` are added to those it has. `csrf` is the SHA-256 of the CSRF token that the session has had until
    now; if the subject stays the same and nothing is suspicious, that token is accepted for the policy's overlap.
    """
    rolled = replace(
        _with_earlier_csrf(roll(session, digest, policy, now), session, subject, csrf, policy),
        subject=subject,
        authentication=authentication,
        client=_updated_home(session.client, client),
        last_client=_recorded_client(client, session.last_client),
        persistent=persistent or session.persistent,
        login_page=False,
        elevation=None,
        must_authenticate=False,
        old_token=None,
        labels=_merged_labels(session.labels, labels),
    )
    return _with_restarted_timeouts(rolled, lifetimes, policy, now)


def _with_earlier_csrf(rolled: Session, before: Session, subject: str, csrf: bytes | None, policy: Policy) -> Session:
    """Return the rolled session with the hash of its previous CSRF token, if that may still be accepted.

    Whoever opened an anonymous session knows its CSRF token, and that may be an attacker who planted the session. So
    may the client that a suspicion is about: a pending step-up, or a token from before an earlier roll that came back.
    """
    same = bool(before.subject) and before.subject == subject
    if csrf is None or not policy.csrf_overlap or not same or before.must_authenticate or before.old_token is not None:
        return rolled
    return replace(rolled, earlier_csrf=csrf, earlier_csrf_at=rolled.rolled_at)


def _merged_labels(labels: Labels, more: Labels) -> Labels:
    return tuple(sorted({**dict(labels), **dict(more)}.items())) if more else labels


def _updated_home(home: ClientContext, seen: ClientContext) -> ClientContext:
    """Return the new home of a session after an authentication.

    Fields that the call leaves empty keep their value: omitting a certificate or a device must not remove a binding.
    """
    if seen == home or home == NOBODY:
        return seen
    return ClientContext(
        seen.ip_address or home.ip_address,
        seen.user_agent or home.user_agent,
        seen.certificate_thumbprint or home.certificate_thumbprint,
        seen.device_id or home.device_id,
    )


def _with_restarted_timeouts(session: Session, lifetimes: Lifetimes | None, policy: Policy, now: Instant) -> Session:
    """Return the session with both timeouts starting now."""
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
    csrf: bytes | None = None,
) -> Session:
    """Return the session rolled, with an authentication that counts for the policy's elevation timeout.

    `lifetimes` shorten the remaining time, as in `refresh`. `labels` are added to those the session has. `csrf` has the
    same meaning as in `authenticate`.
    """
    rolled = _with_earlier_csrf(roll(session, digest, policy, now), session, session.subject, csrf, policy)
    if lifetimes is not None:
        rolled = _with_shortened_timeouts(rolled, lifetimes, policy, now)
    elevation = Elevation(authentication, Instant(now + policy.elevation_timeout))
    return replace(
        rolled,
        elevation=elevation,
        client=_updated_home(session.client, client),
        last_client=_recorded_client(client, session.last_client),
        must_authenticate=False,
        old_token=None,
        labels=_merged_labels(session.labels, labels),
    )


def refresh(
    session: Session,
    policy: Policy,
    now: Instant,
    lifetimes: Lifetimes | None = None,
    client: ClientContext = NOBODY,
) -> Session:
    """Return the session with activity now and, if the policy allows it, with the absolute timeout starting again.

    With `lifetimes` the session has these timeouts from now on. They can shorten the remaining time, but never lengthen
    it beyond the policy: the absolute timeout starts again only if the policy sets `refresh_extends_lifetime`.
    """
    if lifetimes is not None:
        session = _with_shortened_timeouts(session, lifetimes, policy, now)
    touched = touch(session, policy, now, client)
    if policy.refresh_extends_lifetime and not touched.login_page:
        return replace(touched, absolute_deadline=_absolute_deadline(touched, policy, now))
    return touched


def _with_shortened_timeouts(session: Session, lifetimes: Lifetimes, policy: Policy, now: Instant) -> Session:
    """Return the session with these lifetimes from now on; the absolute one can only shorten the remaining time."""
    session = replace(session, lifetimes=_bounded(lifetimes, policy, persistent=session.persistent))
    ends = [end for end in (session.absolute_deadline, _absolute_deadline(session, policy, now)) if end is not None]
    return replace(
        session,
        idle_deadline=idle_deadline(session, policy, session.last_active),
        absolute_deadline=min(ends, default=None),
    )


def with_activity(session: Session, activity: Activity) -> Session:
    """Return the session with an activity that was recorded separately.

    Return it unchanged if the activity is not later than its own, or if it has ended.
    """
    if session.ending is not None or activity.at <= session.last_active:
        return session
    seen = session.last_client if activity.client is None else _recorded_client(activity.client, session.last_client)
    return replace(session, last_active=activity.at, idle_deadline=activity.idle_deadline, last_client=seen)


def with_data(session: Session, data_bytes: int) -> Session:
    """Return the session after a change of its data, which now has a size of `data_bytes` bytes."""
    return replace(session, data_version=session.data_version + 1, data_bytes=data_bytes)


def end(session: Session, at: Instant, cause: Cause) -> Session:
    """Return the session ended at `at`. A session that has already ended is returned unchanged."""
    if session.ending is not None:
        return session
    return replace(session, ending=Ending(at, cause), data_bytes=0)


def expired_view(session: Session, now: Instant) -> Session:
    """Return the session as it is at `now`: ended if a deadline has passed, even if the expiry is not recorded yet."""
    if session.ending is None and (deadline := passed_deadline(session, now)) is not None:
        return end(session, deadline.at, Cause(deadline.kind))
    return session
