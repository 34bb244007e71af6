"""What the calls answer. A bad token is a verdict in an answer, never an exception.

Where an answer has `cookies`, send all of their headers in the response to the client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from sessiond_client.enums import NextStep, Reaction, Verdict
from sessiond_client.tokens import Token
from sessiond_client.values import Application, CookieDirectives, Session, Signal, UnmetRequirement

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
    """Hand it to the client over a protected channel and keep no copy."""
    csrf_token: Token
    """For the client's pages; the same until the next roll."""
    cookies: CookieDirectives
    evicted_session_ids: tuple[str, ...]
    """Sessions of the subject that had to end for this one."""
    revision: int
    """Position of the change in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What one presented token is worth.

    Where it is neither VALID nor INSUFFICIENT, only `next_step`, `signals` and `cookies` say more.
    """

    verdict: Verdict
    next_step: NextStep
    """What the caller must do."""
    session: Session | None
    renewed_token: Token | None
    """With REPLACE_TOKEN: what the client must have from now on, the same however often it is asked for."""
    signals: tuple[Signal, ...]
    unmet: tuple[UnmetRequirement, ...]
    """INSUFFICIENT: what is missing, and what would meet it."""
    csrf_token: Token | None
    """The session's CSRF token, where it was asked for."""
    cookies: CookieDirectives
    """With REPLACE_TOKEN the renewed token, with DISCARD_TOKEN the deletion; else no headers."""

    @property
    def valid(self) -> bool:
        """Whether the request may go on. Everything but VALID is a no, words of a newer authority included."""
        return self.verdict is Verdict.VALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """The answer to `authenticate` and `roll`. Where `verdict` is not VALID, nothing has changed."""

    verdict: Verdict
    """What the presented token was worth."""
    session: Session | None
    token: Token | None
    """Replaces the presented one, which is dead."""
    csrf_token: Token | None
    """For the client's pages, in place of the one before; the same until the next roll."""
    cookies: CookieDirectives
    evicted_session_ids: tuple[str, ...]
    """`authenticate`: sessions of the subject that had to end for this one."""
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """The answer to `refresh`. Where `verdict` is not VALID, nothing has changed."""

    verdict: Verdict
    session: Session | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """The answer to `revoke`."""

    verdict: Verdict
    """By token: what it was worth before. VALID for a session named by its id that lived."""
    revoked: bool
    """Whether this call ended it."""
    session: Session | None
    """As it is now; None where the token was not proven."""
    revision: int
    """Position of the change in the log; of the log's head where nothing changed."""
    cookies: CookieDirectives
    """The cookie deleted, or the fresh anonymous session's in its place."""
    anonymous_session: Session | None
    """The fresh session, where it was asked for; `token` and `csrf_token` are its own."""
    token: Token | None
    csrf_token: Token | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedAll:
    """The answer to `revoke_all`."""

    revoked_count: int
    """How many sessions this call ended."""
    revision: int
    """Position of the last change in the log; of the log's head where nothing changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The answer to `get`."""

    verdict: Verdict
    """By token: what it is worth. By id: VALID, REVOKED or EXPIRED_*, as the session is."""
    session: Session | None
    """None where the token was not proven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A session's data. Where `verdict` is not VALID, there is none."""

    verdict: Verdict
    data: Mapping[str, bytes] = field(repr=False)  # the subject's business, not the log's
    version: int
    """Hand it to `update_data` as `expected_version` to write only if nobody else has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUpdated:
    """The answer to `update_data`. Where `verdict` is not VALID, nothing has changed."""

    verdict: Verdict
    version: int
    """The version after the change."""
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanionIssued:
    """The answer to `issue_companion_token`. Where `verdict` is not VALID, there is no token."""

    verdict: Verdict
    """What the session's token was worth."""
    companion_token: Token | None
    expire_time: datetime | None
    """When it stops being good."""
    cookies: CookieDirectives


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReported:
    """The answer to `report_signal`."""

    verdict: Verdict
    """By token: what it was worth before. By id: VALID, REVOKED or EXPIRED_*, as the session was."""
    reaction: Reaction
    """What the authority did about it; UNSPECIFIED where there was no live session to do it to."""
    revision: int
    """Position of the event in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockCleared:
    """The answer to `clear_source_lock`."""

    revision: int
    """Position of the event in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some of a longer list, in the order that the call tells."""

    items: tuple[T, ...]
    next_page_token: str
    """Where the next page begins; empty at the end. No secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Who answers, and where its log stands."""

    authority_id: str
    """The identity that cursors are bound to: a UUID, made with the database."""
    version: str
    """The version of the software."""
    revision: int
    """The newest revision of the log."""
    horizon: int
    """The oldest revision that can still be resumed from."""
    applications: tuple[Application, ...]
    """By name, with their effective policies."""
