"""Units that issue tokens (opening, authenticating, rolling), and refreshing, which extends a session's time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from sessiond.changes.judging import (
    Outcome,
    checked_size,
    end_session,
    judge_and_apply,
    needs_of,
    save_lowered,
    size_of,
)
from sessiond.changes.limits import Choice, LimitDecision, enforce_limit, with_limit
from sessiond.domain import lifecycle
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField, SubjectMismatch
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.judge import Judgement, Presented, Verdict
from sessiond.domain.login import Login
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import MAX_LABELS, POLICY_LIFETIMES, Authentication, Instant, Lifetimes, SessionId
from sessiond.eventlog.work import NOTHING, Needs, Work

__all__ = ["Authenticate", "Create", "OpenInstead", "Refresh", "Roll", "restart_tolerances"]

_OPENED = Judgement(Verdict.VALID)  # also after a login with a token that was INSUFFICIENT for anything else
_LATE_PART = 5
"""A repeated login is late once this part, a fifth, of `roll_tolerance` has passed."""


@immutable
class Create:
    """Open a session."""

    call: Call
    session_id: SessionId
    login: Login
    digest: bytes
    data: Mapping[str, bytes]
    login_page: bool = False
    choice: Choice | None = None

    def needs(self) -> Needs:
        """Return what to read: the subject's live sessions, if the limit may apply."""
        return with_limit(NOTHING, self.call, self.login.subject, self.choice)

    def apply(self, work: Work) -> Outcome:
        """Save the session, its data and the event, unless the limit prevents it. Raises `InvalidField`."""
        call, login, decision = self.call, self.login, LimitDecision()
        if call.policy.max_sessions or self.choice is not None:
            decision = enforce_limit(work, call, login.subject, None, self.choice)
            if decision.limit_reached is not None:
                return Outcome(_OPENED, None, limit_reached=decision.limit_reached)
        session = lifecycle.open_session(
            self.session_id,
            call.application,
            login.subject,
            self.digest,
            Authentication(login.level, login.methods, work.now) if login.subject else None,
            call.client,
            call.policy,
            work.now,
            persistent=login.persistent,
            login_page=self.login_page,
            lifetimes=login.lifetimes or POLICY_LIFETIMES,
            labels=login.labels,
            revision=work.next_revision,
        )
        if self.data:
            session = lifecycle.with_data(session, _size_of_all(self.data, call.policy))
            work.put_data(session.id, self.data)
        session = work.save(session, EventType.SESSION_CREATED, call.cause, call.client)
        return Outcome(_OPENED, session, decision.evicted)


def _size_of_all(data: Mapping[str, bytes], policy: Policy) -> int:
    return checked_size("data", len(data), sum(size_of(key, value) for key, value in data.items()), policy)


@immutable
class OpenInstead:
    """Open a session because the token presented with a login cannot be used. `presented` is the token's verdict."""

    create: Create
    presented: Verdict

    def needs(self) -> Needs:
        """Return what `create` must read."""
        return self.create.needs()

    def apply(self, work: Work) -> Outcome:
        """Open the session, unless the limit prevents it."""
        return replace(self.create.apply(work), replaced=self.presented)


