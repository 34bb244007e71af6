"""What can go wrong with a call. One tree; each leaf has its row in the status table of `rpc`."""

from __future__ import annotations

from sessiond.domain.values import Revision, SessionId

__all__ = [
    "AuthorityError",
    "BeyondLog",
    "CursorOutOfRange",
    "DataUnreadable",
    "InvalidField",
    "LockNotFound",
    "SessionNotFound",
    "SubjectMismatch",
    "Unavailable",
    "VersionMismatch",
]


class AuthorityError(Exception):
    """Any refusal that is the caller's to understand. Its text is sent to the caller: never a secret in it."""


class InvalidField(AuthorityError):
    """A field of the call is not acceptable; `field` names it as the contract does, `remedy` says what would be."""

    def __init__(self, field: str, remedy: str) -> None:
        super().__init__(f"{field}: {remedy}")
        self.field = field
        self.remedy = remedy


class SessionNotFound(AuthorityError):
    """No such session in the application, or its history has been pruned."""


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


class CursorOutOfRange(AuthorityError):
    """The cursor is from before the horizon or ahead of the log."""

    def __init__(self, position: Revision, horizon: Revision, head: Revision) -> None:
        where = "from before the horizon" if position < horizon else "ahead of the log"
        super().__init__(
            f"cursor: revision {position} is {where}: the log can be resumed from revision {horizon} to {head}"
        )


class BeyondLog(AuthorityError):
    """`min_revision` is ahead of the log."""

    def __init__(self, wanted: int, head: Revision) -> None:
        super().__init__(f"min_revision: {wanted} is ahead of the log, which ends at revision {head}")


class Unavailable(AuthorityError):
    """The authority cannot answer now, or cannot say whether a change was made."""
