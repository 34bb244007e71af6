"""From each response message to its answer. A session is unset where the token was not proven."""

from __future__ import annotations

from typing import Any

from sessiond_client import convert
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
from sessiond_client.errors import ConcurrencyLimitReached
from sessiond_client.tokens import Token
from sessiond_client.values import Event, Session, SourceLock
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "activity",
    "authenticated",
    "authority",
    "companion_issued",
    "created",
    "data",
    "data_updated",
    "found",
    "lock_cleared",
    "refreshed",
    "revoked",
    "revoked_all",
    "rolled",
    "sessions",
    "signal_reported",
    "source_locks",
    "validation",
    "validations",
]


def _refuse_at_limit(answer: pb.CreateSessionResponse | pb.AuthenticateSessionResponse) -> None:
    # An exception: who looks at the verdict alone, which is the token's, would take the subject for logged in.
    if answer.HasField("limit"):
        raise ConcurrencyLimitReached(convert.concurrency_limit(answer.limit))


def _session(answer: Any) -> Session | None:
    return convert.session(answer.session) if answer.HasField("session") else None


def created(answer: pb.CreateSessionResponse) -> Created:
    """The answer to `create`. Raises `ConcurrencyLimitReached`."""
    _refuse_at_limit(answer)
    return Created(
        session=convert.session(answer.session),
        token=Token(answer.token),
        csrf_token=Token(answer.csrf_token),
        cookies=convert.cookie_directives(answer.cookies),
        evicted_session_ids=tuple(answer.evicted_session_ids),
        revision=answer.revision,
    )


def validation(answer: pb.ValidateSessionResponse) -> Validation:
    """The answer to `validate`."""
    return Validation(
        verdict=convert.verdict(answer.verdict),
        next_step=convert.next_step(answer.next_step),
        session=_session(answer),
        renewed_token=convert.token_or_none(answer.renewed_token),
        signals=tuple(convert.signal(item) for item in answer.signals),
        unmet=tuple(convert.unmet_requirement(item) for item in answer.unmet),
        csrf_token=convert.token_or_none(answer.csrf_token),
        cookies=convert.cookie_directives(answer.cookies),
    )


def validations(answer: pb.ValidateSessionsResponse) -> tuple[Validation, ...]:
    """The answers to `validate_many`, in the order of the questions."""
    return tuple(validation(item) for item in answer.responses)


def authenticated(answer: pb.AuthenticateSessionResponse) -> Rolled:
    """The answer to `authenticate`. Raises `ConcurrencyLimitReached`."""
    _refuse_at_limit(answer)
    return _rolled(answer, tuple(answer.evicted_session_ids))


def rolled(answer: pb.RollSessionResponse) -> Rolled:
    """The answer to `roll`."""
    return _rolled(answer, ())


def _rolled(answer: pb.AuthenticateSessionResponse | pb.RollSessionResponse, evicted: tuple[str, ...]) -> Rolled:
    return Rolled(
        verdict=convert.verdict(answer.verdict),
        session=_session(answer),
        token=convert.token_or_none(answer.token),
        csrf_token=convert.token_or_none(answer.csrf_token),
        cookies=convert.cookie_directives(answer.cookies),
        evicted_session_ids=evicted,
        revision=answer.revision,
    )


def refreshed(answer: pb.RefreshSessionResponse) -> Refreshed:
    """The answer to `refresh`."""
    return Refreshed(verdict=convert.verdict(answer.verdict), session=_session(answer), revision=answer.revision)


def revoked(answer: pb.RevokeSessionResponse) -> Revoked:
    """The answer to `revoke`."""
    return Revoked(
        verdict=convert.verdict(answer.verdict),
        revoked=answer.revoked,
        session=_session(answer),
        revision=answer.revision,
        cookies=convert.cookie_directives(answer.cookies),
        anonymous_session=convert.session(answer.anonymous_session) if answer.HasField("anonymous_session") else None,
        token=convert.token_or_none(answer.token),
        csrf_token=convert.token_or_none(answer.csrf_token),
    )


def revoked_all(answer: pb.RevokeSessionsResponse) -> RevokedAll:
    """The answer to `revoke_all`."""
    return RevokedAll(revoked_count=answer.revoked_count, revision=answer.revision)


def found(answer: pb.GetSessionResponse) -> Found:
    """The answer to `get`."""
    return Found(verdict=convert.verdict(answer.verdict), session=_session(answer))


def sessions(answer: pb.ListSessionsResponse) -> Page[Session]:
    """One page of `list`."""
    return Page(items=tuple(convert.session(item) for item in answer.sessions), next_page_token=answer.next_page_token)


def activity(answer: pb.ListActivityResponse) -> Page[Event]:
    """One page of `activity`."""
    return Page(items=tuple(convert.event(item) for item in answer.events), next_page_token=answer.next_page_token)


def data(answer: pb.GetSessionDataResponse) -> Data:
    """The answer to `get_data`."""
    return Data(verdict=convert.verdict(answer.verdict), data=dict(answer.data), version=answer.version)


def data_updated(answer: pb.UpdateSessionDataResponse) -> DataUpdated:
    """The answer to `update_data`."""
    return DataUpdated(verdict=convert.verdict(answer.verdict), version=answer.version, revision=answer.revision)


def companion_issued(answer: pb.IssueCompanionTokenResponse) -> CompanionIssued:
    """The answer to `issue_companion_token`."""
    return CompanionIssued(
        verdict=convert.verdict(answer.verdict),
        companion_token=convert.token_or_none(answer.companion_token),
        expire_time=convert.moment_or_none(answer, "expire_time"),
        cookies=convert.cookie_directives(answer.cookies),
    )


def signal_reported(answer: pb.ReportSignalResponse) -> SignalReported:
    """The answer to `report_signal`."""
    return SignalReported(
        verdict=convert.verdict(answer.verdict), reaction=convert.reaction(answer.reaction), revision=answer.revision
    )


def source_locks(answer: pb.ListSourceLocksResponse) -> Page[SourceLock]:
    """One page of `list_source_locks`."""
    return Page(
        items=tuple(convert.source_lock(item) for item in answer.source_locks), next_page_token=answer.next_page_token
    )


def lock_cleared(answer: pb.ClearSourceLockResponse) -> LockCleared:
    """The answer to `clear_source_lock`."""
    return LockCleared(revision=answer.revision)


def authority(answer: pb.GetAuthorityResponse) -> Authority:
    """The answer to `authority`."""
    return Authority(
        authority_id=answer.authority_id,
        version=answer.version,
        revision=answer.revision,
        horizon=answer.horizon,
        applications=tuple(convert.application(item) for item in answer.applications),
    )
