"""Every unary call, once: its parameters, its request, and how its answer is read. Nothing here does I/O.

A function here takes the application and the call's own parameters and makes a `Call`; each client turns it into a
method of the same signature, so the two clients cannot drift apart. `timeout` is in seconds and everywhere means this
one call's deadline; None: the client's own. Every method raises `SessiondError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from sessiond_client import convert
from sessiond_client.answers import (
    Authority,
    Created,
    Data,
    DataUpdated,
    Found,
    Page,
    Question,
    Refreshed,
    Revoked,
    RevokedAll,
    Rolled,
    Validation,
)
from sessiond_client.enums import SessionState
from sessiond_client.tokens import Token
from sessiond_client.values import Authentication, ClientContext, Event, Session
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "Call",
    "activity",
    "authenticate",
    "authority",
    "create",
    "get",
    "get_data",
    "list_sessions",
    "refresh",
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
    timeout: float | None = None,
) -> Call[Created]:
    """Open a session: anonymous where `subject` is empty, else for a subject that has been authenticated.

    The answer's token goes to the client over a protected channel; keep no copy. Not repeated by itself: a repetition
    would open a second session.
    """
    request = pb.CreateSessionRequest(
        application=application,
        subject=subject,
        authentication=convert.authentication_message(authentication),
        client=convert.client_message(client),
        data=data or {},
    )
    return Call("CreateSession", request, _created, timeout)


def validate(
    application: str,
    token: str | Token,
    *,
    client: ClientContext | None = None,
    passive: bool = False,
    min_revision: int = 0,
    timeout: float | None = None,
) -> Call[Validation]:
    """Say what one presented token is worth. Counts as activity unless `passive`.

    Treat every verdict but VALID as "no session", follow `next_step`, and treat an exception as a denial. With
    `min_revision`, a revision that a change answered with, the answer always sees that change. Raises `OutOfRange`
    where the log has not come that far.
    """
    question = Question(token, client, passive, min_revision)
    return Call("ValidateSession", _question_message(application, question), _validation, timeout)


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
    return Call("ValidateSessions", request, _validations, timeout)


def authenticate(
    application: str,
    token: str | Token,
    subject: str,
    *,
    authentication: Authentication | None = None,
    client: ClientContext | None = None,
    reason: str = "",
    timeout: float | None = None,
) -> Call[Rolled]:
    """Bind a subject that has been authenticated (login), or authenticate the same one again.

    Always rolls: the presented token dies at once, the session data goes along. Replace the client's token by the
    answer's. Raises `FailedPrecondition` where the session belongs to another subject: log out first.
    """
    request = pb.AuthenticateSessionRequest(
        application=application,
        token=Token(token).reveal(),
        subject=subject,
        authentication=convert.authentication_message(authentication),
        client=convert.client_message(client),
        reason=reason,
    )
    return Call("AuthenticateSession", request, _rolled, timeout)


def roll(
    application: str,
    token: str | Token,
    *,
    client: ClientContext | None = None,
    reason: str = "",
    timeout: float | None = None,
) -> Call[Rolled]:
    """Replace the token at a privilege change that is no login (`reason`: `password`, `role`, ...).

    The presented token dies at once. Replace the client's token by the answer's.
    """
    request = pb.RollSessionRequest(
        application=application, token=Token(token).reveal(), client=convert.client_message(client), reason=reason
    )
    return Call("RollSession", request, _rolled, timeout)


def refresh(
    application: str, token: str | Token, *, client: ClientContext | None = None, timeout: float | None = None
) -> Call[Refreshed]:
    """Make a session as good as new: last activity starts again, the lifetime too where the policy says so."""
    request = pb.RefreshSessionRequest(
        application=application, token=Token(token).reveal(), client=convert.client_message(client)
    )
    return Call("RefreshSession", request, _refreshed, timeout)


def revoke(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    reason: str = "",
    client: ClientContext | None = None,
    timeout: float | None = None,
) -> Call[Revoked]:
    """End one session, named by exactly one of `token` and `session_id`, at once and for good.

    Ending what has ended changes nothing and is no error. Raises `NotFound` for an id that the application does not
    have.
    """
    request = pb.RevokeSessionRequest(
        application=application,
        session=convert.reference_message(token, session_id),
        reason=reason,
        client=convert.client_message(client),
    )
    return Call("RevokeSession", request, _revoked, timeout)


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
    timeout: float | None = None,
) -> Call[RevokedAll]:
    """End all live sessions that match every given condition and were opened before the call began.

    `subject=""` means the anonymous ones; `except_session_id` keeps one ("log out everywhere else"). Without any
    condition `whole_application` must be true. Not repeated by itself, so that the count is right and no session
    opened in between is ended; after a failure, repeating it ends the rest.
    """
    request = pb.RevokeSessionsRequest(
        application=application,
        filter=_filter(subject, None, ip_network, created_from, created_until),
        except_session_id=except_session_id,
        whole_application=whole_application,
        reason=reason,
    )
    return Call("RevokeSessions", request, _revoked_all, timeout)


def get(
    application: str, *, token: str | Token | None = None, session_id: str | None = None, timeout: float | None = None
) -> Call[Found]:
    """Show one session, ended ones included while their history is kept. Does not count as activity.

    Raises `NotFound` for an id that the application does not have.
    """
    request = pb.GetSessionRequest(application=application, session=convert.reference_message(token, session_id))
    return Call("GetSession", request, _found, timeout)


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
    return Call("ListSessions", request, _sessions, timeout)


def activity(
    application: str, subject: str, *, page_size: int = 0, page_token: str = "", timeout: float | None = None
) -> Call[Page[Event]]:
    """A subject's lifecycle history, newest first, as far back as the horizon.

    A page holds at most `page_size`, 1 to 1,000 (0: 100); `timeout` is per page.
    """
    request = pb.ListActivityRequest(
        application=application, subject=subject, page_size=page_size, page_token=page_token
    )
    return Call("ListActivity", request, _activity, timeout)


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
    return Call("GetSessionData", request, _data, timeout)


def update_data(
    application: str,
    *,
    token: str | Token | None = None,
    session_id: str | None = None,
    set: Mapping[str, bytes] | None = None,
    delete: Iterable[str] = (),
    expected_version: int | None = None,
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
    )
    return Call("UpdateSessionData", request, _data_updated, timeout)


# The authority


def authority(application: str, *, timeout: float | None = None) -> Call[Authority]:
    """The authority's identity, version and position, and all applications with their effective policies."""
    del application  # the one call that is of no application
    return Call("GetAuthority", pb.GetAuthorityRequest(), _authority, timeout)


