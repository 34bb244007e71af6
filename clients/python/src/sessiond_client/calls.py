"""Every unary call, defined once: its parameters, its request, and how its response is read. Nothing here does I/O.

A function here takes the application and the call's own parameters and returns a `Call`. Each client turns it into a
method with the same signature, so the two clients cannot drift apart. Every method raises `SessiondError`,
and `InvalidArgument` before anything is sent if an argument is of the wrong type.

Parameters that several calls share:

- `timeout`: the deadline of this one call in seconds, retries included. None: the client's own.
- `request_id`: a UUIDv4 of your own, if you want to repeat a call yourself. Within 24 hours, the same id with the same
  parameters returns the first answer again and changes nothing. Use each id for one call. If the call returns a token,
  the id is as secret as the token. None: the client makes one, unless its `safe_retries` are off.
- `at_least`: the `consistency_token` of an earlier answer. The call is answered only from a state at least that new, so
  that you see your own change. Empty: any state. Raises `InvalidArgument` if the token is damaged or belongs to another
  authority, and `OutOfRange` if it is ahead of the log or from a part of the log that no longer exists.
- `lifetimes`: timeouts of this one session. They can only be shorter than the policy's; a longer one has no effect.
- `labels`: public key-value pairs of a session, at most 8, for filters. Keys have 1 to 64 of `a-z`, `0-9`, `.`, `_` and
  `-`; values have 1 to 256 characters. Anyone who may list sessions sees them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping  # noqa: F401 - the clients' methods return them
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

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
from sessiond_client.arguments import checked
from sessiond_client.enums import SessionState
from sessiond_client.kinds import Int32, Items, Seconds, UInt64
from sessiond_client.questions import DataRequest, Question, Requirements
from sessiond_client.rpc import Call, Rpc
from sessiond_client.tokens import Token
from sessiond_client.values import Authentication, ClientContext, Event, Lifetimes, Session, SourceLock
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "RPCS",
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


# One session's life

_CREATE = Rpc("CreateSession", reading.created, changes=True)


@checked
def create(
    application: str,
    *,
    subject: str = "",
    authentication: Authentication | None = None,
    client: ClientContext | None = None,
    data: Mapping[str, bytes] | None = None,
    login_page: bool = False,
    persistent: bool = False,
    lifetimes: Lifetimes | None = None,
    labels: Mapping[str, str] | None = None,
    ticket: str | Token | None = None,
    evict: Items[str] = (),
    evict_oldest: bool = False,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[Created]:
    """Open a session: anonymous if `subject` is empty, otherwise for a subject that you have authenticated.

    Send the answer's token to the client over a protected channel and keep no copy. `login_page`: an anonymous session
    that ends after the policy's login timeout unless the subject logs in. `persistent`: remember the session, with the
    policy's longer limits; raises `InvalidArgument` if the policy has none.

    Raises `ConcurrencyLimitReached` if the subject has as many sessions as it may have. If its `limit` has a ticket,
    repeat the call with that `ticket` and with the ids of the sessions that the subject chose to `evict`; with
    `evict_oldest` the oldest end too, as many as have to.
    """
    request = pb.CreateSessionRequest(
        application=application,
        subject=subject,
        authentication=convert.authentication_message(authentication),
        client=convert.client_message(client),
        data=data or {},
        login_page=login_page,
        persistent=persistent,
        lifetimes=convert.lifetimes_message(lifetimes),
        labels=labels or {},
        request_id=convert.secret_text(request_id),
        ticket=convert.secret_text(ticket),
        evict_session_ids=evict,
        evict_oldest=evict_oldest,
    )
    return _CREATE.call(request, timeout)


_VALIDATE = Rpc("ValidateSession", reading.validation)


@checked
def validate(
    application: str,
    token: str | Token,
    *,
    client: ClientContext | None = None,
    passive: bool = False,
    at_least: str = "",
    requirements: Requirements | None = None,
    with_csrf_token: bool = False,
    data: DataRequest | bool | None = None,
    timeout: Seconds | None = None,
) -> Call[Validation]:
    """Check one presented token. Counts as activity unless `passive`.

    Treat every verdict but VALID as "no session", follow `next_step`, and treat an exception as a denial.

    `requirements`: what this request needs beyond a good token; if one is not met, the verdict is INSUFFICIENT and
    `unmet` says what is missing. `with_csrf_token`: return the session's CSRF token too, to put into a page. `data`:
    return session data too, so that one web request is one call: True for all of it, a `DataRequest` for some keys or
    only for data that is newer than your copy.
    """
    question = Question(token, client, passive, at_least, requirements, with_csrf_token, data)
    return _VALIDATE.call(_question_message(application, question), timeout)


_VALIDATE_MANY = Rpc("ValidateSessions", reading.validations)


@checked
def validate_many(
    application: str,
    questions: Items[Question | Token | str],
    *,
    timeout: Seconds | None = None,
) -> Call[tuple[Validation, ...]]:
    """Check up to 1,000 presented tokens in one message. The answers are in the order of the questions."""
    request = pb.ValidateSessionsRequest(
        requests=[
            _question_message(application, item if isinstance(item, Question) else Question(item)) for item in questions
        ]
    )
    return _VALIDATE_MANY.call(request, timeout)


_AUTHENTICATE = Rpc("AuthenticateSession", reading.authenticated, changes=True)


@checked
def authenticate(
    application: str,
    token: str | Token | None,
    subject: str,
    *,
    authentication: Authentication | None = None,
    client: ClientContext | None = None,
    reason: str = "",
    persistent: bool = False,
    elevate: bool = False,
    or_create: bool = False,
    lifetimes: Lifetimes | None = None,
    labels: Mapping[str, str] | None = None,
    ticket: str | Token | None = None,
    evict: Items[str] = (),
    evict_oldest: bool = False,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[Rolled]:
    """Log in a subject that you have authenticated, or authenticate the same subject again.

    Always rolls: the presented token dies at once, the session data stays. Give the client the answer's token instead.
    Repeating a login with the same token (two clicks, a lost answer) returns the first answer again while the policy's
    `lost_answer_tolerance` lasts, so both end in the same session.

    `or_create`: the login always works. If there is no token (None or empty) or a dead one, a fresh session is opened
    for the subject. If the token belongs to another subject's session, that session ends and a fresh one is opened. A
    fresh session has no data; `Rolled.created` tells you. LOCKED is still denied. Cannot be combined with `elevate`.
    Without `or_create` a dead token changes nothing (check `Rolled.token` or `verdict`), and another subject's session
    raises `FailedPrecondition`.

    `elevate`: `authentication` counts for the policy's elevation timeout, then the earlier one counts again; only for a
    session that has a subject. `lifetimes` replaces the session's own; None leaves them as they are. `labels` are added
    to those that the session has. `persistent`, `ticket`, `evict`, `evict_oldest` and `ConcurrencyLimitReached`: as
    with `create`.
    """
    request = pb.AuthenticateSessionRequest(
        application=application,
        token=convert.secret_text(token),
        subject=subject,
        authentication=convert.authentication_message(authentication),
        client=convert.client_message(client),
        reason=reason,
        persistent=persistent,
        elevate=elevate,
        or_create=or_create,
        lifetimes=convert.lifetimes_message(lifetimes),
        labels=labels or {},
        request_id=convert.secret_text(request_id),
        ticket=convert.secret_text(ticket),
        evict_session_ids=evict,
        evict_oldest=evict_oldest,
    )
    return _AUTHENTICATE.call(request, timeout)


_ROLL = Rpc("RollSession", reading.rolled, changes=True)


@checked
def roll(
    application: str,
    token: str | Token,
    *,
    client: ClientContext | None = None,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[Rolled]:
    """Replace the token at a privilege change other than login (`reason`: `password`, `role`, ...).

    The presented token dies at once. Replace the client's token with the answer's.
    """
    request = pb.RollSessionRequest(
        application=application,
        token=Token(token).reveal(),
        client=convert.client_message(client),
        reason=reason,
        request_id=convert.secret_text(request_id),
    )
    return _ROLL.call(request, timeout)


_REFRESH = Rpc("RefreshSession", reading.refreshed, changes=True)


@checked
def refresh(
    application: str,
    token: str | Token,
    *,
    client: ClientContext | None = None,
    lifetimes: Lifetimes | None = None,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[Refreshed]:
    """Start the idle timeout again, and the absolute lifetime too if the policy says so. The token stays.

    `lifetimes` replaces the session's own timeouts; None leaves them as they are.
    """
    request = pb.RefreshSessionRequest(
        application=application,
        token=Token(token).reveal(),
        client=convert.client_message(client),
        lifetimes=convert.lifetimes_message(lifetimes),
        request_id=convert.secret_text(request_id),
    )
    return _REFRESH.call(request, timeout)


# Idempotent: a session that has ended stays ended.
_REVOKE = Rpc("RevokeSession", reading.revoked, changes=True, idempotent=True)


@checked
def revoke(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    subject: str | None = None,
    reason: str = "",
    client: ClientContext | None = None,
    open_anonymous: bool = False,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[Revoked]:
    """End one session, named by exactly one of `token` and `session_id`, at once and for good.

    Ending a session that has ended changes nothing and is no error. Raises `NotFound` for an id that the application
    does not have. `open_anonymous`: open a fresh anonymous session in its place.

    `subject`: the session must belong to this subject (empty: be anonymous), otherwise `NotFound`. Always set it when
    users end their sessions by id, so that nobody can end anybody else's.
    """
    request = pb.RevokeSessionRequest(
        application=application,
        session=convert.reference_message(token, session_id),
        subject=subject,
        reason=reason,
        client=convert.client_message(client),
        request_id=convert.secret_text(request_id),
        open_anonymous=open_anonymous,
    )
    return _REVOKE.call(request, timeout, needs_id=open_anonymous)  # made twice, it would open two sessions


# Many sessions

_REVOKE_ALL = Rpc("RevokeSessions", reading.revoked_all, changes=True)


@checked
def revoke_all(
    application: str,
    *,
    subject: str | None = None,
    ip_network: str = "",
    created_from: datetime | None = None,
    created_until: datetime | None = None,
    labels: Mapping[str, str] | None = None,
    except_session_id: str = "",
    whole_application: bool = False,
    reason: str = "",
    progress: Callable[[int], None] | None = None,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[RevokedAll]:
    """End all live sessions that match every given condition and were opened before the call began.

    `subject=""` means the anonymous sessions; `labels` means the sessions that have all of them. `except_session_id`
    keeps one session ("log out everywhere else"). Without any condition, `whole_application` must be true.

    The authority ends sessions in batches until the deadline. If there are more, the client repeats the call, each time
    with a fresh `timeout`, until all have ended, so the whole may take much longer than one `timeout`. It raises
    `DeadlineExceeded` only if the authority's log did not advance during a whole round. `progress` is called with the
    number of rounds after each one that was not the last; an exception from it ends the call.

    If the call fails half-way, the sessions that it ended stay ended. The answer counts the sessions of the last round
    only, since an earlier round has given no answer. A repeated round may also end sessions that were opened meanwhile.
    """
    request = pb.RevokeSessionsRequest(
        application=application,
        filter=_filter(subject, None, ip_network, created_from, created_until, labels),
        except_session_id=except_session_id,
        whole_application=whole_application,
        reason=reason,
        request_id=convert.secret_text(request_id),
    )
    return replace(_REVOKE_ALL.call(request, timeout), in_rounds=True, progress=progress)


_GET = Rpc("GetSession", reading.found)


@checked
def get(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    at_least: str = "",
    timeout: Seconds | None = None,
) -> Call[Found]:
    """Show one session; an ended one too, while its history is kept. Does not count as activity.

    Raises `NotFound` for an id that the application does not have.
    """
    request = pb.GetSessionRequest(
        application=application, session=convert.reference_message(token, session_id), at_least=at_least
    )
    return _GET.call(request, timeout)


_LIST = Rpc("ListSessions", reading.sessions)


@checked
def list_sessions(
    application: str,
    *,
    subject: str | None = None,
    state: SessionState | None = None,
    ip_network: str = "",
    created_from: datetime | None = None,
    created_until: datetime | None = None,
    labels: Mapping[str, str] | None = None,
    at_least: str = "",
    page_size: Int32 = 0,
    page_token: str = "",
    timeout: Seconds | None = None,
) -> Call[Page[Session]]:
    """Sessions that match every given condition, newest first; only live ones unless `state` is given.

    `subject=""` means the anonymous sessions; `labels` means the sessions that have all of them. A page holds at most
    `page_size` sessions, 1 to 1,000 (0: 100); `timeout` is per page. `page_token` continues after an earlier page, with
    the other conditions unchanged.
    """
    request = pb.ListSessionsRequest(
        application=application,
        filter=_filter(subject, state, ip_network, created_from, created_until, labels),
        at_least=at_least,
        page_size=page_size,
        page_token=page_token,
    )
    return _LIST.call(request, timeout)


_ACTIVITY = Rpc("ListActivity", reading.activity)


@checked
def activity(
    application: str,
    subject: str,
    *,
    at_least: str = "",
    page_size: Int32 = 0,
    page_token: str = "",
    timeout: Seconds | None = None,
) -> Call[Page[Event]]:
    """A subject's lifecycle history, newest first, as far back as the horizon.

    A page holds at most `page_size` events, 1 to 1,000 (0: 100); `timeout` is per page.
    """
    request = pb.ListActivityRequest(
        application=application, subject=subject, at_least=at_least, page_size=page_size, page_token=page_token
    )
    return _ACTIVITY.call(request, timeout)


# Session data

_GET_DATA = Rpc("GetSessionData", reading.data)


@checked
def get_data(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    keys: Items[str] = (),
    at_least: str = "",
    timeout: Seconds | None = None,
) -> Call[Data]:
    """Read a session's data, all of it or only `keys`. Does not count as activity.

    In a web request, `validate(..., data=True)` checks the token and reads the data in one call.
    """
    request = pb.GetSessionDataRequest(
        application=application, session=convert.reference_message(token, session_id), keys=keys, at_least=at_least
    )
    return _GET_DATA.call(request, timeout)


_UPDATE_DATA = Rpc("UpdateSessionData", reading.data_updated, changes=True)


@checked
def update_data(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    set: Mapping[str, bytes] | None = None,
    delete: Items[str] = (),
    expected_version: UInt64 | None = None,
    return_data: DataRequest | bool | None = None,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[DataUpdated]:
    """Set and delete keys of a session's data, all or none of them. Other keys stay as they are.

    `return_data`: return the data after the change too, True for all of it, a `DataRequest` for some of it. Raises
    `Conflict` if `expected_version` is given and is not the current version, and `InvalidArgument` if the data would
    grow over the policy's limit.
    """
    request = pb.UpdateSessionDataRequest(
        application=application,
        session=convert.reference_message(token, session_id),
        set=set or {},
        delete=delete,
        expected_version=expected_version,
        data=convert.data_request_message(return_data),
        request_id=convert.secret_text(request_id),
    )
    return _UPDATE_DATA.call(request, timeout)


# Companion tokens, suspicion and guessing

_ISSUE_COMPANION_TOKEN = Rpc("IssueCompanionToken", reading.companion_issued)


@checked
def issue_companion_token(
    application: str,
    token: str | Token,
    purpose: str,
    *,
    time_to_live: timedelta | None = None,
    path: str = "",
    client: ClientContext | None = None,
    timeout: Seconds | None = None,
) -> Call[CompanionIssued]:
    """Issue a short-lived token for one purpose, bound to the session: for sensitive pages.

    It is valid only together with the session's token (`Requirements.companion`), and dies with the session and at
    every roll. `time_to_live` is at most the policy's `companion_timeout` (None: that). `path` is the path of its
    cookie, with a leading slash; empty: the path of the session's cookie.
    """
    request = pb.IssueCompanionTokenRequest(
        application=application,
        token=Token(token).reveal(),
        purpose=purpose,
        time_to_live=convert.span_message(time_to_live),
        path=path,
        client=convert.client_message(client),
    )
    return _ISSUE_COMPANION_TOKEN.call(request, timeout)


_REPORT_SIGNAL = Rpc("ReportSignal", reading.signal_reported, changes=True)


@checked
def report_signal(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    reason: str = "",
    client: ClientContext | None = None,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[SignalReported]:
    """Report a suspicion of your application. The policy reacts to it as to the signal REPORTED.

    The session is named by exactly one of `token` and `session_id`; `reason` says what you noticed, in at most 256
    characters. Raises `NotFound` for an id that the application does not have.
    """
    request = pb.ReportSignalRequest(
        application=application,
        session=convert.reference_message(token, session_id),
        reason=reason,
        client=convert.client_message(client),
        request_id=convert.secret_text(request_id),
    )
    return _REPORT_SIGNAL.call(request, timeout)


_LIST_SOURCE_LOCKS = Rpc("ListSourceLocks", reading.source_locks)


@checked
def list_source_locks(
    application: str, *, page_size: Int32 = 0, page_token: str = "", timeout: Seconds | None = None
) -> Call[Page[SourceLock]]:
    """Sources that are locked for guessing, oldest first.

    A page holds at most `page_size` locks, 1 to 1,000 (0: 100); `timeout` is per page.
    """
    request = pb.ListSourceLocksRequest(application=application, page_size=page_size, page_token=page_token)
    return _LIST_SOURCE_LOCKS.call(request, timeout)


_CLEAR_SOURCE_LOCK = Rpc("ClearSourceLock", reading.lock_cleared, changes=True)


@checked
def clear_source_lock(
    application: str,
    source: str,
    *,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[LockCleared]:
    """Unlock a source, named as `list_source_locks` returns it, and forget the guesses that were counted for it.

    Raises `NotFound` if it is not locked.
    """
    request = pb.ClearSourceLockRequest(
        application=application, source=source, reason=reason, request_id=convert.secret_text(request_id)
    )
    return _CLEAR_SOURCE_LOCK.call(request, timeout)


# The authority

_AUTHORITY = Rpc("GetAuthority", reading.authority)


@checked
def authority(application: str, *, timeout: Seconds | None = None) -> Call[Authority]:
    """The authority's identity, version and position, and all applications with their effective policies."""
    del application  # this call alone is not about one application
    return _AUTHORITY.call(pb.GetAuthorityRequest(), timeout)


RPCS: tuple[Rpc[Any], ...] = tuple(item for item in tuple(globals().values()) if isinstance(item, Rpc))
"""Every unary RPC, as described above; collected, so that nothing is listed twice."""


# Parts of requests


def _question_message(application: str, question: Question) -> pb.ValidateSessionRequest:
    return pb.ValidateSessionRequest(
        application=application,
        token=Token(question.token).reveal(),
        client=convert.client_message(question.client),
        passive=question.passive,
        at_least=question.at_least,
        requirements=convert.requirements_message(question.requirements),
        with_csrf_token=question.with_csrf_token,
        data=convert.data_request_message(question.data),
    )


def _filter(
    subject: str | None,
    state: SessionState | None,
    ip_network: str,
    created_from: datetime | None,
    created_until: datetime | None,
    labels: Mapping[str, str] | None,
) -> pb.SessionFilter:
    return pb.SessionFilter(
        subject=subject,
        state=convert.state_number(state),
        ip_network=ip_network,
        created_from=convert.timestamp_message(created_from),
        created_until=convert.timestamp_message(created_until),
        labels=labels or {},
    )
