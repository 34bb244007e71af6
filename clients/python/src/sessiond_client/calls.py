"""Every unary call, once: its parameters, its request, and how its answer is read. Nothing here does I/O.

A function here takes the application and the call's own parameters and makes a `Call`; each client turns it into a
method of the same signature, so the two clients cannot drift apart. Every method raises `SessiondError`.

`timeout` is in seconds and everywhere means this one call's deadline, repetitions included; None: the client's own.
`request_id` is a UUIDv4 of the caller's own making, for who wants to repeat a call himself: within 24 hours the same id
with the same parameters gives the first answer again, and changes nothing. An id is for one call, and where the call
gives a token it is as secret as that. None: the client makes one, unless its `safe_retries` are off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from sessiond_client import convert, reading
from sessiond_client.answers import (
    Authority,
    CompanionIssued,
    Created,
    Data,
    DataUpdated,
    Found,
    LockCleared,
    Page,
    Refreshed,
    Revoked,
    RevokedAll,
    Rolled,
    SignalReported,
    Validation,
)
from sessiond_client.enums import SessionState
from sessiond_client.questions import Question, Requirements
from sessiond_client.tokens import Token
from sessiond_client.values import Authentication, ClientContext, Event, Session, SourceLock
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "Call",
    "activity",
    "authenticate",
    "authority",
    "clear_source_lock",
    "create",
    "get",
    "get_data",
    "issue_companion_token",
    "list_sessions",
    "list_source_locks",
    "refresh",
    "report_signal",
    "revoke",
    "revoke_all",
    "roll",
    "update_data",
    "validate",
    "validate_many",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call, ready to be made. Shows no request: it may hold a token."""

    rpc: str
    """Its name in the contract."""
    request: Any = field(repr=False)
    """The request message."""
    read: Callable[[Any], T] = field(repr=False)
    """From the response message to the answer."""
    timeout: float | None
    """Seconds; None: the client's own."""


# One session's life


