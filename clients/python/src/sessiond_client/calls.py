"""Every unary call, defined once: its parameters, its request, and how its response is read. Nothing here does I/O.

A function here takes the application and the call's own parameters and returns a `Call`. Each client turns it into a
method with the same signature, which returns what the `Call` reads. So the two clients cannot drift apart.

Every method raises a `SessiondError` if the call fails, and `InvalidArgument`, before anything is sent, if an argument
is of the wrong type. Each docstring names only the exceptions that are particular to the call.

Parameters that many calls share:

- `timeout`: the deadline of this one call in seconds, retries included. None: the client's own, 5 by default.
- `request_id`: a UUIDv4 of your own, if you want to repeat a call yourself. Within the policy's `answer_retention` (24
  hours by default), the same id with the same parameters returns the first answer again and changes nothing; with
  other parameters it raises `InvalidArgument`. Use each id for one call. If the call returns a token, the id is as
  secret as the token. None: the client creates one, unless its `safe_retries` is off.
- `at_least`: the `consistency_token` of an earlier answer. The authority answers only from a state at least that new,
  so that you see your own change. Empty: any state. Raises `InvalidArgument` if the token is damaged or belongs to
  another authority, and `OutOfRange` if it is ahead of the log or from a part of the log that no longer exists.
- `client`: what your application sees of the user's client, for the comparison with the session's own. None: this call
  is not compared.
- `lifetimes`: timeouts of this one session. They can only be shorter than the policy's; a longer one has no effect.
- `labels`: public key-value pairs of a session, at most 8, for filters. Keys have 1 to 64 of `a-z`, `0-9`, `.`, `_` and
  `-`; values have 1 to 256 characters. Anyone who may list sessions sees them.
- `reason`: why, in your own words, at most 256 characters. It is recorded with the event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping  # noqa: F401 - the clients' methods return them
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sessiond_client import convert, reading
from sessiond_client.answers import (
    Authority,
    CallerKey,
    CallerRevoked,
    CallerUpdated,
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
    SealingKeyChanged,
    SignalReported,
    Validation,
)
from sessiond_client.arguments import checked
from sessiond_client.enums import SessionState
from sessiond_client.kinds import Int32, Items, Seconds, UInt64
from sessiond_client.questions import DataRequest, Question, Requirements
from sessiond_client.rpc import Call, Rpc
from sessiond_client.tokens import Token
from sessiond_client.values import (
    Authentication,
    CallerInfo,
    ClientContext,
    Event,
    Grant,
    KeyRing,
    Lifetimes,
    Session,
    SourceLock,
)
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "RPCS",
    "activity",
    "add_sealing_key",
    "authenticate",
    "authority",
    "clear_source_lock",
    "create",
    "create_caller",
    "get",
    "get_data",
    "issue_companion_token",
    "key_ring",
    "list_callers",
    "list_sessions",
    "list_source_locks",
    "promote_sealing_key",
    "refresh",
    "report_signal",
    "retire_sealing_key",
    "revoke",
    "revoke_all",
    "revoke_caller",
    "roll",
    "rotate_caller",
    "update_caller_certificates",
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
    """Open a session. Send the answer's token to the user's client over a protected channel and keep no copy.

    - `subject`: the user that you have authenticated, at most 256 characters; empty: an anonymous session.
    - `authentication`: how you have authenticated the subject; only with a subject.
    - `client`: what your application sees of the user's client; later clients are compared with it.
    - `data`: the first session data, within the policy's `max_data_bytes`.
    - `login_page`: for an anonymous session: it ends after the policy's login timeout unless the user logs in.
    - `persistent`: remember the session, with the policy's longer limits.
    - `lifetimes`: timeouts of this session; they can only be shorter than the policy's.
    - `labels`: at most 8 public key-value pairs, for filters.
    - `ticket`, `evict`, `evict_oldest`: see below.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `ConcurrencyLimitReached` if the subject has as many sessions as the policy allows. If its `limit` has a
    ticket, repeat the call with that `ticket` and with the ids of the sessions that the user chose in `evict`.
    `evict_oldest` also ends the subject's oldest sessions, as many as necessary. Raises `InvalidArgument` for
    `persistent` if the policy has no limits for it, and for a ticket that is used or expired.
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
    """Check one presented token. Call it once for each web request, and check `valid` of the answer.

    Treat every verdict other than VALID and every exception as "no session", follow `next_step`, and send
    `cookies.headers()` in your response.

    - `token`: what the user's client presented, unchanged. If it presented nothing, pass "": the verdict is MALFORMED.
    - `client`: what your application sees of the user's client, to compare it with the session's; None: do not compare.
    - `passive`: do not count this as activity, so that it does not restart the idle timeout; for polling.
    - `at_least`: the `consistency_token` of an earlier answer, so that you see your own change; empty: any state.
    - `requirements`: what this request needs beyond a valid token. If one is not met, the verdict is INSUFFICIENT and
      `unmet` says what is missing.
    - `with_csrf_token`: also return the session's CSRF token, to put into a page.
    - `data`: also return session data: True for all of it, a `DataRequest` for some keys, or only if the data is newer
      than your copy.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Never raises for a bad token. Raises `OutOfRange` or `InvalidArgument` for an `at_least` that does not fit this
    authority, `InternalError` with the status `DATA_LOSS` if the session's data cannot be read, and `Unavailable`,
    `DeadlineExceeded` or `ResourceExhausted` if the authority cannot answer now.
    """
    request = _question_message(application, token, client, passive, at_least, requirements, with_csrf_token, data)
    return _VALIDATE.call(request, timeout)


