"""What the calls answer. A bad token is a verdict in an answer, never an exception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sessiond_client.enums import NextStep, Verdict
from sessiond_client.tokens import Token
from sessiond_client.values import Application, ClientContext, Session, Signal

__all__ = [
    "Authority",
    "Created",
    "Data",
    "DataUpdated",
    "Found",
    "Page",
    "Question",
    "Refreshed",
    "Revoked",
    "RevokedAll",
    "Rolled",
    "Validation",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A new session."""

    session: Session
    token: Token
    """Hand it to the client over a protected channel and keep no copy."""
    revision: int
    """Position of the change in the log."""


@dataclass(frozen=True, slots=True)
class Question:
    """One token of a batch to validate, where the tokens of the batch differ in more than themselves."""

    token: str | Token = field(repr=False)
    client: ClientContext | None = None
    passive: bool = False
    """Does not count as activity."""
    min_revision: int = 0
    """Answer only from a state at least this new; 0: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What one presented token is worth. Where it is not valid, only `next_step` and `signals` say more."""

    verdict: Verdict
    next_step: NextStep
    """What the caller must do."""
    session: Session | None
    renewed_token: Token | None
    """With REPLACE_TOKEN: what the client must have from now on, the same however often it is asked for."""
    signals: tuple[Signal, ...]

    @property
    def valid(self) -> bool:
        """Whether there is a session. Everything but VALID is a no, words of a newer authority included."""
        return self.verdict is Verdict.VALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """The answer to `authenticate` and `roll`. Where `verdict` is not VALID, nothing has changed."""

    verdict: Verdict
    """What the presented token was worth."""
    session: Session | None
    token: Token | None
    """Replaces the presented one, which is dead."""
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
class Page(Generic[T]):
    """Some of a longer list, newest first."""

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
