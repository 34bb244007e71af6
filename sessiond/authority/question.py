"""Questions: what one validation asks, decoded once."""

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
    """Which session data is wanted with an answer: these keys (empty: all), if newer than that version (0: always)."""

    keys: frozenset[str] = frozenset()
    newer_than: int = 0

    def of(self, stored: VersionedData) -> VersionedData:
        """What is wanted of a session's data. Raises `DataUnreadable` if a value of it cannot be read."""
        keys = [key for key in stored.values if not self.keys or key in self.keys]
        return VersionedData({key: stored.values[key] for key in keys}, stored.version)


@immutable
class Question:
    """What one validation asks about one presented token.

    passive       does not count as activity
    requirements  what the request needs beyond a good token
    with_csrf     whether the session's CSRF token is wanted
    data          which session data is wanted; None: none
    at_least      answer only from a state at least this new; None: any
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
        """Whether a plain VALID answers all of it."""
        return self.requirements is NO_REQUIREMENTS and not self.with_csrf and self.data is None

    def without_data(self) -> Question:
        """The same question about the token alone."""
        return replace(self, data=None)
