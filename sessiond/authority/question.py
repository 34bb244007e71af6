"""The decoded input of a validation."""

from __future__ import annotations

from dataclasses import replace

from sessiond.authority.requirements import NO_REQUIREMENTS, Requirements
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Call
from sessiond.domain.immutable import immutable
from sessiond.domain.position import Position
from sessiond.domain.values import VersionedData

__all__ = ["DataRequest", "Question"]


@immutable
class DataRequest:
    """Which session data a call asks for.

    keys        only these keys; empty: all
    newer_than  only if the data has a newer version than this; 0: always
    """

    keys: frozenset[str] = frozenset()
    newer_than: int = 0

    def of(self, stored: VersionedData) -> VersionedData:
        """Return the requested keys of a session's data. Raises `DataUnreadable` if one of them cannot be read."""
        keys = [key for key in stored.values if not self.keys or key in self.keys]
        return VersionedData({key: stored.values[key] for key in keys}, stored.version)


@immutable
class Question:
    """What a validation is asked about one presented token.

    passive       the validation does not count as activity
    requirements  what the request needs beyond a valid token
    with_csrf     whether to return the session's CSRF token
    data          which session data to return; None: none
    at_least      decide only from a state at least this new; None: any
    """

    call: Call
    token: Token
    passive: bool = False
    requirements: Requirements = NO_REQUIREMENTS
    with_csrf: bool = False
    data: DataRequest | None = None
    at_least: Position | None = None

    @property
    def is_plain(self) -> bool:
        """Return whether the verdict VALID alone answers the question."""
        return self.requirements is NO_REQUIREMENTS and not self.with_csrf and self.data is None

    def without_data(self) -> Question:
        """Return the same question without session data."""
        return replace(self, data=None)
