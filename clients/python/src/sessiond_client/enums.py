"""The enumerations of the contract.

Each has UNSPECIFIED for a value that this version of the client does not know: an authority may be newer.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "CauseKind",
    "DeviceType",
    "EventType",
    "NextStep",
    "Reaction",
    "RequirementKind",
    "SessionState",
    "SignalType",
    "Verdict",
]


class Verdict(StrEnum):
    """The answer to a validation. Everything but VALID means: deny this request."""

    UNSPECIFIED = "UNSPECIFIED"
    VALID = "VALID"
    """The token is good, now."""
    MALFORMED = "MALFORMED"
    """Not of a token's form."""
    FORGED = "FORGED"
    """Of the right form, but never issued by this authority."""
    UNKNOWN = "UNKNOWN"
    """Issued once, but its session is not in the application's records."""
    REVOKED = "REVOKED"
    """The session was revoked."""
    EXPIRED_IDLE = "EXPIRED_IDLE"
    """The session's idle timeout passed."""
    EXPIRED_ABSOLUTE = "EXPIRED_ABSOLUTE"
    """The session's absolute timeout passed."""
    REPLAYED = "REPLAYED"
    """An older token of a live session, presented when it should be forgotten: a theft signal."""
    SUPERSEDED = "SUPERSEDED"
    """The token was rolled away moments ago: a request in flight, denied without alarm."""
    INSUFFICIENT = "INSUFFICIENT"
    """The token is good, but `Validation.unmet` names a requirement that is not met."""
    LOCKED = "LOCKED"
    """The source is locked for guessing, and the policy shuts out its valid tokens too."""


class RequirementKind(StrEnum):
    """What a validation may require beyond a good token."""

    UNSPECIFIED = "UNSPECIFIED"
    LEVEL = "LEVEL"
    """A higher level of authentication."""
    AUTHENTICATION_AGE = "AUTHENTICATION_AGE"
    """A more recent authentication."""
    COMPANION_TOKEN = "COMPANION_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """A companion token of the purpose."""
    CSRF_TOKEN = "CSRF_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """The session's CSRF token."""
    REAUTHENTICATION = "REAUTHENTICATION"
    """Authentication from this client: a signal's reaction."""


class Reaction(StrEnum):
    """What a policy does about a signal, the mildest first."""

    UNSPECIFIED = "UNSPECIFIED"
    IGNORE = "IGNORE"
    """Nothing."""
    ALERT = "ALERT"
    """HIJACK_SUSPECTED, and nothing else."""
    STEP_UP = "STEP_UP"
    """The session is good again when the subject has authenticated from this client."""
    REVOKE_SESSION = "REVOKE_SESSION"
    """The session is revoked."""
    REVOKE_SUBJECT = "REVOKE_SUBJECT"
    """All sessions of the subject in the application are revoked."""


class NextStep(StrEnum):
    """What the caller must do next."""

    UNSPECIFIED = "UNSPECIFIED"
    PROCEED = "PROCEED"
    """Go on with the request."""
    REPLACE_TOKEN = "REPLACE_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """Go on, and replace the client's token by the renewed one in the same response."""
    DISCARD_TOKEN = "DISCARD_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """Deny or treat as a guest, and make the client forget its token."""
    KEEP_TOKEN = "KEEP_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """Deny this one request; leave the client's token alone, a newer one is on its way."""
    STEP_UP = "STEP_UP"
    """Ask the subject for (further) authentication, then `authenticate`."""


class SessionState(StrEnum):
    """Whether a session lives."""

    UNSPECIFIED = "UNSPECIFIED"
    ACTIVE = "ACTIVE"
    """Lives: neither ended nor past a deadline."""
    EXPIRED = "EXPIRED"
    """A deadline has passed."""
    REVOKED = "REVOKED"
    """Somebody or some rule ended it."""


class DeviceType(StrEnum):
    """What kind of device a user agent describes."""

    UNSPECIFIED = "UNSPECIFIED"
    """The user agent does not say."""
    DESKTOP = "DESKTOP"
    """A desktop or laptop computer."""
    PHONE = "PHONE"
    """A phone."""
    TABLET = "TABLET"
    """A tablet."""
    TV = "TV"
    """A television or game console."""
    BOT = "BOT"
    """A crawler, a script or another program without a person in front of it."""