# Parts of requests


def _question_message(application: str, question: Question) -> pb.ValidateSessionRequest:
    return pb.ValidateSessionRequest(
        application=application,
        token=Token(question.token).reveal(),
        client=convert.client_message(question.client),
        passive=question.passive,
        min_revision=question.min_revision,
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


# Answers. A session is unset where the token was not proven.


def _session(answer: Any) -> Session | None:
    return convert.session(answer.session) if answer.HasField("session") else None


def _created(answer: pb.CreateSessionResponse) -> Created:
    return Created(session=convert.session(answer.session), token=Token(answer.token), revision=answer.revision)


def _validation(answer: pb.ValidateSessionResponse) -> Validation:
    return Validation(
        verdict=convert.verdict(answer.verdict),
        next_step=convert.next_step(answer.next_step),
        session=_session(answer),
        renewed_token=convert.token_or_none(answer.renewed_token),
        signals=tuple(convert.signal(item) for item in answer.signals),
    )


def _validations(answer: pb.ValidateSessionsResponse) -> tuple[Validation, ...]:
    return tuple(_validation(item) for item in answer.responses)


def _rolled(answer: pb.AuthenticateSessionResponse | pb.RollSessionResponse) -> Rolled:
    return Rolled(
        verdict=convert.verdict(answer.verdict),
        session=_session(answer),
        token=convert.token_or_none(answer.token),
        revision=answer.revision,
    )


def _refreshed(answer: pb.RefreshSessionResponse) -> Refreshed:
    return Refreshed(verdict=convert.verdict(answer.verdict), session=_session(answer), revision=answer.revision)


def _revoked(answer: pb.RevokeSessionResponse) -> Revoked:
    return Revoked(
        verdict=convert.verdict(answer.verdict),
        revoked=answer.revoked,
        session=_session(answer),
        revision=answer.revision,
    )


def _revoked_all(answer: pb.RevokeSessionsResponse) -> RevokedAll:
    return RevokedAll(revoked_count=answer.revoked_count, revision=answer.revision)


def _found(answer: pb.GetSessionResponse) -> Found:
    return Found(verdict=convert.verdict(answer.verdict), session=_session(answer))


def _sessions(answer: pb.ListSessionsResponse) -> Page[Session]:
    return Page(items=tuple(convert.session(item) for item in answer.sessions), next_page_token=answer.next_page_token)


def _activity(answer: pb.ListActivityResponse) -> Page[Event]:
    return Page(items=tuple(convert.event(item) for item in answer.events), next_page_token=answer.next_page_token)


def _data(answer: pb.GetSessionDataResponse) -> Data:
    return Data(verdict=convert.verdict(answer.verdict), data=dict(answer.data), version=answer.version)


def _data_updated(answer: pb.UpdateSessionDataResponse) -> DataUpdated:
    return DataUpdated(verdict=convert.verdict(answer.verdict), version=answer.version, revision=answer.revision)


def _authority(answer: pb.GetAuthorityResponse) -> Authority:
    return Authority(
        authority_id=answer.authority_id,
        version=answer.version,
        revision=answer.revision,
        horizon=answer.horizon,
        applications=tuple(convert.application(item) for item in answer.applications),
    )
