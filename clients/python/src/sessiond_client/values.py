"""What answers are made of. All values are frozen; times are aware UTC datetimes, spans are timedeltas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sessiond_client.enums import CauseKind, DeviceType, EventType, Reaction, RequirementKind, SessionState, SignalType
from sessiond_client.kinds import AnyText, Int32
from sessiond_client.tokens import Token

__all__ = [
    "Application",
    "Authentication",
    "Cause",
    "Checkpoint",
    "ClientContext",
    "ConcurrencyLimit",
    "CookieDirectives",
    "CookieRules",
    "Device",
    "Ending",
    "Event",
    "GuessLimits",
    "Lifetimes",
    "Policy",
    "Session",
    "SessionData",
    "Signal",
    "SourceLock",
    "UnmetRequirement",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientContext:
    """What the caller saw of the client; an empty field is neither stored nor compared.

    Fill it from the connection, or from a proxy that you trust, never from what the client claims to be.
    """

    ip_address: AnyText = ""
    """IPv4 or IPv6 address in text form."""
    user_agent: AnyText = ""
    """The User-Agent header; the authority cuts it at 1,024 characters."""
    certificate_thumbprint: bytes = b""
    """SHA-256 of the client certificate's DER form (RFC 8705), 32 bytes."""
    device_id: AnyText = ""
    """The application's own identifier of the device, at most 256 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """How and when a subject was authenticated."""

    level: Int32 = 0
    """Assurance level, 1 to 3 as in NIST SP 800-63B-4 AAL1 to AAL3; 0 if the application does not rank."""
    methods: tuple[str, ...] = ()
    """Authentication methods, as in RFC 8176 (`pwd`, `otp`, `hwk`, ...)."""
    authenticate_time: datetime | None = None
    """When it took place. Set by the authority; ignored in requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A user agent in words, for a "your devices" page. Derived from what the client sent: never proof of anything."""

    description: str
    """Such as `Firefox 140 on Linux`; empty if there is no user agent."""
    type: DeviceType


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Timeouts of one session. They can only be shorter than the policy's: a longer one has no effect."""

    idle_timeout: timedelta | None = None
    """Ends the session after this long without activity, at least 1 s; None: the policy's idle timeout."""
    absolute_timeout: timedelta | None = None
    """Ends the session this long after it was opened or authenticated, at least 1 s; None: the policy's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionData:
    """Session data at one version."""

    values: Mapping[str, bytes] = field(repr=False)  # the subject's business; it does not belong in a log
    version: int
    """Pass it to `update_data` as `expected_version` to write only if nobody else has."""


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
    """Whether it was live at the time of the answer."""
    generation: int
    """How often its token has been renewed or rolled."""
    create_time: datetime
    last_active_time: datetime
    """The last activity that the authority knows of."""
    idle_expire_time: datetime | None
    """When it expires without further activity; None if the policy has no idle timeout."""
    absolute_expire_time: datetime | None
    """When it expires in any case; None if the policy has no absolute timeout."""
    login_expire_time: datetime | None
    """Anonymous session of a login page: when it ends unless the subject logs in. None for other sessions."""
    persistent: bool
    """Whether it is remembered beyond the browser's session, with the policy's longer limits."""
    authentication: Authentication | None
    """None for an anonymous session."""
    elevation_expire_time: datetime | None
    """Until when `authentication` is an elevation; then it falls back to what it was before. None: no elevation."""
    client: ClientContext
    """The client context it was opened or last authenticated with: later clients are compared with it."""
    last_client: ClientContext | None
    """Address and user agent of the last recorded activity; None if no client context ever came with activity."""
    device: Device | None
    """`client` in words."""
    last_device: Device | None
    """`last_client` in words."""
    labels: Mapping[str, str]
    """Public key-value pairs that the application set."""
    lifetimes: Lifetimes | None
    """The session's own timeouts; None if it has none."""
    data_version: int
    """Version of the session data; 0 before the first change."""
    ending: Ending | None
    """None while it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One reason for suspicion, with its evidence, which never holds a token or session data."""

    type: SignalType
    expected: str
    """What the session's record led to expect."""
    seen: str
    """What was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmetRequirement:
    """A requirement that is not met, and what would meet it."""

    kind: RequirementKind
    remedy: str
    """What would meet it, for people."""
    min_level: int
    """LEVEL: the level that is needed; else 0."""
    max_authentication_age: timedelta | None
    """AUTHENTICATION_AGE: how old the authentication may be; else None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieDirectives:
    """Headers for the response to the client, ready to be sent as they are; empty if there are none to send.

    Send all of them: `for name, value in answer.cookies.headers(): response.headers.append(name, value)`.
    """

    set_cookie: tuple[Token, ...] = ()
    """Values of `Set-Cookie` headers, one header each. Secret: they hold tokens."""
    cache_control: str = ""
    """Value of the `Cache-Control` header; empty: none."""
    clear_site_data: str = ""
    """Value of the `Clear-Site-Data` header; empty: none."""

    def headers(self) -> list[tuple[str, str]]:
        """Names and values in plain text, for the response to the client and for nothing else.

        Append them: `Set-Cookie` may come more than once, so a mapping would lose some.
        """
        headers = [("Set-Cookie", cookie.reveal()) for cookie in self.set_cookie]
        if self.cache_control:
            headers.append(("Cache-Control", self.cache_control))
        if self.clear_site_data:
            headers.append(("Clear-Site-Data", self.clear_site_data))
        return headers


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimit:
    """The limit of concurrent sessions was reached: nothing was opened or bound."""

    max_sessions: int
    """How many live sessions the subject may have."""
    live_sessions: tuple[Session, ...]
    """The subject's live sessions, newest first, to choose from. Empty if the policy does not ask."""
    ticket: Token | None
    """Repeats the refused call with the subject's choice: pass it with `evict`. Valid once, for a short time, for the
    same application, subject and authentication. None if the policy does not ask."""
    ticket_expire_time: datetime | None
    """When the ticket expires."""
    live_count: int = 0
    """How many live sessions there are; `live_sessions` may show only some of them. Then log in with `evict_oldest`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLock:
    """A source that was locked for guessing."""

    source: str
    """The locked network in CIDR form."""
    application: str
    lock_time: datetime
    expire_time: datetime
    """When the lock ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessLimits:
    """When guessing from one source counts as an attack."""

    alarm_after: int
    """Guesses within `window` that raise GUESSING_SUSPECTED."""
    lock_after: int
    """Guesses within `window` that lock the source for `lock_time`; 0: never."""
    flood_after: int
    """Guesses within `window` from all sources together that raise GUESSING_SUSPECTED for the source `*`."""
    window: timedelta
    """The time that guesses are counted over."""
    lock_time: timedelta
    """How long a lock holds."""
    deny_valid: bool
    """Whether a lock shuts out valid tokens of the same source too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieRules:
    """The attributes of an application's cookies."""

    name: str
    """Name of the cookie of a session with a subject, without the prefix `__Host-`."""
    anonymous_name: str
    """Name of the cookie of an anonymous session, without the prefix."""
    secure: bool
    """Whether it is sent over TLS only. With it and the path `/` the name gets the prefix `__Host-`."""
    same_site: str
    """`Strict`, `Lax` or `None`."""
    path: str
    clear_site_data: tuple[str, ...]
    """What `Clear-Site-Data` names at logout. `cookies` and `*` are left out of an answer that sets a fresh cookie."""
    partitioned: bool
    """Whether the cookie is partitioned by top-level site (CHIPS), for applications embedded in other sites."""
    browser_name: str
    """Name of the cookie of a session with a subject as the browser sends it, prefix included: the cookie to read."""
    browser_anonymous_name: str
    """The same for an anonymous session."""


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
    lost_answer_tolerance: timedelta
    """The same if no active validation used the token that replaced it: that answer may have been lost."""
    refresh_extends_lifetime: bool
    """Whether `refresh` starts the absolute lifetime again."""
    retention: timedelta
    """How long ended sessions of subjects are kept as history."""
    anonymous_retention: timedelta
    """How long ended anonymous sessions are kept as history."""
    answer_retention: timedelta
    """How long a call that is repeated by its id gets the first answer again."""
    max_data_bytes: int
    """Bound on a session's data, keys and values together, in bytes."""
    login_timeout: timedelta
    """How long an anonymous session of a login page lives unless the subject logs in."""
    remember_idle_timeout: timedelta | None
    """Idle timeout of a remembered session; None: sessions cannot be remembered."""
    remember_absolute_timeout: timedelta | None
    """Absolute timeout of a remembered session; None: it has none, or sessions cannot be remembered."""
    remember_level: int
    """The level that a remembered session falls to when `idle_timeout` has passed without activity."""
    elevation_timeout: timedelta
    """How long an elevation lasts."""
    max_sessions: int
    """How many live sessions a subject may have; 0: any number."""
    on_limit: str
    """What happens at the limit: `reject`, `evict-oldest`, `evict-least-recent` or `ask`."""
    ticket_timeout: timedelta
    """How long a ticket is good."""
    companion_timeout: timedelta
    """The longest time to live of a companion token."""
    related_agents: tuple[tuple[str, ...], ...]
    """Groups of user agents (`family on platform`) that are one client: an app and its web view."""
    ipv4_prefix: int
    """Prefix length that IPv4 addresses are compared by."""
    ipv6_prefix: int
    """Prefix length that IPv6 addresses are compared by."""
    concurrent_use_window: timedelta
    """Within what time clients must take turns to be CONCURRENT_USE."""
    fold_window: timedelta
    """Within what time repeats of one suspicion are folded into the first."""
    reactions: Mapping[SignalType, Reaction]
    """The reaction to each signal. A signal that is newer than this package is left out."""
    guessing: GuessLimits
    """When guessing counts as an attack."""
    cookie: CookieRules
    """The attributes of cookies."""
    origins: Mapping[str, str]
    """Where each value came from, by its path (`idle_timeout`, `reactions.ip_change`): preset, or file and line."""


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
    """By the authority's wall clock. The order of events is that of `revision`, not of this."""
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
    """SESSION_CREATED, SESSION_AUTHENTICATED, SESSION_LEVEL_LOWERED: how the subject is authenticated after the event;
    None for an anonymous session."""
    signals: tuple[Signal, ...]
    """HIJACK_SUSPECTED: the reasons."""
    reaction: Reaction
    """HIJACK_SUSPECTED: what the authority did about it; else UNSPECIFIED."""
    source: str
    """GUESSING_SUSPECTED, SOURCE_LOCKED, SOURCE_UNLOCKED: the network in CIDR form; `*` for a flood from many."""
    labels: Mapping[str, str]
    """The session's labels after the event."""
    cursor: str = ""
    """On a stream: resumes exactly after this event. Opaque, not a secret. Empty in `activity`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Progress on a stream without an event: you have seen everything up to here."""

    revision: int
    """Nothing under the filter is undelivered up to this revision."""
    cursor: str
    """Resumes exactly here. Opaque, not a secret."""