def usual_validation(
    application: str,
    token: Any,
    client: Any,
    passive: Any,
    at_least: Any,
    requirements: Any,
    with_csrf_token: Any,
    data: Any,
    timeout: Any,
) -> Call[Validation] | None:
    """The call of `validate` for the usual arguments, which need no check; None: `validate` must check them.

    That takes a third of the time, and many applications validate more than they do anything else.
    """
    if type(token) is Token:
        token = token.reveal()
    elif type(token) is not str or not token.isascii():
        return None
    if (
        requirements is not None
        or at_least != ""
        or (data is not None and data is not True)
        or type(passive) is not bool
        or type(with_csrf_token) is not bool
        or (timeout is not None and not (type(timeout) in _NUMBERS and 0 <= timeout <= _LONGEST_TIMEOUT))
    ):
        return None
    request = pb.ValidateSessionRequest(application=application, token=token)
    if client is not None and not convert.fill_usual_client(request, client):
        return None
    if passive:
        request.passive = True
    if with_csrf_token:
        request.with_csrf_token = True
    if data:
        request.data.SetInParent()
    return Call(_VALIDATE, request, timeout)


_NUMBERS = (int, float)
_LONGEST_TIMEOUT = 10**9
_VALIDATE_MANY = Rpc("ValidateSessions", reading.validations)


