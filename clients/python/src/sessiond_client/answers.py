"""The answers to calls. A bad token is a verdict in an answer, never an exception.

If an answer has `cookies`, send all of their headers in the response to the client.

Every change answers with a `consistency_token`: opaque text that names the state after the change. It is not a secret.
Pass it to a later call as `at_least`, and that call sees the change. It is empty if a bad token changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from sessiond_client.enums import NextStep, Reaction, Verdict
from sessiond_client.tokens import Token
from sessiond_client.values import Application, CookieDirectives, Session, SessionData, Signal, UnmetRequirement

__all__ = [
    "Authority",
    "CompanionIssued",
    "Created",
    "Data",
    "DataUpdated",
    "Found",
    "LockCleared",
    "Page",
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
    """Send it to the client over a protected channel and keep no copy."""
    csrf_token: Token
    """For the client's pages; the same until the next roll."""
    cookies: CookieDirectives
    evicted_session_ids: tuple[str, ...]
    """Sessions of the subject that had to end for this one."""
    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The verdict on one presented token.

    If it is neither VALID nor INSUFFICIENT, only `next_step`, `signals` and `cookies` are set beside it.
    """

    verdict: Verdict
    next_step: NextStep
    """What the caller must do."""
    session: Session | None
    renewed_token: Token | None
    """With REPLACE_TOKEN: the client's new token, the same one however often you ask."""
    signals: tuple[Signal, ...]
    unmet: tuple[UnmetRequirement, ...]
    """INSUFFICIENT: what is missing, and what would meet it."""
    csrf_token: Token | None
    """The session's CSRF token, if you asked for it."""
    cookies: CookieDirectives
    """With REPLACE_TOKEN the renewed token, with DISCARD_TOKEN the deletion; otherwise no headers."""
    data: SessionData | None
    """The session data, if you asked for it, the verdict is VALID and the data is newer than `newer_than`. Otherwise
    None: then your copy is current if `session.data_version` is its version."""
    cacheable_until: datetime | None
    """Until when a cache that follows the authority may reuse this answer for the same question about the same client.
    Nobody else may reuse an answer. None: nobody may."""
    consistency_token: str
    """The state that the answer is true at; set with `cacheable_until`, otherwise empty."""

    @property
    def valid(self) -> bool:
        """Whether the request may go on. Everything but VALID is a no, including verdicts of a newer authority."""
        return self.verdict is Verdict.VALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """The answer to `authenticate` and `roll`. If `verdict` is not VALID, nothing has changed."""

    verdict: Verdict
    """The verdict on the presented token; VALID as well if `created` is set."""
    session: Session | None
    token: Token | None
    """Replaces the presented one, which is dead."""
    csrf_token: Token | None
    """For the client's pages, in place of the one before; the same until the next roll."""
    cookies: CookieDirectives
    evicted_session_ids: tuple[str, ...]
    """`authenticate`: sessions of the subject that had to end for this one."""
    consistency_token: str
    created: bool
    """`authenticate` with `or_create`: a fresh session was opened; it has no data."""
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
    """By token: the verdict before the call. VALID for a live session named by its id."""
    revoked: bool
    """Whether this call ended it."""
    session: Session | None
    """As it is now; None if the token did not prove it."""
    consistency_token: str
    """The state after the change; the current state if nothing changed."""
    cookies: CookieDirectives
    """Deletes the cookie, or replaces it with the fresh anonymous session's. Empty if the session was named by its id,
    since the cookie may be another device's, and if the token lives on."""
    anonymous_session: Session | None
    """The fresh session, if you asked for one; `token` and `csrf_token` are its own."""
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
    """By token: the verdict on it. By id: VALID, REVOKED or EXPIRED_*, as the session is."""
    session: Session | None
    """None if the token did not prove it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A session's data. If `verdict` is not VALID, there is none."""

    verdict: Verdict
    data: Mapping[str, bytes] = field(repr=False)  # the subject's business; it does not belong in a log
    version: int
    """Pass it to `update_data` as `expected_version` to write only if nobody else has."""


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
    """By token: the verdict before the call. By id: VALID, REVOKED or EXPIRED_*, as the session was."""
    reaction: Reaction
    """What the authority did about it; UNSPECIFIED if there was no live session."""
    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockCleared:
    """The answer to `clear_source_lock`."""

    consistency_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Part of a longer list, in the order that the call documents."""

    items: tuple[T, ...]
    next_page_token: str
    """Where the next page begins; empty at the end. Not a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The identity of the authority, the position of its log, and its applications."""

    authority_id: str
    """The identity that cursors and consistency tokens are bound to: a UUID, made with the database."""
    version: str
    """The version of the software."""
    revision: int
    """The newest revision of the log."""
    horizon: int
    """The oldest revision that can still be resumed from."""
    applications: tuple[Application, ...]
    """By name, with their effective policies."""
    consistency_token: str
    """The state that the answer is true at."""
    incarnation: str
    """The current run of the log between two starts. Cursors and consistency tokens carry the one they come from."""
    policies_fingerprint: str
    """Changes whenever any policy does; the same on every replica with the same policies."""
