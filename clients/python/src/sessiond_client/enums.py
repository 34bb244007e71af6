"""The enumerations of the contract.

Each has UNSPECIFIED for a value that this version of the client does not know, because the authority may be newer.
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
    "Role",
    "SealingKeyState",
    "SessionState",
    "SignalType",
    "Verdict",
]


class Verdict(StrEnum):
    """The result of a validation. Deny the request on everything but VALID: refuse it or, if guests may see the page,
    serve it as for a guest. After LOCKED always refuse it.

    The client's README says how to answer a browser or a script for each ("From verdict to HTTP").
    """

    UNSPECIFIED = "UNSPECIFIED"
    VALID = "VALID"
    """The token is valid now."""
    MALFORMED = "MALFORMED"
    """Not in the form of a token; also a token that is empty."""
    FORGED = "FORGED"
    """In the form of a token, but never issued by this authority."""
    UNKNOWN = "UNKNOWN"
    """Issued by this authority, but for no session that this application has."""
    REVOKED = "REVOKED"
    """The session was revoked."""
    EXPIRED_IDLE = "EXPIRED_IDLE"
    """The session's idle timeout passed."""
    EXPIRED_ABSOLUTE = "EXPIRED_ABSOLUTE"
    """The session's absolute timeout passed."""
    REPLAYED = "REPLAYED"
    """An older token of a live session, presented too long after it was replaced: usually a signal of theft."""
    SUPERSEDED = "SUPERSEDED"
    """The token was replaced by a login or roll moments ago: a request in flight, denied without an alarm."""
    INSUFFICIENT = "INSUFFICIENT"
    """The token is valid, but does not suffice: `Validation.unmet` names each requirement that is not met."""
    LOCKED = "LOCKED"
    """The client's address is locked for guessing tokens, and the policy denies its valid tokens too."""


class RequirementKind(StrEnum):
    """What a validation may require beyond a valid token."""

    UNSPECIFIED = "UNSPECIFIED"
    LEVEL = "LEVEL"
    """A higher level of authentication."""
    AUTHENTICATION_AGE = "AUTHENTICATION_AGE"
    """A more recent authentication."""
    COMPANION_TOKEN = "COMPANION_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """A companion token for the purpose: none was presented, or it has expired or is for something else."""
    CSRF_TOKEN = "CSRF_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """The session's CSRF token: none was presented, or one that is not accepted."""
    REAUTHENTICATION = "REAUTHENTICATION"
    """Authentication from this client, because of a suspicion and the policy's reaction `step-up`."""


class Reaction(StrEnum):
    """What a policy does about a signal, the mildest first."""

    UNSPECIFIED = "UNSPECIFIED"
    IGNORE = "IGNORE"
    """Nothing."""
    ALERT = "ALERT"
    """An event HIJACK_SUSPECTED, and nothing else."""
    STEP_UP = "STEP_UP"
    """The verdict is INSUFFICIENT until the subject has authenticated again: for the suspicious client, or for every
    client of the session if the signal cannot tell which one is the intruder."""
    REVOKE_SESSION = "REVOKE_SESSION"
    """The session is revoked."""
    REVOKE_SUBJECT = "REVOKE_SUBJECT"
    """All sessions of the subject in the application are revoked."""


