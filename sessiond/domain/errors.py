"""The errors that a call can end with: one exception tree. Each leaf has one row in the status table of `rpc`."""

from __future__ import annotations

import re

from sessiond.domain.values import SessionId

__all__ = [
    "AuthorityError",
    "BackupRefused",
    "CallerExists",
    "CallerNotFound",
    "DataUnreadable",
    "InvalidField",
    "KeyNotFound",
    "KeyRingRefused",
    "LastAdmin",
    "LimitReached",
    "LockNotFound",
    "NotPermitted",
    "Overloaded",
    "PositionOutOfRange",
    "SessionNotFound",
    "SubjectMismatch",
    "Unauthenticated",
    "Unavailable",
    "VersionMismatch",
    "shown",
]

_MAX_SHOWN = 64
# Longer than a session id or an address, shorter than every kind of token and ticket.
_MAYBE_SECRET = re.compile(r"[A-Za-z0-9_-]{40}")


def shown(value: str) -> str:
    """Return a value in the form that an error message may show: quoted, in ASCII, cut to 64 characters.

    A value that may be a token in the wrong field is replaced by its length, because callers log error messages.
    """
    if _MAYBE_SECRET.search(value[: 2 * _MAX_SHOWN]):
        return f"a text of {len(value)} characters"
    escaped = value[:_MAX_SHOWN].encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"' + ("..." if len(value) > _MAX_SHOWN else "")


class AuthorityError(Exception):
    """Base class of all errors that are reported to the caller. `public` is sent to the caller and holds no secret."""

    @property
    def public(self) -> str:
        """Return the message for the caller."""
        return str(self)


class InvalidField(AuthorityError):
    """A field of the call is invalid. `field` is its name in the proto, `remedy` says what would be valid."""

    def __init__(self, field: str, remedy: str) -> None:
        super().__init__(f"{field}: {remedy}")
        self.field = field
        self.remedy = remedy


class SessionNotFound(AuthorityError):
    """The application has no such session, it belongs to another subject, or its history has been pruned."""

    def __init__(self) -> None:
        super().__init__("session_id: no such session in this application")


class LockNotFound(AuthorityError):
    """The source is not locked."""


class SubjectMismatch(AuthorityError):
    """The session belongs to another subject."""


class VersionMismatch(AuthorityError):
    """The session data does not have the expected version."""

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(
            f"expected_version: the data is at version {current}, not {expected}; read it again and retry the change"
        )
        self.expected = expected
        self.current = current


class DataUnreadable(AuthorityError):
    """A session's data cannot be read: one value was altered, moved, or sealed under a key that is not in the key ring.

    Only the data of this session is affected. The session can still be validated and revoked.
    """

    def __init__(self, session_id: SessionId, why: str) -> None:
        super().__init__(f"the data of session {session_id} cannot be read: {why}")


class PositionOutOfRange(AuthorityError):
    """A cursor or consistency token names a position that the log does not have: pruned, not yet written, or lost."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")


class Unauthenticated(AuthorityError):
    """The caller has not proved who it is. The text says what is wrong, and nothing about a credential."""


class NotPermitted(AuthorityError):
    """The caller may not make this call. The text names the role that it lacks."""


class CallerExists(AuthorityError):
    """There is a caller of that name."""


class CallerNotFound(AuthorityError):
    """There is no caller of that name."""


class LastAdmin(AuthorityError):
    """After this change nobody could manage the callers any more."""


class KeyNotFound(AuthorityError):
    """The key ring has no such key."""


class KeyRingRefused(AuthorityError):
    """The key ring cannot be changed like this now. The text gives the reason and, if there is one, the remedy."""


class BackupRefused(AuthorityError):
    """The database cannot be copied like this now. The text gives the reason and the remedy."""


class Overloaded(AuthorityError):
    """The authority has reached a load limit. The call changed nothing and may be retried soon."""


class LimitReached(Overloaded):
    """The caller, or the application, has reached its limit on calls. The call changed nothing.

    setting      the setting that limits it, such as `limits.rate_per_caller`
    retry_after  milliseconds after which the call may succeed
    """

    def __init__(self, message: str, setting: str, retry_after: int) -> None:
        super().__init__(message)
        self.setting = setting
        self.retry_after = retry_after


class Unavailable(AuthorityError):
    """The authority cannot answer now, or the outcome of a change is unknown."""
