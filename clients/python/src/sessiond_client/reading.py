"""Turns each response message into the client's answer. Without a proven token, `session` is None."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import Any

from sessiond_client import convert
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
from sessiond_client.errors import ConcurrencyLimitReached
from sessiond_client.lazy import Readers, lazily
from sessiond_client.tokens import Token
from sessiond_client.values import CallerInfo, Event, KeyRing, Session, SessionData, SourceLock
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "activity",
    "authenticated",
    "authority",
    "caller_key",
    "caller_revoked",
    "callers",
    "key_changed",
    "key_ring",
    "companion_issued",
    "created",
    "data",
    "data_updated",
    "found",
    "lock_cleared",
    "own_copy",
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


def _raise_if_at_limit(answer: pb.CreateSessionResponse | pb.AuthenticateSessionResponse) -> None:
    # An exception, because the verdict is about the token: a caller who checks only the verdict would assume a login.
    if answer.HasField("limit"):
        raise ConcurrencyLimitReached(convert.concurrency_limit(answer.limit))


def caller_key(answer: pb.CreateCallerResponse | pb.RotateCallerResponse) -> CallerKey:
    """The answer to `create_caller` and `rotate_caller`."""
    return CallerKey(
        caller=convert.caller_info(answer.caller), key=Token(answer.key), consistency_token=answer.consistency_token
    )


def caller_revoked(answer: pb.RevokeCallerResponse) -> CallerRevoked:
    """The answer to `revoke_caller`."""
    return CallerRevoked(consistency_token=answer.consistency_token)


def caller_updated(answer: pb.UpdateCallerCertificatesResponse) -> CallerUpdated:
    """The answer to `update_caller_certificates`."""
    return CallerUpdated(caller=convert.caller_info(answer.caller), consistency_token=answer.consistency_token)


def key_ring(answer: pb.GetKeyRingResponse) -> KeyRing:
    """The answer to `key_ring`."""
    return convert.key_ring(answer)


def key_changed(
    answer: pb.AddSealingKeyResponse | pb.PromoteSealingKeyResponse | pb.RetireSealingKeyResponse,
) -> SealingKeyChanged:
    """The answer to `add_sealing_key`, `promote_sealing_key` and `retire_sealing_key`."""
    return SealingKeyChanged(key=convert.sealing_key(answer.key), consistency_token=answer.consistency_token)


def callers(answer: pb.ListCallersResponse) -> tuple[CallerInfo, ...]:
    """The answer to `list_callers`."""
    return tuple(convert.caller_info(caller) for caller in answer.callers)


def _session(answer: Any) -> Session | None:
    return convert.session(answer.session) if answer.HasField("session") else None


def _data(answer: pb.ValidateSessionResponse | pb.UpdateSessionDataResponse) -> SessionData | None:
    return convert.session_data(answer.data) if answer.HasField("data") else None


def created(answer: pb.CreateSessionResponse) -> Created:
    """The answer to `create`. Raises `ConcurrencyLimitReached`."""
    _raise_if_at_limit(answer)
    return Created(
        session=convert.session(answer.session),
        token=Token(answer.token),
        csrf_token=Token(answer.csrf_token),
        cookies=convert.cookie_directives(answer.cookies),
        evicted_session_ids=tuple(answer.evicted_session_ids),
        consistency_token=answer.consistency_token,
    )


_VALIDATION: Readers = {
    "verdict": lambda answer: convert.verdict(answer.verdict),
    "next_step": lambda answer: convert.next_step(answer.next_step),
    "session": lambda answer: convert.lazy_session(answer.session) if answer.HasField("session") else None,
    "renewed_token": lambda answer: convert.token_or_none(answer.renewed_token),
    "signals": lambda answer: tuple(map(convert.signal, answer.signals)),
    "unmet": lambda answer: tuple(map(convert.unmet_requirement, answer.unmet)),
    "csrf_token": lambda answer: convert.token_or_none(answer.csrf_token),
    "cookies": lambda answer: convert.cookie_directives(answer.cookies),
    "data": _data,
    "cacheable_until": lambda answer: convert.moment_or_none(answer, "cacheable_until"),
    "consistency_token": attrgetter("consistency_token"),
    "cacheable_for": lambda answer: convert.span_or_none(answer, "cacheable_for"),
}


def validation(answer: pb.ValidateSessionResponse) -> Validation:
    """The answer to `validate`. It reads its fields when they are needed: most applications need few of them."""
    value = lazily(Validation, _VALIDATION, answer)
    object.__setattr__(value, "verdict", convert.verdict(answer.verdict))  # everybody reads it
    return value


def validations(answer: pb.ValidateSessionsResponse) -> tuple[Validation, ...]:
    """The answers to `validate_many`, in the order of the questions."""
    return tuple(validation(own_copy(item)) for item in answer.responses)


def own_copy(answer: pb.ValidateSessionResponse) -> pb.ValidateSessionResponse:
    """A copy of an answer that is part of a larger message, which would otherwise be kept as long as the answer is."""
    copied = pb.ValidateSessionResponse()
    copied.CopyFrom(answer)
    return copied


def authenticated(answer: pb.AuthenticateSessionResponse) -> Rolled:
    """The answer to `authenticate`. Raises `ConcurrencyLimitReached`."""
    _raise_if_at_limit(answer)
    return replace(
        rolled(answer),
        evicted_session_ids=tuple(answer.evicted_session_ids),
        created=answer.created,
        presented_verdict=convert.verdict(answer.presented_verdict) if answer.created else None,
    )


def rolled(answer: pb.RollSessionResponse | pb.AuthenticateSessionResponse) -> Rolled:
    """The answer to `roll`, and the part of the answer to `authenticate` that is the same."""
    return Rolled(
        verdict=convert.verdict(answer.verdict),
        session=_session(answer),
        token=convert.token_or_none(answer.token),
        csrf_token=convert.token_or_none(answer.csrf_token),
        cookies=convert.cookie_directives(answer.cookies),
        evicted_session_ids=(),
        consistency_token=answer.consistency_token,
        created=False,
        presented_verdict=None,
    )


def refreshed(answer: pb.RefreshSessionResponse) -> Refreshed:
    """The answer to `refresh`."""
    return Refreshed(
        verdict=convert.verdict(answer.verdict),
        session=_session(answer),
        consistency_token=answer.consistency_token,
    )


def revoked(answer: pb.RevokeSessionResponse) -> Revoked:
    """The answer to `revoke`."""
    return Revoked(
        verdict=convert.verdict(answer.verdict),
        revoked=answer.revoked,
        session=_session(answer),
        consistency_token=answer.consistency_token,
        cookies=convert.cookie_directives(answer.cookies),
        anonymous_session=convert.session(answer.anonymous_session) if answer.HasField("anonymous_session") else None,
        token=convert.token_or_none(answer.token),
        csrf_token=convert.token_or_none(answer.csrf_token),
    )


def revoked_all(answer: pb.RevokeSessionsResponse) -> RevokedAll:
    """The answer to `revoke_all`."""
    return RevokedAll(revoked_count=answer.revoked_count, consistency_token=answer.consistency_token)


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
    return DataUpdated(
        verdict=convert.verdict(answer.verdict),
        version=answer.version,
        consistency_token=answer.consistency_token,
        data=_data(answer),
    )


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
        verdict=convert.verdict(answer.verdict),
        reaction=convert.reaction(answer.reaction),
        consistency_token=answer.consistency_token,
    )


def source_locks(answer: pb.ListSourceLocksResponse) -> Page[SourceLock]:
    """One page of `list_source_locks`."""
    return Page(
        items=tuple(convert.source_lock(item) for item in answer.source_locks), next_page_token=answer.next_page_token
    )


def lock_cleared(answer: pb.ClearSourceLockResponse) -> LockCleared:
    """The answer to `clear_source_lock`."""
    return LockCleared(consistency_token=answer.consistency_token)


def authority(answer: pb.GetAuthorityResponse) -> Authority:
    """The answer to `authority`."""
    return Authority(
        authority_id=answer.authority_id,
        version=answer.version,
        revision=answer.revision,
        horizon=answer.horizon,
        applications=tuple(convert.application(item) for item in answer.applications),
        consistency_token=answer.consistency_token,
        incarnation=answer.incarnation,
        policies_fingerprint=answer.policies_fingerprint,
        replicas_with_other_policies=tuple(answer.replicas_with_other_policies),
    )