class NextStep(StrEnum):
    """What the caller must do next."""

    UNSPECIFIED = "UNSPECIFIED"
    PROCEED = "PROCEED"
    """Handle the request."""
    REPLACE_TOKEN = "REPLACE_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """Handle the request, and replace the client's token with `renewed_token` in the same response."""
    DISCARD_TOKEN = "DISCARD_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """Deny the request, and have the client delete its token."""
    KEEP_TOKEN = "KEEP_TOKEN"  # noqa: S105 - a word of the contract, not a secret
    """Deny this request, and leave the client's token alone: it is still good, or a newer one may be on its way.

    A client that presents the same dead token for longer than a request is in flight has missed the newer one: treat it
    as a guest. After REPLAYED have the user log in, which gives a client that has nothing but the old token a new one.
    """
    STEP_UP = "STEP_UP"
    """Ask the user to authenticate (again), then call `authenticate`."""


class SessionState(StrEnum):
    """Whether a session is live."""

    UNSPECIFIED = "UNSPECIFIED"
    ACTIVE = "ACTIVE"
    """Live: it has not ended, and no deadline has passed."""
    EXPIRED = "EXPIRED"
    """A deadline has passed."""
    REVOKED = "REVOKED"
    """A call or a rule of the policy ended it."""


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
    """A crawler, a script or another program that no person is using."""


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
    """An old token was presented by a client other than the session's own."""
    TOKEN_COPY = "TOKEN_COPY"  # noqa: S105 - a word of the contract, not a secret
    """An old token was presented by what looks like the session's own client: a second copy on one device."""
    USER_AGENT_CHANGE = "USER_AGENT_CHANGE"
    """The user agent is of another family or platform. Versions are not compared."""
    IP_CHANGE = "IP_CHANGE"
    """The IP address is outside the session's network (`Policy.ipv4_prefix`, `Policy.ipv6_prefix`)."""
    NETWORK_CHANGE = "NETWORK_CHANGE"
    """The IP address belongs to another network operator."""
    COUNTRY_CHANGE = "COUNTRY_CHANGE"
    """The IP address belongs to another country."""
    CERTIFICATE_MISMATCH = "CERTIFICATE_MISMATCH"
    """The client certificate is not the one that the session is bound to."""
    DEVICE_MISMATCH = "DEVICE_MISMATCH"
    """The device is not the one that the session is bound to."""
    CONCURRENT_USE = "CONCURRENT_USE"
    """Two clients use the session alternately."""
    COMPANION_MISMATCH = "COMPANION_MISMATCH"
    """A companion token belongs to another session."""
    REPORTED = "REPORTED"
    """An application reported a suspicion (`report_signal`)."""


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
    """The idle timeout was restarted (`refresh`), and the lifetime too if the policy says so."""
    SESSION_DATA_CHANGED = "SESSION_DATA_CHANGED"
    """Session data changed. The event has neither keys nor values."""
    SESSION_EXPIRED = "SESSION_EXPIRED"
    """A deadline passed."""
    SESSION_REVOKED = "SESSION_REVOKED"
    """The session was revoked."""
    HIJACK_SUSPECTED = "HIJACK_SUSPECTED"
    """The session may have been stolen; `Event.signals` has the evidence."""
    GUESSING_SUSPECTED = "GUESSING_SUSPECTED"
    """A source presents guessed tokens."""
    SOURCE_LOCKED = "SOURCE_LOCKED"
    """A source was locked for guessing."""
    SOURCE_UNLOCKED = "SOURCE_UNLOCKED"
    """A locked source was unlocked."""
    CONCURRENCY_LIMIT_REACHED = "CONCURRENCY_LIMIT_REACHED"
    """A subject reached its limit of concurrent sessions."""
    POLICY_CHANGED = "POLICY_CHANGED"
    """An application's policy changed."""
    SESSION_LEVEL_LOWERED = "SESSION_LEVEL_LOWERED"
    """A remembered session was idle for the ordinary idle timeout: its level fell to `Policy.remember_level`."""
    OLD_TOKEN_PRESENTED = "OLD_TOKEN_PRESENTED"  # noqa: S105 - a word of the contract, not a secret
    """A token from before the last roll was presented, by a client that may never have received the new one. This is
    not an alarm by itself. The next use of the new token is: two clients may hold the session then."""
    CALLER_CHANGED = "CALLER_CHANGED"
    """A caller was added, rotated or revoked. The event has no application; `cause.reason` says what changed."""
    KEY_RING_CHANGED = "KEY_RING_CHANGED"
    """A key of the key ring was added, promoted, retired or removed. The event has no application; `cause.reason` says
    what changed."""


class SealingKeyState(StrEnum):
    """What a key of the key ring is for."""

    UNSPECIFIED = "UNSPECIFIED"
    """A state that is newer than this package."""
    ADDED = "ADDED"
    """It opens, and has never sealed anything."""
    SEALING = "SEALING"
    """It seals and opens. Exactly one key does."""
    OPENING = "OPENING"
    """It sealed before another key was promoted, and opens what it sealed."""
    RETIRING = "RETIRING"
    """It opens until nothing needs it any more, and is then removed."""
    RETIRED = "RETIRED"
    """It was removed."""


class Role(StrEnum):
    """What a caller may do for an application. The roles are independent, but ADMIN includes all others."""

    UNSPECIFIED = "UNSPECIFIED"
    """A role that is newer than this package."""
    VALIDATOR = "VALIDATOR"
    """Validate tokens, with session data, and keep a near cache."""
    ISSUER = "ISSUER"
    """Create, authenticate and change sessions; validate tokens; list and end the sessions of one named subject."""
    SUBSCRIBER = "SUBSCRIBER"
    """Subscribe to events."""
    OPERATOR = "OPERATOR"
    """List and end sessions of anyone, read activity and session data, lift locks."""
    ADMIN = "ADMIN"
    """Every call for the application. For all applications: also manage the callers and the key ring."""