@checked
def validate_many(
    application: str,
    questions: Items[Question | Token | str],
    *,
    timeout: Seconds | None = None,
) -> Call[tuple[Validation, ...]]:
    """Check up to 1,000 presented tokens in one message. The answers are in the order of the questions.

    - `questions`: tokens, or a `Question` for each token that needs parameters of its own; see `validate`. Each is
      judged by itself.
    - `timeout`: seconds for the whole call, retries included; None: the client's own.

    Session data that cannot be read, or that would make the message too long, is left out of its answer (`data` is None
    although the verdict is VALID): validate that token alone.
    """
    request = pb.ValidateSessionsRequest(
        requests=[
            _message_of(application, item) if isinstance(item, Question) else _question_message(application, item)
            for item in questions
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

    The session gets a new token: send the answer's token to the user's client. The presented token stops working at
    once, and the session data stays. Check `token` or `verdict` of the answer: for a dead token nothing changes, and
    `token` is None.

    Repeating a login with the same token (two clicks, a lost answer) returns the first answer again, for the longer of
    the policy's `lost_answer_tolerance` and `roll_tolerance`, so both end in the same session. Two logins without a
    token, or with one that the authority never issued, open two sessions unless both have the same `request_id`.

    - `token`: what the user's client presented; None or "" if nothing (with `or_create`).
    - `subject`: the user that you have authenticated, 1 to 256 characters.
    - `authentication`: how you have authenticated the subject.
    - `client`: what your application sees of the user's client; later clients are compared with it.
    - `reason`: why, for the event; at most 256 characters.
    - `persistent`: remember the session, as in `create`. No effect with `elevate`.
    - `elevate`: `authentication` counts for the policy's elevation timeout, then the earlier one counts again. Only for
      a session that has a subject.
    - `or_create`: the login always works. For a missing or dead token a fresh session is opened; another subject's
      session is ended first. A fresh session has no data; `Rolled.created` is then true. LOCKED is still denied. Cannot
      be combined with `elevate`.
    - `lifetimes`: new timeouts of this session; None: they stay as they are.
    - `labels`: added to those that the session has; at most 8 in all.
    - `ticket`, `evict`, `evict_oldest`: as in `create`.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `FailedPrecondition` without `or_create` if the session belongs to another subject, and with `elevate` if it
    is anonymous. Raises `ConcurrencyLimitReached` as `create` does.
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
    """Replace the token at a privilege change other than login, such as a changed password or role.

    Send the answer's token to the user's client. The presented token stops working at once. Check `token` or `verdict`
    of the answer: for a dead token nothing changes, and `token` is None.

    - `token`: what the user's client presented.
    - `client`: what your application sees of the user's client; None: do not compare.
    - `reason`: what changed (`password`, `role`, ...), for the event; at most 256 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.
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
    """Restart the idle timeout, and the absolute lifetime too if the policy says so. The token stays the same.

    - `token`: what the user's client presented. For a dead token nothing changes; check `verdict` of the answer.
    - `client`: what your application sees of the user's client; None: do not compare.
    - `lifetimes`: new timeouts of this session; None: they stay as they are.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.
    """
    request = pb.RefreshSessionRequest(
        application=application,
        token=Token(token).reveal(),
        client=convert.client_message(client),
        lifetimes=convert.lifetimes_message(lifetimes),
        request_id=convert.secret_text(request_id),
    )
    return _REFRESH.call(request, timeout)


# Idempotent, because a session that has ended stays ended.
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
    wait_for_caches: bool = False,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[Revoked]:
    """End one session, at once and for good: log out. Specify exactly one of `token` and `session_id`.

    Ending a session that has ended already changes nothing and is not an error.

    - `token`: what the user's client presented. The answer's `cookies` then delete the cookie.
    - `session_id`: the public id, as in `list`.
    - `subject`: the session must belong to this subject (empty: it must be anonymous); None: to anyone. Always set it
      when users end sessions by id, so that nobody can end anyone else's.
    - `reason`: why (`logout`, ...), for the event; at most 256 characters.
    - `client`: what your application sees of the user's client, for the event.
    - `open_anonymous`: open a fresh anonymous session in its place.
    - `wait_for_caches`: return only when no replica, worker, sidecar or near cache accepts the session any more: up to
      6 seconds if one of them has just crashed or is cut off, or if the authority has just started. False: all but the
      process that answers may accept it for some milliseconds more, and for at most 5 seconds if they are cut off.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own, or 12 with `wait_for_caches`.

    Raises `NotFound` if the application has no session with that id, or if it is not that subject's.
    """
    request = pb.RevokeSessionRequest(
        application=application,
        session=convert.reference_message(token, session_id),
        subject=subject,
        reason=reason,
        client=convert.client_message(client),
        request_id=convert.secret_text(request_id),
        open_anonymous=open_anonymous,
        wait=_wait(wait_for_caches),
    )
    # Sent twice without an id, it would open two anonymous sessions.
    return _REVOKE.call(request, _patience(timeout, wait_for_caches), needs_id=open_anonymous)


_WAIT_SECONDS = 12.0
"""The deadline of a call that waits for caches, unless the caller chooses one: twice what it takes at most."""


def _patience(timeout: Seconds | None, wait_for_caches: bool) -> Seconds | None:
    return _WAIT_SECONDS if timeout is None and wait_for_caches else timeout


def _wait(for_caches: bool) -> pb.RevocationWait.ValueType:
    return pb.REVOCATION_WAIT_FOR_CACHES if for_caches else pb.REVOCATION_WAIT_UNSPECIFIED


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
    wait_for_caches: bool = False,
    progress: Callable[[int], None] | None = None,
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[RevokedAll]:
    """End all live sessions that match every condition and were opened before the call began.

    - `subject`: sessions of this subject; "": anonymous sessions; None: of anyone.
    - `ip_network`: opened or last authenticated from this network, as an address or in CIDR form.
    - `created_from`, `created_until`: opened at or after, and opened before this time.
    - `labels`: sessions that have all of these labels.
    - `except_session_id`: keep this session ("log out everywhere else").
    - `whole_application`: must be true if there is no condition, so that no empty call ends everything.
    - `reason`: why, for the events; at most 256 characters.
    - `wait_for_caches`: as for `revoke`.
    - `progress`: called with the number of rounds after each round but the last (see below). An exception from it ends
      the call.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for each round, retries included; None: the client's own, or 12 with `wait_for_caches`.

    The authority ends sessions in batches until the deadline. If there are more, the client repeats the call in another
    round with a fresh `timeout`, until all have ended. So the whole may take much longer than one `timeout`. It raises
    `DeadlineExceeded` only if the authority's log did not advance during a whole round.

    If the call fails half-way, the sessions that it ended stay ended. The answer counts the sessions of the last round
    only, because earlier rounds had no answer. A later round may also end sessions that were opened after the first.
    """
    request = pb.RevokeSessionsRequest(
        application=application,
        filter=_filter(subject, None, ip_network, created_from, created_until, labels),
        except_session_id=except_session_id,
        whole_application=whole_application,
        reason=reason,
        request_id=convert.secret_text(request_id),
        wait=_wait(wait_for_caches),
    )
    call = _REVOKE_ALL.call(request, _patience(timeout, wait_for_caches))
    return replace(call, in_rounds=True, progress=progress)


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
    """Look at one session, also at one that has ended while its history is kept. Does not count as activity.

    - `token` or `session_id`: exactly one of them names the session.
    - `at_least`: the `consistency_token` of an earlier answer, so that you see your own change; empty: any state.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    By token, `session` is None unless the verdict is VALID or INSUFFICIENT. Raises `NotFound` if the application has no
    session with that id.
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
    """Sessions that match every condition, newest first. `list` goes through all pages; `list_page` returns one.

    - `subject`: sessions of this subject; "": anonymous sessions; None: of anyone.
    - `state`: sessions in this state; None: live sessions only.
    - `ip_network`: opened or last authenticated from this network, as an address or in CIDR form.
    - `created_from`, `created_until`: opened at or after, and opened before this time.
    - `labels`: sessions that have all of these labels.
    - `at_least`: the `consistency_token` of an earlier answer, so that you see your own change; empty: any state.
    - `page_size`: at most this many sessions a page, 1 to 1,000; 0: 100.
    - `page_token`: the `next_page_token` of an earlier page, with the other conditions unchanged; empty: begin.
    - `timeout`: seconds for each page, retries included; None: the client's own.
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
    """A subject's events, newest first, as far back as the log is kept ("your activity").

    `activity` goes through all pages; `activity_page` returns one.

    - `subject`: the subject; required.
    - `at_least`: the `consistency_token` of an earlier answer, so that you see your own change; empty: any state.
    - `page_size`: at most this many events a page, 1 to 1,000; 0: 100.
    - `page_token`: the `next_page_token` of an earlier page; empty: begin.
    - `timeout`: seconds for each page, retries included; None: the client's own.
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
    """Read a session's data. Does not count as activity.

    In a web request use `validate(..., data=True)`: it checks the token and reads the data in one call.

    - `token` or `session_id`: exactly one of them names the session.
    - `keys`: return only these keys; empty: all.
    - `at_least`: the `consistency_token` of an earlier answer, so that you see your own change; empty: any state.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    If the session is not live, `verdict` says why and there is no data. Raises `NotFound` if the application has no
    session with that id, and `InternalError` with the status `DATA_LOSS` if the data cannot be read.
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
    """Set and delete keys of a session's data, all of them or none. Other keys stay as they are.

    - `token` or `session_id`: exactly one of them names the session. If it is not live, nothing changes; check
      `verdict` of the answer.
    - `set`: keys (1 to 256 characters) and their new values in bytes. `json_data.encode` creates these from JSON
      values.
    - `delete`: keys to delete; deleting a key that does not exist is not an error. At most 1,000 keys in all.
    - `expected_version`: change the data only if this is its current version; None: in any case.
    - `return_data`: also return the data after the change: True for all of it, a `DataRequest` for some of it.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `Conflict` if `expected_version` is not the current version, `InvalidArgument` if the data would grow over
    the policy's `max_data_bytes`, and `NotFound` if the application has no session with that id.
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
    """Issue a second, short-lived token for one purpose, bound to the session: for sensitive pages.

    It is valid only together with the session's token (`Requirements.companion`), and stops working when the session
    ends and at every login or roll. Does not count as activity. For a dead session token there is no companion token;
    check `verdict` of the answer.

    - `token`: the session's token, as the user's client presented it.
    - `purpose`: what the companion token is for, 1 to 64 ASCII letters, digits, `.`, `_` and `-`.
    - `time_to_live`: how long it is valid, at most the policy's `companion_timeout`; None: that.
    - `path`: the path of its cookie, with a leading slash; empty: the path of the session's cookie.
    - `client`: what your application sees of the user's client; None: do not compare.
    - `timeout`: seconds for this call, retries included; None: the client's own.
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
    """Report a suspicion of your application. The policy's reaction to the signal REPORTED follows.

    - `token` or `session_id`: exactly one of them names the session.
    - `reason`: what you noticed, in at most 256 characters.
    - `client`: what your application sees of the user's client, for the event.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `NotFound` if the application has no session with that id.
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
    """Sources that are locked for guessing tokens, oldest lock first.

    `list_source_locks` goes through all pages; `list_source_locks_page` returns one.

    - `page_size`: at most this many locks a page, 1 to 1,000; 0: 100.
    - `page_token`: the `next_page_token` of an earlier page; empty: begin.
    - `timeout`: seconds for each page, retries included; None: the client's own.
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
    """Unlock a source and forget the guesses that were counted for it.

    - `source`: the locked network, as `list_source_locks` returns it.
    - `reason`: why, for the event; at most 256 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `NotFound` if the source is not locked.
    """
    request = pb.ClearSourceLockRequest(
        application=application, source=source, reason=reason, request_id=convert.secret_text(request_id)
    )
    return _CLEAR_SOURCE_LOCK.call(request, timeout)


# Callers

_CREATE_CALLER = Rpc("CreateCaller", reading.caller_key, changes=True)


@checked
def create_caller(
    application: str,
    name: str,
    grants: Items[Grant],
    *,
    certificate_names: Items[str] = (),
    without_key: bool = False,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[CallerKey]:
    """Add a caller. From the first one on, every call to the authority needs a caller.

    - `name`: 1 to 64 characters of `a-z`, `0-9`, `.`, `_` and `-`; events have it as their actor.
    - `grants`: its roles, such as `[Grant(role=Role.VALIDATOR, application="shop")]`. The first caller must be an admin
      for all applications: `Grant(role=Role.ADMIN)`.
    - `certificate_names`: names that prove the caller if its client certificate (mutual TLS) has one of them: URIs such
      as `spiffe://example.org/shop`, and DNS names, compared exactly; at most 10.
    - `without_key`: create no key, because the caller is known by its certificate or by a socket of its own.
    - `reason`: why, for the event; at most 128 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    The answer has the caller's key, which is not shown again. Raises `AlreadyExists` if there is a caller of that name,
    and `FailedPrecondition` if nobody would be an admin for all applications.
    """
    del application  # callers belong to no application
    request = pb.CreateCallerRequest(
        name=name,
        grants=[convert.grant_message(grant) for grant in grants],
        certificate_names=certificate_names,
        without_key=without_key,
        reason=reason,
        request_id=convert.secret_text(request_id),
    )
    return _CREATE_CALLER.call(request, timeout)


_LIST_CALLERS = Rpc("ListCallers", reading.callers)


@checked
def list_callers(
    application: str, *, at_least: str = "", timeout: Seconds | None = None
) -> Call[tuple[CallerInfo, ...]]:
    """All callers, by name, with the public ids of their keys.

    - `at_least`: the `consistency_token` of an earlier answer; empty: any state.
    - `timeout`: seconds for this call, retries included; None: the client's own.
    """
    del application
    return _LIST_CALLERS.call(pb.ListCallersRequest(at_least=at_least), timeout)


_ROTATE_CALLER = Rpc("RotateCaller", reading.caller_key, changes=True)


@checked
def rotate_caller(
    application: str,
    name: str,
    *,
    overlap: timedelta | None = None,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[CallerKey]:
    """Give a caller a new key.

    - `name`: the caller.
    - `overlap`: how long its other keys remain valid, at most 30 days; None: they stop working at once.
    - `reason`: why, for the event; at most 128 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `NotFound` if there is no such caller.
    """
    del application
    request = pb.RotateCallerRequest(
        name=name,
        overlap=convert.span_message(overlap),
        reason=reason,
        request_id=convert.secret_text(request_id),
    )
    return _ROTATE_CALLER.call(request, timeout)


_REVOKE_CALLER = Rpc("RevokeCaller", reading.caller_revoked, changes=True)


@checked
def revoke_caller(
    application: str,
    name: str,
    *,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[CallerRevoked]:
    """Remove a caller. Its calls are refused from then on, and its open streams end.

    - `name`: the caller.
    - `reason`: why, for the event; at most 128 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `NotFound` if there is no such caller, and `FailedPrecondition` if nobody else could manage callers.
    """
    del application
    request = pb.RevokeCallerRequest(name=name, reason=reason, request_id=convert.secret_text(request_id))
    return _REVOKE_CALLER.call(request, timeout)


_UPDATE_CALLER_CERTIFICATES = Rpc("UpdateCallerCertificates", reading.caller_updated, changes=True)


@checked
def update_caller_certificates(
    application: str,
    name: str,
    *,
    add: Items[str] = (),
    remove: Items[str] = (),
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[CallerUpdated]:
    """Change by which names in a client certificate a caller is known.

    - `name`: the caller.
    - `add`: names to add, as for `create_caller`.
    - `remove`: names that prove nothing from then on.
    - `reason`: why, for the event; at most 128 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `NotFound` if there is no such caller, and `InvalidArgument` if a name cannot be used or is that of another
    caller.
    """
    del application
    request = pb.UpdateCallerCertificatesRequest(
        name=name, add=add, remove=remove, reason=reason, request_id=convert.secret_text(request_id)
    )
    return _UPDATE_CALLER_CERTIFICATES.call(request, timeout)


# The key ring

_KEY_RING = Rpc("GetKeyRing", reading.key_ring)


@checked
def key_ring(application: str, *, at_least: str = "", timeout: Seconds | None = None) -> Call[KeyRing]:
    """The keys that seal tokens and stored data, by their fingerprints, and what still needs each of them.

    - `at_least`: the `consistency_token` of an earlier answer; empty: any state.
    - `timeout`: seconds for this call, retries included; None: the client's own. Counting takes up to four seconds.
    """
    del application  # the key ring belongs to no application
    return _KEY_RING.call(pb.GetKeyRingRequest(at_least=at_least), timeout)


_ADD_SEALING_KEY = Rpc("AddSealingKey", reading.key_changed, changes=True)


@checked
def add_sealing_key(
    application: str,
    *,
    local: bool = False,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[SealingKeyChanged]:
    """Add a new random key to the key ring. It opens, and does not seal before it is promoted.

    - `local`: only the server that answers gets the key, and you copy its key file to the other replicas.
    - `reason`: why, for the event; at most 128 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own. The call waits up to 3 seconds until
      every replica holds the key.

    Raises `FailedPrecondition` if the ring has three keys, or if the keys come from a file or a command of yours.
    """
    del application
    request = pb.AddSealingKeyRequest(local=local, reason=reason, request_id=convert.secret_text(request_id))
    return _ADD_SEALING_KEY.call(request, timeout)


_PROMOTE_SEALING_KEY = Rpc("PromoteSealingKey", reading.key_changed, changes=True)


@checked
def promote_sealing_key(
    application: str,
    fingerprint: str = "",
    *,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[SealingKeyChanged]:
    """Make a key the sealing key. Nobody is logged out: the one before opens what it sealed.

    - `fingerprint`: at least the first 8 digits; empty: the only key that was never promoted.
    - `reason`: why, for the event; at most 128 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `NotFound` if there is no such key, and `FailedPrecondition` if a replica does not hold it yet.
    """
    del application
    request = pb.PromoteSealingKeyRequest(
        fingerprint=fingerprint, reason=reason, request_id=convert.secret_text(request_id)
    )
    return _PROMOTE_SEALING_KEY.call(request, timeout)


_RETIRE_SEALING_KEY = Rpc("RetireSealingKey", reading.key_changed, changes=True)


@checked
def retire_sealing_key(
    application: str,
    fingerprint: str,
    *,
    log_out_sessions: bool = False,
    reason: str = "",
    request_id: str | Token | None = None,
    timeout: Seconds | None = None,
) -> Call[SealingKeyChanged]:
    """Begin to retire a key. It is removed once nothing needs it any more.

    - `fingerprint`: at least the first 8 digits.
    - `log_out_sessions`: do so even if live sessions may have a token of it; they are logged out when it is removed.
    - `reason`: why, for the event; at most 128 characters.
    - `request_id`: a UUIDv4 of your own, to repeat this call yourself; None: the client creates one.
    - `timeout`: seconds for this call, retries included; None: the client's own.

    Raises `NotFound` if there is no such key, and `FailedPrecondition` if it seals or may still be needed.
    """
    del application
    request = pb.RetireSealingKeyRequest(
        fingerprint=fingerprint,
        log_out_sessions=log_out_sessions,
        reason=reason,
        request_id=convert.secret_text(request_id),
    )
    return _RETIRE_SEALING_KEY.call(request, timeout)


# The authority

_AUTHORITY = Rpc("GetAuthority", reading.authority)


@checked
def authority(application: str, *, timeout: Seconds | None = None) -> Call[Authority]:
    """The authority's identity, version and position in the log, and all applications with their effective policies.

    `timeout`: seconds for this call, retries included; None: the client's own.
    """
    del application  # this is the only call that is not about one application
    return _AUTHORITY.call(pb.GetAuthorityRequest(), timeout)


RPCS: tuple[Rpc[Any], ...] = tuple(item for item in tuple(globals().values()) if isinstance(item, Rpc))
"""Every unary RPC that is defined above."""


# Parts of requests


def _message_of(application: str, question: Question) -> pb.ValidateSessionRequest:
    return _question_message(
        application,
        question.token,
        question.client,
        question.passive,
        question.at_least,
        question.requirements,
        question.with_csrf_token,
        question.data,
    )


def _question_message(
    application: str,
    token: str | Token,
    client: ClientContext | None = None,
    passive: bool = False,
    at_least: str = "",
    requirements: Requirements | None = None,
    with_csrf_token: bool = False,
    data: DataRequest | bool | None = None,
) -> pb.ValidateSessionRequest:
    request = pb.ValidateSessionRequest(application=application, token=convert.secret_text(token))
    if client is not None:
        convert.fill_client(request.client, client)
    if (wanted := convert.requirements_message(requirements)) is not None:
        request.requirements.CopyFrom(wanted)
    if (parts := convert.data_request_message(data)) is not None:
        request.data.CopyFrom(parts)
    # Passing every field to the constructor would take twice as long.
    if passive:
        request.passive = True
    if at_least:
        request.at_least = at_least
    if with_csrf_token:
        request.with_csrf_token = True
    return request


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