class CauseKind(StrEnum):
    """Why something happened."""

    UNSPECIFIED = "UNSPECIFIED"
    REQUEST = "REQUEST"
    """A caller asked for it."""
    RENEWAL = "RENEWAL"
    """The client used a renewed token for the first time."""
    IDLE_TIMEOUT = "IDLE_TIMEOUT"
    """The idle timeout passed."""
    ABSOLUTE_TIMEOUT = "ABSOLUTE_TIMEOUT"
    """The absolute timeout passed."""
    LOGIN_TIMEOUT = "LOGIN_TIMEOUT"
    """The login timeout of an anonymous session passed."""
    CONCURRENCY_LIMIT = "CONCURRENCY_LIMIT"
    """The limit of concurrent sessions was reached."""
    SIGNAL = "SIGNAL"
    """A signal and the policy's reaction to it."""
    CONFIGURATION = "CONFIGURATION"
    """The configuration changed."""


class SignalType(StrEnum):
    """The kinds of suspicion."""

    UNSPECIFIED = "UNSPECIFIED"
    TOKEN_REPLAY = "TOKEN_REPLAY"  # noqa: S105 - a word of the contract, not a secret
    """An old token was presented again, by another client than the session's."""
    TOKEN_COPY = "TOKEN_COPY"  # noqa: S105 - a word of the contract, not a secret
    """An old token was presented again by what looks like the session's own client: a second copy on one device."""
    USER_AGENT_CHANGE = "USER_AGENT_CHANGE"
    """The user agent is of another family or platform."""
    IP_CHANGE = "IP_CHANGE"
    """The address is outside the session's prefix."""
    NETWORK_CHANGE = "NETWORK_CHANGE"
    """The address belongs to another network."""
    COUNTRY_CHANGE = "COUNTRY_CHANGE"
    """The address belongs to another country."""
    CERTIFICATE_MISMATCH = "CERTIFICATE_MISMATCH"
    """The client certificate is another one."""
    DEVICE_MISMATCH = "DEVICE_MISMATCH"
    """The device is another one."""
    CONCURRENT_USE = "CONCURRENT_USE"
    """Two client contexts use the session in turns."""
    COMPANION_MISMATCH = "COMPANION_MISMATCH"
    """A companion token does not belong to the session token."""
    REPORTED = "REPORTED"
    """An application reported it."""


class EventType(StrEnum):
    """The kinds of lifecycle events."""

    UNSPECIFIED = "UNSPECIFIED"
    SESSION_CREATED = "SESSION_CREATED"
    """A session was opened."""
    SESSION_AUTHENTICATED = "SESSION_AUTHENTICATED"
    """A subject was bound or authenticated again; a SESSION_ROLLED follows with the next revision."""
    SESSION_RENEWED = "SESSION_RENEWED"
    """A renewed token was used for the first time."""
    SESSION_ROLLED = "SESSION_ROLLED"
    """The token was replaced at a privilege change."""
    SESSION_REFRESHED = "SESSION_REFRESHED"
    """The session was made as good as new."""
    SESSION_DATA_CHANGED = "SESSION_DATA_CHANGED"
    """Session data changed. The event has neither keys nor values."""
    SESSION_EXPIRED = "SESSION_EXPIRED"
    """A deadline passed."""
    SESSION_REVOKED = "SESSION_REVOKED"
    """The session was revoked."""
    HIJACK_SUSPECTED = "HIJACK_SUSPECTED"
    """A signal of theft; `Event.signals` has the evidence."""
    GUESSING_SUSPECTED = "GUESSING_SUSPECTED"
    """A source guesses tokens."""
    SOURCE_LOCKED = "SOURCE_LOCKED"
    """A guessing source was locked."""
    SOURCE_UNLOCKED = "SOURCE_UNLOCKED"
    """A locked source was unlocked."""
    CONCURRENCY_LIMIT_REACHED = "CONCURRENCY_LIMIT_REACHED"
    """A subject reached its limit of concurrent sessions."""
    POLICY_CHANGED = "POLICY_CHANGED"
    """An application's policy changed."""
    SESSION_LEVEL_LOWERED = "SESSION_LEVEL_LOWERED"
    """A remembered session had no activity for the ordinary idle timeout: its level fell to `Policy.remember_level`."""
    OLD_TOKEN_PRESENTED = "OLD_TOKEN_PRESENTED"  # noqa: S105 - a word of the contract, not a secret
    """A token from before the last roll was presented, by a client that may never have received the new one. Not an
    alarm by itself; the next use of the new token is one, since then two clients hold the session."""