def create(
    application: str,
    *,
    subject: str = "",
    authentication: Authentication | None = None,
    client: ClientContext | None = None,
    data: Mapping[str, bytes] | None = None,
    login_page: bool = False,
    persistent: bool = False,
    ticket: str | Token | None = None,
    evict: Iterable[str] = (),
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[Created]:
    """Open a session: anonymous where `subject` is empty, else for a subject that has been authenticated.

    The answer's token goes to the client over a protected channel; keep no copy. `login_page`: an anonymous session
    that ends after the policy's login timeout unless the subject logs in. `persistent`: remember it, by the policy's
    longer limits; `InvalidArgument` where there are none.

    Raises `ConcurrencyLimitReached` where the subject has as many sessions as it may have. Where its `limit` has a
    ticket, make the same call again with that `ticket`, and with the session ids that the subject chose to `evict`.
    """
    request = pb.CreateSessionRequest(
        application=application,
        subject=subject,
        authentication=convert.authentication_message(authentication),
        client=convert.client_message(client),
        data=data or {},
        login_page=login_page,
        persistent=persistent,
        request_id=convert.secret_text(request_id),
        ticket=convert.secret_text(ticket),
        evict_session_ids=evict,
    )
    return Call("CreateSession", request, reading.created, timeout)


def validate(
    application: str,
    token: str | Token,
    *,
    client: ClientContext | None = None,
    passive: bool = False,
    min_revision: int = 0,
    requirements: Requirements | None = None,
    with_csrf_token: bool = False,
    timeout: float | None = None,
) -> Call[Validation]:
    """Say what one presented token is worth. Counts as activity unless `passive`.

    Treat every verdict but VALID as "no session", follow `next_step`, and treat an exception as a denial. With
    `min_revision`, a revision that a change answered with, the answer always sees that change. Raises `OutOfRange`
    where the log has not come that far.

    `requirements`: what this request needs beyond a good token; where it is not met, the verdict is INSUFFICIENT and
    `unmet` says what is missing. `with_csrf_token`: answer with the session's CSRF token too, to put into a page.
    """
    question = Question(token, client, passive, min_revision, requirements, with_csrf_token)
    return Call("ValidateSession", _question_message(application, question), reading.validation, timeout)


def validate_many(
    application: str,
    questions: Iterable[Question | Token | str],
    *,
    timeout: float | None = None,
) -> Call[tuple[Validation, ...]]:
    """Say what up to 1,000 presented tokens are worth, in one message; answers stand in the order of the questions."""
    request = pb.ValidateSessionsRequest(
        requests=[
            _question_message(application, item if isinstance(item, Question) else Question(item)) for item in questions
        ]
    )
    return Call("ValidateSessions", request, reading.validations, timeout)


def authenticate(
    application: str,
    token: str | Token,
    subject: str,
    *,
    authentication: Authentication | None = None,
    client: ClientContext | None = None,
    reason: str = "",
    persistent: bool = False,
    elevate: bool = False,
    ticket: str | Token | None = None,
    evict: Iterable[str] = (),
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[Rolled]:
    """Bind a subject that has been authenticated (login), or authenticate the same one again.

    Always rolls: the presented token dies at once, the session data goes along. Replace the client's token by the
    answer's. Raises `FailedPrecondition` where the session belongs to another subject: log out first.

    `elevate`: `authentication` counts for the policy's elevation timeout, then the one before counts again; only for a
    session that has a subject. `persistent`, `ticket`, `evict` and `ConcurrencyLimitReached`: as with `create`.
    """
    request = pb.AuthenticateSessionRequest(
        application=application,
        token=Token(token).reveal(),
        subject=subject,
        authentication=convert.authentication_message(authentication),
        client=convert.client_message(client),
        reason=reason,
        persistent=persistent,
        elevate=elevate,
        request_id=convert.secret_text(request_id),
        ticket=convert.secret_text(ticket),
        evict_session_ids=evict,
    )
    return Call("AuthenticateSession", request, reading.authenticated, timeout)


def roll(
    application: str,
    token: str | Token,
    *,
    client: ClientContext | None = None,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[Rolled]:
    """Replace the token at a privilege change that is no login (`reason`: `password`, `role`, ...).

    The presented token dies at once. Replace the client's token by the answer's.
    """
    request = pb.RollSessionRequest(
        application=application,
        token=Token(token).reveal(),
        client=convert.client_message(client),
        reason=reason,
        request_id=convert.secret_text(request_id),
    )
    return Call("RollSession", request, reading.rolled, timeout)


def refresh(
    application: str,
    token: str | Token,
    *,
    client: ClientContext | None = None,
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[Refreshed]:
    """Make a session as good as new: last activity starts again, the lifetime too where the policy says so."""
    request = pb.RefreshSessionRequest(
        application=application,
        token=Token(token).reveal(),
        client=convert.client_message(client),
        request_id=convert.secret_text(request_id),
    )
    return Call("RefreshSession", request, reading.refreshed, timeout)


def revoke(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    reason: str = "",
    client: ClientContext | None = None,
    open_anonymous: bool = False,
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[Revoked]:
    """End one session, named by exactly one of `token` and `session_id`, at once and for good.

    Ending what has ended changes nothing and is no error. `open_anonymous`: open a fresh anonymous session in its
    place. Raises `NotFound` for an id that the application does not have.
    """
    request = pb.RevokeSessionRequest(
        application=application,
        session=convert.reference_message(token, session_id),
        reason=reason,
        client=convert.client_message(client),
        request_id=convert.secret_text(request_id),
        open_anonymous=open_anonymous,
    )
    return Call("RevokeSession", request, reading.revoked, timeout)


# Many sessions


def revoke_all(
    application: str,
    *,
    subject: str | None = None,
    ip_network: str = "",
    created_from: datetime | None = None,
    created_until: datetime | None = None,
    except_session_id: str = "",
    whole_application: bool = False,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[RevokedAll]:
    """End all live sessions that match every given condition and were opened before the call began.

    `subject=""` means the anonymous ones; `except_session_id` keeps one ("log out everywhere else"). Without any
    condition `whole_application` must be true. Where the authority fails half-way, what it has ended stays ended; a
    repetition ends the rest, counts only that, and begins anew: it may end a session opened in between.
    """
    request = pb.RevokeSessionsRequest(
        application=application,
        filter=_filter(subject, None, ip_network, created_from, created_until),
        except_session_id=except_session_id,
        whole_application=whole_application,
        reason=reason,
        request_id=convert.secret_text(request_id),
    )
    return Call("RevokeSessions", request, reading.revoked_all, timeout)


def get(
    application: str, *, token: str | Token | None = None, session_id: str | None = None, timeout: float | None = None
) -> Call[Found]:
    """Show one session, ended ones included while their history is kept. Does not count as activity.

    Raises `NotFound` for an id that the application does not have.
    """
    request = pb.GetSessionRequest(application=application, session=convert.reference_message(token, session_id))
    return Call("GetSession", request, reading.found, timeout)


def list_sessions(
    application: str,
    *,
    subject: str | None = None,
    state: SessionState | None = None,
    ip_network: str = "",
    created_from: datetime | None = None,
    created_until: datetime | None = None,
    page_size: int = 0,
    page_token: str = "",
    timeout: float | None = None,
) -> Call[Page[Session]]:
    """Sessions that match every given condition, newest first; live ones unless `state` says otherwise.

    `subject=""` means the anonymous ones. A page holds at most `page_size`, 1 to 1,000 (0: 100); `timeout` is per
    page. `page_token` goes on from an earlier page, with the other conditions unchanged.
    """
    request = pb.ListSessionsRequest(
        application=application,
        filter=_filter(subject, state, ip_network, created_from, created_until),
        page_size=page_size,
        page_token=page_token,
    )
    return Call("ListSessions", request, reading.sessions, timeout)


def activity(
    application: str, subject: str, *, page_size: int = 0, page_token: str = "", timeout: float | None = None
) -> Call[Page[Event]]:
    """A subject's lifecycle history, newest first, as far back as the horizon.

    A page holds at most `page_size`, 1 to 1,000 (0: 100); `timeout` is per page.
    """
    request = pb.ListActivityRequest(
        application=application, subject=subject, page_size=page_size, page_token=page_token
    )
    return Call("ListActivity", request, reading.activity, timeout)


# Session data


def get_data(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    keys: Iterable[str] = (),
    timeout: float | None = None,
) -> Call[Data]:
    """Read a session's data, all of it or only `keys`. Does not count as activity."""
    request = pb.GetSessionDataRequest(
        application=application, session=convert.reference_message(token, session_id), keys=keys
    )
    return Call("GetSessionData", request, reading.data, timeout)


def update_data(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    set: Mapping[str, bytes] | None = None,
    delete: Iterable[str] = (),
    expected_version: int | None = None,
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[DataUpdated]:
    """Set and delete keys of a session's data, all or none of them.

    Raises `Conflict` where `expected_version` is given and is not the current one, `InvalidArgument` where the data
    would grow over the policy's limit.
    """
    request = pb.UpdateSessionDataRequest(
        application=application,
        session=convert.reference_message(token, session_id),
        set=set or {},
        delete=delete,
        expected_version=expected_version,
        request_id=convert.secret_text(request_id),
    )
    return Call("UpdateSessionData", request, reading.data_updated, timeout)


# Companion tokens, suspicion and guessing


def issue_companion_token(
    application: str,
    token: str | Token,
    purpose: str,
    *,
    time_to_live: timedelta | None = None,
    path: str = "",
    client: ClientContext | None = None,
    timeout: float | None = None,
) -> Call[CompanionIssued]:
    """Issue a short-lived token for one purpose, bound to the session: for sensitive pages.

    It is good only together with the session's token (`Requirements.companion`), and dies with the session and at every
    roll. `time_to_live` is at most the policy's `companion_timeout` (None: that). `path` is the one that its cookie is
    for, with a leading slash; empty: that of the session's cookie.
    """
    request = pb.IssueCompanionTokenRequest(
        application=application,
        token=Token(token).reveal(),
        purpose=purpose,
        time_to_live=convert.span_message(time_to_live),
        path=path,
        client=convert.client_message(client),
    )
    return Call("IssueCompanionToken", request, reading.companion_issued, timeout)


def report_signal(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    reason: str = "",
    client: ClientContext | None = None,
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[SignalReported]:
    """Feed the application's own suspicion into the policy's reactions, as the signal REPORTED.

    The session is named by exactly one of `token` and `session_id`; `reason` says what was noticed, in at most 256
    characters. Raises `NotFound` for an id that the application does not have.
    """
    request = pb.ReportSignalRequest(
        application=application,
        session=convert.reference_message(token, session_id),
        reason=reason,
        client=convert.client_message(client),
        request_id=convert.secret_text(request_id),
    )
    return Call("ReportSignal", request, reading.signal_reported, timeout)


def list_source_locks(
    application: str, *, page_size: int = 0, page_token: str = "", timeout: float | None = None
) -> Call[Page[SourceLock]]:
    """Sources that are locked for guessing, oldest first.

    A page holds at most `page_size`, 1 to 1,000 (0: 100); `timeout` is per page.
    """
    request = pb.ListSourceLocksRequest(application=application, page_size=page_size, page_token=page_token)
    return Call("ListSourceLocks", request, reading.source_locks, timeout)


def clear_source_lock(
    application: str,
    source: str,
    *,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: float | None = None,
) -> Call[LockCleared]:
    """Let a locked source go, named as `list_source_locks` gives it, and forget what was counted against it.

    Raises `NotFound` where it is not locked.
    """
    request = pb.ClearSourceLockRequest(
        application=application, source=source, reason=reason, request_id=convert.secret_text(request_id)
    )
    return Call("ClearSourceLock", request, reading.lock_cleared, timeout)


# The authority


def authority(application: str, *, timeout: float | None = None) -> Call[Authority]:
    """The authority's identity, version and position, and all applications with their effective policies."""
    del application  # the one call that is of no application
    return Call("GetAuthority", pb.GetAuthorityRequest(), reading.authority, timeout)


# Parts of requests


def _question_message(application: str, question: Question) -> pb.ValidateSessionRequest:
    return pb.ValidateSessionRequest(
        application=application,
        token=Token(question.token).reveal(),
        client=convert.client_message(question.client),
        passive=question.passive,
        min_revision=question.min_revision,
        requirements=convert.requirements_message(question.requirements),
        with_csrf_token=question.with_csrf_token,
    )


def _filter(
    subject: str | None,
    state: SessionState | None,
    ip_network: str,
    created_from: datetime | None,
    created_until: datetime | None,
) -> pb.SessionFilter:
    return pb.SessionFilter(
        subject=subject,
        state=convert.state_number(state),
        ip_network=ip_network,
        created_from=convert.timestamp_message(created_from),
        created_until=convert.timestamp_message(created_until),
    )
