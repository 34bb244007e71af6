"""The things an authority speaks of. All frozen; times are aware UTC datetimes, spans are timedeltas."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sessiond_client.enums import CauseKind, EventType, SessionState, SignalType

__all__ = [
    "Application",
    "Authentication",
    "Cause",
    "Checkpoint",
    "ClientContext",
    "Ending",
    "Event",
    "Policy",
    "Session",
    "Signal",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientContext:
    """What the caller saw of the client; an empty field is neither stored nor compared.

    Fill it from the connection, or from a proxy that is trusted, never from what the client claims to be.
    """

    ip_address: str = ""
    """IPv4 or IPv6 address in text form."""
    user_agent: str = ""
    """The User-Agent header; the authority cuts it at 1,024 characters."""
    certificate_thumbprint: bytes = b""
    """SHA-256 of the client certificate's DER form (RFC 8705), 32 bytes."""
    device_id: str = ""
    """The application's own identifier of the device, at most 256 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """How and when a subject was authenticated."""

    level: int = 0
    """Assurance level, 1 to 3 as in NIST SP 800-63B-4 AAL1 to AAL3; 0 where the application does not rank."""
    methods: tuple[str, ...] = ()
    """Authentication methods, as in RFC 8176 (`pwd`, `otp`, `hwk`, ...)."""
    authenticate_time: datetime | None = None
    """When it took place. Set by the authority; ignored in requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Who did something, and why."""

    kind: CauseKind = CauseKind.UNSPECIFIED
    actor: str = ""
    """The calling identity as the authority knows it, or `authority` for its own rules."""
    reason: str = ""
    """In the caller's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a session ended."""

    end_time: datetime
    """For an expiry the deadline itself, not the moment it was noticed."""
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What callers may see of a session. Nothing in it is secret, nothing in it proves anything."""

    session_id: str
    """The public name: a UUIDv7, safe in logs and on admin screens."""
    application: str
    subject: str
    """Empty for an anonymous session."""
    state: SessionState
    """Whether it lived when the answer was given."""
    generation: int
    """How often its token has been renewed or rolled."""
    create_time: datetime
    last_active_time: datetime
    """The last activity that the authority knows of."""
    idle_expire_time: datetime | None
    """When it expires without further activity; None where the policy has no idle timeout."""
    absolute_expire_time: datetime | None
    """When it expires whatever happens; None where the policy has no absolute timeout."""
    authentication: Authentication | None
    """None for an anonymous session."""
    client: ClientContext
    """The client context it was opened or last authenticated with."""
    data_version: int
    """Version of the session data; 0 before the first change."""
    ending: Ending | None
    """None while it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One reason for suspicion, with its evidence, which never holds a token or session data."""

    type: SignalType
    expected: str
    """What the session's record let expect."""
    seen: str
    """What was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one application, as they are in force."""

    preset: str
    """`owasp-low`, `owasp-high`, `nist-aal1`, `nist-aal2` or `nist-aal3`."""
    idle_timeout: timedelta | None
    absolute_timeout: timedelta | None
    renewal_timeout: timedelta | None
    """Age at which a token is renewed; None: never."""
    renewal_overlap: timedelta
    """How long the token before the current one still counts after a renewal."""
    roll_tolerance: timedelta
    """How long a token that was rolled away is denied without alarm."""
    refresh_extends_lifetime: bool
    """Whether `refresh` starts the absolute lifetime again."""
    retention: timedelta
    """How long ended sessions are kept as history."""
    max_data_bytes: int
    """Bound on a session's data, keys and values together, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One named relying party and its rules."""

    name: str
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One durable, immutable fact of the lifecycle. Never holds a token or session data."""

    revision: int
    """Its position in the log: gapless over all events, strictly increasing, in commit order."""
    type: EventType
    event_time: datetime
    """By the authority's wall clock. Order is told by `revision`, not by this."""
    application: str
    subject: str
    """Empty for an anonymous session."""
    session_id: str
    """Empty for an event of no single session."""
    cause: Cause
    client: ClientContext
    """The client context of the call that led to it."""
    generation: int
    """The session's generation after the event."""
    authentication: Authentication | None
    """SESSION_CREATED and SESSION_AUTHENTICATED: how; None for an anonymous session."""
    signals: tuple[Signal, ...]
    """HIJACK_SUSPECTED: the reasons."""
    cursor: str = ""
    """On a stream: resumes exactly after this event. Opaque, no secret. Empty in `activity`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Progress on a stream without an event: all up to here has been seen."""

    revision: int
    """Nothing under the filter is undelivered up to this revision."""
    cursor: str
    """Resumes exactly here. Opaque, no secret."""
