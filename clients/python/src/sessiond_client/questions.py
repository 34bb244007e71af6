"""What a validation asks: about which token, what the request needs beyond a good one, and which data to return."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Final, Literal

from sessiond_client.kinds import Int32, UInt64
from sessiond_client.tokens import Token
from sessiond_client.values import ClientContext

__all__ = ["NOT_REQUIRED", "DataRequest", "NotRequired", "Question", "Requirements"]


class NotRequired(Enum):
    """The type of `NOT_REQUIRED`."""

    NOT_REQUIRED = "NOT_REQUIRED"


NOT_REQUIRED: Final = NotRequired.NOT_REQUIRED
"""No such requirement. Not None: a missing header or cookie reads as None, and must not switch a check off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a request needs beyond a good token. All of it must hold, otherwise the verdict is INSUFFICIENT."""

    min_level: Int32 = 0
    """The session's level now must be at least this; 0: any."""
    max_authentication_age: timedelta | None = None
    """The subject's last authentication must be younger; None: any."""
    companion: tuple[str, str | Token | None] | None = field(default=None, repr=False)
    """A purpose, and the companion token that the client presented for it, or None if it presented none."""
    csrf: str | Token | Literal[NotRequired.NOT_REQUIRED] | None = field(default=NOT_REQUIRED, repr=False)
    """The CSRF token that the client presented, or None if it presented none. Require it for side effects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """Asks for session data with an answer. As it is, for all of it."""

    keys: tuple[str, ...] = ()
    """Only these keys; empty: all."""
    newer_than: UInt64 = 0
    """Only if the data is newer than this version, which you have already; 0: always."""


@dataclass(frozen=True, slots=True)
class Question:
    """One token of a batch to validate, with parameters of its own."""

    token: str | Token = field(repr=False)
    client: ClientContext | None = None
    passive: bool = False
    """Does not count as activity."""
    at_least: str = ""
    """Answer only from a state at least this new: the `consistency_token` of an earlier answer; empty: any."""
    requirements: Requirements | None = None
    """What this request needs beyond a good token; None: nothing."""
    with_csrf_token: bool = False
    """Answer with the session's CSRF token too, to put into a page."""
    data: DataRequest | bool | None = None
    """Return session data too: True for all of it, a `DataRequest` for some of it."""