@immutable
class Authenticate:
    """Bind a subject to the session, authenticate it again, or elevate. Each of them rolls the token.

    `fresh` opens a session for the subject if the presented token is not usable or if its session belongs to another
    subject. `csrf` is the SHA-256 of the CSRF token that belongs to the presented token.
    """

    call: Call
    presented: Presented
    login: Login
    digest: bytes
    elevates: bool = False
    choice: Choice | None = None
    fresh: Create | None = None
    csrf: bytes | None = field(default=None, repr=False)

    def needs(self) -> Needs:
        """Return what to read: the session, and the subject's other live sessions if the limit may apply."""
        return with_limit(needs_of(self.call, self.presented), self.call, self.login.subject, self.choice)

    def apply(self, work: Work) -> Outcome:
        """Judge the token and carry out the login.

        Raises `SubjectMismatch` if the session belongs to another subject and there is no `fresh`, or if an anonymous
        session is to be elevated. Raises `InvalidField` for too many labels or an invalid choice.
        """
        outcome = judge_and_apply(work, self.call, self.presented, allow_suspicious=True)
        session = outcome.session
        if session is None:
            return outcome if self.fresh is None else OpenInstead(self.fresh, outcome.verdict).apply(work)
        if session.subject not in ("", self.login.subject):
            if self.fresh is None:
                raise SubjectMismatch(
                    "subject: the session belongs to another subject; set or_create to open a new one in its place"
                )
            opened = OpenInstead(self.fresh, outcome.verdict).apply(work)
            if opened.session is not None:
                cause = replace(self.call.cause, reason="another subject logged in")
                end_session(work, self.call, session, cause)
            return opened
        labels = len(dict(session.labels) | dict(self.login.labels))
        if labels > MAX_LABELS:
            raise InvalidField("labels", f"the session would have {labels} labels, at most {MAX_LABELS} are allowed")
        if self.elevates:
            return self._elevate(work, session)
        return self._authenticate(work, session)

    def _elevate(self, work: Work, session: Session) -> Outcome:
        if not session.subject:
            raise SubjectMismatch("elevate: an anonymous session has nothing to elevate; authenticate it first")
        call, login = self.call, self.login
        elevated = lifecycle.elevate(
            session,
            Authentication(login.level, login.methods, work.now),
            call.client,
            self.digest,
            call.policy,
            work.now,
            lifetimes=login.lifetimes,
            labels=login.labels,
            csrf=self._earlier_csrf(work, session),
        )
        return Outcome(_OPENED, self._save(work, save_lowered(work, call, session, elevated)))

    def _authenticate(self, work: Work, session: Session) -> Outcome:
        call, login, decision = self.call, self.login, LimitDecision()
        if not session.subject or self.choice is not None:  # authenticating again adds no session
            decision = enforce_limit(work, call, login.subject, session.id, self.choice)
        if decision.limit_reached is not None:
            return Outcome(_OPENED, None, limit_reached=decision.limit_reached)
        bound = lifecycle.authenticate(
            session,
            login.subject,
            Authentication(login.level, login.methods, work.now),
            call.client,
            self.digest,
            call.policy,
            work.now,
            persistent=login.persistent,
            lifetimes=login.lifetimes,
            labels=login.labels,
            csrf=self._earlier_csrf(work, session),
        )
        return Outcome(_OPENED, self._save(work, bound), decision.evicted)

    def _earlier_csrf(self, work: Work, session: Session) -> bytes | None:
        """Return the hash of the CSRF token from before this login, unless the policy denies the client until then.

        Such a client authenticates because of a suspicion, and has never received a page of this session.
        """
        return None if work.is_denied_client(session, self.call.client, self.call.policy) else self.csrf

    def _save(self, work: Work, session: Session) -> Session:
        session = work.save(session, EventType.SESSION_AUTHENTICATED, self.call.cause, self.call.client)
        return work.save(session, EventType.SESSION_ROLLED, self.call.cause, self.call.client)


def restart_tolerances(work: Work, call: Call, session: Session) -> None:
    """Start the tolerances after a roll again when the login that rolled is repeated and gets its first answer.

    The subject has authenticated once more, and may receive the new token only now, so requests with the old token may
    be in flight from now on. If an old token has come back, its record is cleared: it was the subject who presented it
    after the first answer was lost. A quick repeat, such as the second of two clicks, changes nothing.
    """
    if session.old_token is not None or _is_late(session, call.policy, work.now):
        restarted = replace(session, old_token=None, rolled_at=work.now)
        work.save(restarted, EventType.SESSION_REFRESHED, call.cause, call.client)


def _is_late(session: Session, policy: Policy, now: Instant) -> bool:
    """Return whether what is left of `roll_tolerance` may be too short for the requests that are in flight now."""
    rolled_at = session.rolled_at  # None if the login opened the session: there is no token before its first one
    return rolled_at is not None and 0 < policy.roll_tolerance <= _LATE_PART * (now - rolled_at)


@immutable
class Roll:
    """Replace the token at a privilege change."""

    call: Call
    presented: Presented
    digest: bytes

    def needs(self) -> Needs:
        """Return what to read: the session."""
        return needs_of(self.call, self.presented)

    def apply(self, work: Work) -> Outcome:
        """Give the session a new secret, without an overlap."""
        outcome = judge_and_apply(work, self.call, self.presented)
        if outcome.usable is None:
            return Outcome(outcome.judgement, None)
        session = lifecycle.roll(outcome.usable, self.digest, self.call.policy, work.now, self.call.client)
        session = save_lowered(work, self.call, outcome.usable, session)
        session = work.save(session, EventType.SESSION_ROLLED, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session)


@immutable
class Refresh:
    """Refresh a session, as far as the policy allows."""

    call: Call
    presented: Presented
    lifetimes: Lifetimes | None = None

    def needs(self) -> Needs:
        """Return what to read: the session."""
        return needs_of(self.call, self.presented)

    def apply(self, work: Work) -> Outcome:
        """Record activity and, if the policy says so, start the absolute timeout again."""
        outcome = judge_and_apply(work, self.call, self.presented)
        if outcome.usable is None:
            return Outcome(outcome.judgement, None)
        session = lifecycle.refresh(outcome.usable, self.call.policy, work.now, self.lifetimes, self.call.client)
        session = save_lowered(work, self.call, outcome.usable, session)
        session = work.save(session, EventType.SESSION_REFRESHED, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session)
