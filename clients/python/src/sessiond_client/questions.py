"""The parameters of a validation: the token, requirements beyond a valid token, and the data to return."""

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
"""No such requirement. Not None, because a missing header or cookie reads as None and must not disable a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a request needs beyond a valid token. All of it must hold, otherwise the verdict is INSUFFICIENT."""

    min_level: Int32 = 0
    """The least level of authentication that the session must have now, 1 to 3; 0: any."""
    max_authentication_age: timedelta | None = None
    """The subject's last authentication must be younger than this; None: any age."""
    companion: tuple[str, str | Token | None] | None = field(default=None, repr=False)
    """`(purpose, token)`: the companion token that the client presented for this purpose, or `(purpose, None)` if it
    presented none: then it is missing. None: no companion token is required."""
    csrf: str | Token | Literal[NotRequired.NOT_REQUIRED] | None = field(default=NOT_REQUIRED, repr=False)
    """The CSRF token that the client presented, or None if it presented none: then it is missing. Require it for every
    request with side effects. `NOT_REQUIRED` (the default): no CSRF token is required."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRequest:
    """Which session data to return with an answer. `DataRequest()` means all of it."""

    keys: tuple[str, ...] = ()
    """Return only these keys; empty: all."""
    newer_than: UInt64 = 0
    """Return the data only if it is newer than this version, of which you have a copy; 0: always."""


@dataclass(frozen=True, slots=True)
class Question:
    """One token to validate in a batch, with parameters of its own. See `Client.validate`."""

    token: str | Token = field(repr=False)
    client: ClientContext | None = None
    passive: bool = False
    """Do not count this as activity."""
    at_least: str = ""
    """The `consistency_token` of an earlier answer: answer only from a state at least this new. Empty: any state."""
    requirements: Requirements | None = None
    """What this request needs beyond a valid token; None: nothing."""
    with_csrf_token: bool = False
    """Also return the session's CSRF token, to put into a page."""
    data: DataRequest | bool | None = None
    """Also return session data: True for all of it, a `DataRequest` for some of it."""
