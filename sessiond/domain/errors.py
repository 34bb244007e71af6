"""What can go wrong with a call. One tree; each leaf has its row in the status table of `rpc`."""

from __future__ import annotations

import re

from sessiond.domain.values import SessionId

__all__ = [
    "AuthorityError",
    "DataUnreadable",
    "InvalidField",
    "LockNotFound",
    "Overloaded",
    "PositionOutOfRange",
    "SessionNotFound",
    "SubjectMismatch",
    "Unavailable",
    "VersionMismatch",
    "shown",
]

_MAX_SHOWN = 64
# Longer than a session id or an address, shorter than every kind of token and ticket.
_MAYBE_SECRET = re.compile(r"[A-Za-z0-9_-]{40}")


def shown(value: str) -> str:
    """A value as a refusal may show it: quoted, in ASCII, cut to 64 characters.

    What may be a token in the wrong field is not shown: callers log refusals.
    """
    if _MAYBE_SECRET.search(value[: 2 * _MAX_SHOWN]):
        return f"a text of {len(value)} characters"
    escaped = value[:_MAX_SHOWN].encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"' + ("..." if len(value) > _MAX_SHOWN else "")


class AuthorityError(Exception):
    """Any refusal that is the caller's to understand. `public` is sent to the caller: never a secret in it."""

    @property
    def public(self) -> str:
        """What the caller is told."""
        return str(self)


class InvalidField(AuthorityError):
    """A field of the call is not acceptable; `field` names it as the contract does, `remedy` says what would be."""

    def __init__(self, field: str, remedy: str) -> None:
        super().__init__(f"{field}: {remedy}")
        self.field = field
        self.remedy = remedy


class SessionNotFound(AuthorityError):
    """No such session in the application (or not of that subject), or its history has been pruned."""

    def __init__(self) -> None:
        super().__init__("session_id: no such session in this application")


class LockNotFound(AuthorityError):
    """The source is not locked."""


class SubjectMismatch(AuthorityError):
    """The session belongs to another subject."""


class VersionMismatch(AuthorityError):
    """The session data is not of the expected version."""

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(
            f"expected_version: the data is at version {current}, not {expected}; read it again and decide again"
        )
        self.expected = expected
        self.current = current


class DataUnreadable(AuthorityError):
    """A session's data cannot be read: one value was altered, moved, or sealed under a key that is not in the key ring.

    It concerns that session's data alone: the session can be judged and revoked, and others are as they were.
    """

    def __init__(self, session_id: SessionId, why: str) -> None:
        super().__init__(f"the data of session {session_id} cannot be read: {why}")


class PositionOutOfRange(AuthorityError):
    """A cursor or consistency token names a place that the log does not have: pruned, not yet written, or lost."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")


class Overloaded(AuthorityError):
    """More is asked for at once than the authority takes. Nothing has changed; the call may be repeated soon."""


class Unavailable(AuthorityError):
    """The authority cannot answer now, or cannot say whether a change was made."""
