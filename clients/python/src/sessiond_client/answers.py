"""The answers to calls. A bad token is a verdict in an answer, never an exception.

If an answer has `cookies`, send all of their headers in the response to the user's client.

Every change returns a `consistency_token`: opaque text that names the state after the change. It is not a secret. Pass
it to a later call as `at_least`, and that call sees the change. If nothing changed, it names the current state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from sessiond_client.enums import NextStep, Reaction, Verdict
from sessiond_client.lazy import Lazy
from sessiond_client.tokens import Token
from sessiond_client.values import (
    Application,
    CallerInfo,
    CookieDirectives,
    SealingKey,
    Session,
    SessionData,
    Signal,
    UnmetRequirement,
)

__all__ = [
    "Authority",
    "CallerKey",
    "CallerRevoked",
    "CallerUpdated",
    "CompanionIssued",
    "Created",
    "Data",
    "DataUpdated",
    "Found",
    "LockCleared",
    "Page",
    "SealingKeyChanged",
    "Refreshed",
    "Revoked",
    "RevokedAll",
    "Rolled",
    "SignalReported",
    "Validation",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new session."""

    session: Session
    token: Token
    """Send it to the user's client over a protected channel and keep no copy."""
    csrf_token: Token
    """To put into pages; the same until the next login or roll. `Policy.csrf_overlap`: how long it is accepted then."""
    cookies: CookieDirectives
    evicted_session_ids: tuple[str, ...]
    """Sessions of the subject that ended to make room for this one. If more than 100 had to end, only those that ended
    in the last of several transactions."""
    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation(Lazy):
    """The verdict on one presented token. Check `valid`, follow `next_step`, send `cookies.headers()`.

    If the verdict is neither VALID nor INSUFFICIENT, only `next_step`, `signals` and `cookies` are set beside it.
    """

    verdict: Verdict
    next_step: NextStep
    """What you must do."""
    session: Session | None
    renewed_token: Token | None
    """With REPLACE_TOKEN: the client's new token. Concurrent requests get the same one."""
    signals: tuple[Signal, ...]
    unmet: tuple[UnmetRequirement, ...]
    """INSUFFICIENT: what is missing, and what would meet it."""
    csrf_token: Token | None
    """The session's CSRF token, if you asked for it and the verdict is VALID."""
    cookies: CookieDirectives
    """With REPLACE_TOKEN headers that set the renewed token, with DISCARD_TOKEN headers that delete the cookie,
    otherwise none."""
    data: SessionData | None
    """The session data, if you asked for it, the verdict is VALID and the data is newer than `newer_than`. Otherwise
    None; your copy is then current if its version is `session.data_version`."""
    cacheable_until: datetime | None
    """Until when a cache that follows the authority's events may reuse this answer, for the same question about the
    same client. Nothing else may reuse an answer. None: it must not be reused at all."""
    consistency_token: str
    """The state for which the answer is true; set with `cacheable_until`, otherwise empty."""
    cacheable_for: timedelta | None = None
    """How long after the question was sent such a cache may reuse this answer, by its own clock. Set with
    `cacheable_until`, which is the same time by the authority's clock."""

    @property
    def valid(self) -> bool:
        """Whether the request may proceed. False for all but VALID, also for verdicts that this package does not
        know."""
        return self.verdict is Verdict.VALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """The answer to `authenticate` and `roll`. If `verdict` is not VALID, nothing has changed and `token` is None."""

    verdict: Verdict
    """The verdict on the presented token; VALID too if `created` is set."""
    session: Session | None
    token: Token | None
    """The new token. The presented one no longer works."""
    csrf_token: Token | None
    """To put into pages, instead of the previous one; the same until the next login or roll. See
    `Policy.csrf_overlap` for how long the previous one is accepted."""
    cookies: CookieDirectives
    evicted_session_ids: tuple[str, ...]
    """For `authenticate`: sessions of the subject that ended to make room for this one. If more than 100 had to end,
    only those that ended in the last of several transactions."""
    consistency_token: str
    created: bool
    """For `authenticate` with `or_create`: whether a fresh session was opened. It has no data."""
    presented_verdict: Verdict | None
    """With `created`: the verdict on the presented token. MALFORMED if there was none; VALID or INSUFFICIENT if it
    belonged to another subject's session, which has been ended. Otherwise None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """The answer to `refresh`. If `verdict` is not VALID, nothing has changed."""

    verdict: Verdict
    session: Session | None
    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """The answer to `revoke`."""

    verdict: Verdict
    """If you passed a token: the verdict on it before the call. If you passed an id: VALID for a session that was
    live."""
    revoked: bool
    """Whether this call ended the session."""
    session: Session | None
    """The session as it is now; None if the token was not a proven one."""
    consistency_token: str
    """The state after the change; the current state if nothing changed."""
    cookies: CookieDirectives
    """Headers that delete the cookie, or replace it with the fresh anonymous session's. Empty if you passed an id,
    because the session may be another device's, and if the token was not ended (SUPERSEDED, LOCKED)."""
    anonymous_session: Session | None
    """The fresh session, if you asked for one; `token` and `csrf_token` belong to it."""
    token: Token | None
    csrf_token: Token | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedAll:
    """The answer to `revoke_all`."""

    revoked_count: int
    """How many sessions this call ended."""
    consistency_token: str
    """The state after the last change; the current state if nothing changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The answer to `get`."""

    verdict: Verdict
    """If you passed a token: the verdict on it. If you passed an id: VALID, REVOKED or EXPIRED_*."""
    session: Session | None
    """None if the token was not a proven one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The answer to `get_data`. If `verdict` is not VALID, `data` is empty."""

    verdict: Verdict
    data: Mapping[str, bytes] = field(repr=False)  # the subject's business; it does not belong in a log
    version: int
    """Pass it to `update_data` as `expected_version` to write only if no one else has written since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUpdated:
    """The answer to `update_data`. If `verdict` is not VALID, nothing has changed."""

    verdict: Verdict
    version: int
    """The version after the change."""
    consistency_token: str
    data: SessionData | None
    """The data after the change, if you asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanionIssued:
    """The answer to `issue_companion_token`. If `verdict` is not VALID, there is no token."""

    verdict: Verdict
    """The verdict on the session's token."""
    companion_token: Token | None
    expire_time: datetime | None
    """When it expires."""
    cookies: CookieDirectives


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReported:
    """The answer to `report_signal`."""

    verdict: Verdict
    """If you passed a token: the verdict on it before the call. If you passed an id: VALID, REVOKED or EXPIRED_*."""
    reaction: Reaction
    """What the authority did about it; UNSPECIFIED if there was no live session."""
    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockCleared:
    """The answer to `clear_source_lock`."""

    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerKey:
    """The answer to `create_caller` and `rotate_caller`."""

    caller: CallerInfo
    key: Token
    """Give it to the caller over a protected channel. It is not shown again. Empty if it was created `without_key`."""
    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerUpdated:
    """The answer to `update_caller_certificates`."""

    caller: CallerInfo
    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerRevoked:
    """The answer to `revoke_caller`."""

    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKeyChanged:
    """The answer to `add_sealing_key`, `promote_sealing_key` and `retire_sealing_key`."""

    key: SealingKey
    """The key with its state; `key_ring` says also what needs it."""
    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list, in the order that the call documents.

    A page may be short, or empty, and still be followed by another: only an empty `next_page_token` is the end.
    """

    items: tuple[T, ...]
    next_page_token: str
    """Pass it as `page_token` to get the next page; empty at the end of the list. Not a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The identity of the authority, the position of its log, and its applications."""

    authority_id: str
    """The identity that cursors and consistency tokens are bound to: a UUID, created with the database."""
    version: str
    """The version of the server."""
    revision: int
    """The newest revision in the log."""
    horizon: int
    """The oldest revision from which a stream can still resume."""
    applications: tuple[Application, ...]
    """The applications in order of their names, with their effective policies."""
    consistency_token: str
    """The state for which the answer is true."""
    incarnation: str
    """Identifies the current run of the log, from one start to the next. Cursors and consistency tokens contain it."""
    policies_fingerprint: str
    """Changes whenever a policy changes; the same on every replica with the same policies."""
    replicas_with_other_policies: tuple[str, ...] = ()
    """The replicas whose policies differ from those of the server that answered, by name."""
