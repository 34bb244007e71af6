"""The values inside answers. All are frozen. Times are datetimes in UTC with a time zone; durations are timedeltas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sessiond_client.enums import (
    CauseKind,
    DeviceType,
    EventType,
    Reaction,
    RequirementKind,
    Role,
    SealingKeyState,
    SessionState,
    SignalType,
)
from sessiond_client.kinds import AnyText, Int32
from sessiond_client.lazy import Lazy
from sessiond_client.tokens import Token

__all__ = [
    "Application",
    "Authentication",
    "BackupFacts",
    "CallerCredential",
    "CallerInfo",
    "Cause",
    "Checkpoint",
    "ClientContext",
    "ConcurrencyLimit",
    "CookieDirectives",
    "CookieRules",
    "Device",
    "Ending",
    "Event",
    "Grant",
    "GuessLimits",
    "KeyRing",
    "Lifetimes",
    "Policy",
    "SealingKey",
    "Session",
    "SessionData",
    "Signal",
    "SourceLock",
    "UnmetRequirement",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientContext:
    """What your application sees of the user's client. An empty field is neither stored nor compared.

    An exception: a session that was opened with a certificate or a device must present it again, otherwise that is a
    mismatch. If a call has no context at all, nothing is compared. Fill the context from the connection or from a proxy
    that you trust, never from what the client claims to be. In the texts, U+0000 and lone surrogates are sent as
    question marks.
    """

    ip_address: AnyText = ""
    """IPv4 or IPv6 address in text form. A call raises `InvalidArgument` if it is neither empty nor an address."""
    user_agent: AnyText = ""
    """The `User-Agent` header; the authority truncates it to 1,024 bytes."""
    certificate_thumbprint: bytes = b""
    """SHA-256 of the TLS client certificate in DER form (RFC 8705), 32 bytes."""
    device_id: AnyText = ""
    """The application's own identifier of the device, at most 256 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """How and when a subject was authenticated."""

    level: Int32 = 0
    """Assurance level: 1 to 3, as AAL1 to AAL3 of NIST SP 800-63B-4; 0 if your application does not use levels."""
    methods: tuple[str, ...] = ()
    """Authentication methods, as in RFC 8176 (`pwd`, `otp`, `hwk`, ...); at most 16, of at most 64 characters each."""
    authenticate_time: datetime | None = None
    """When the subject authenticated. Set by the authority; ignored in requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A user agent in words, for a "your devices" page. Derived from what the client sent: do not rely on it."""

    description: str
    """Such as `Firefox 140 on Linux`; empty if there is no user agent."""
    type: DeviceType


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """Timeouts of one session. They can only shorten the policy's: a longer one has no effect."""

    idle_timeout: timedelta | None = None
    """The session ends after this long without activity, at least 1 s; None: the policy's idle timeout."""
    absolute_timeout: timedelta | None = None
    """The session ends this long after it was opened or authenticated, at least 1 s; None: the policy's timeout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionData:
    """Session data at one version."""

    values: Mapping[str, bytes] = field(repr=False)  # the subject's business; it does not belong in a log
    version: int
    """Pass it to `update_data` as `expected_version` to write only if no one else has written since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Who did something, and why. `kind` says what led to it."""

    kind: CauseKind = CauseKind.UNSPECIFIED
    actor: str = ""
    """The identity of the caller as the authority knows it, or `authority` for its own rules."""
    reason: str = ""
    """The `reason` that the caller passed, at most 256 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a session ended."""

    end_time: datetime
    """For an expiry the deadline itself, not the time when the authority noticed it."""
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Lazy):
    """A session without its secrets. Knowing one of these values does not give access to the session."""

    session_id: str
    """The public identifier: a UUIDv7, safe in logs and on admin screens."""
    application: str
    subject: str
    """Empty for an anonymous session."""
    state: SessionState
    """Whether it was live when the authority answered."""
    generation: int
    """How often its token has been renewed or rolled."""
    create_time: datetime
    last_active_time: datetime
    """The last activity that the authority has recorded."""
    idle_expire_time: datetime | None
    """When it expires without further activity; None if the policy has no idle timeout."""
    absolute_expire_time: datetime | None
    """When it expires whatever happens; None if the policy has no absolute timeout."""
    login_expire_time: datetime | None
    """For an anonymous session of a login page: when it ends unless the user logs in. None for other sessions."""
    persistent: bool
    """Whether it outlives the browser's own session ("remember me"), with the policy's longer limits."""
    authentication: Authentication | None
    """None for an anonymous session."""
    elevation_expire_time: datetime | None
    """When the elevation in `authentication` ends; the earlier authentication counts again then. None: no elevation."""
    client: ClientContext
    """The client context that it was opened or last authenticated with. Later clients are compared with it."""
    last_client: ClientContext | None
    """Address and user agent of the last recorded activity that came with either; None if none did."""
    device: Device | None
    """`client` in words."""
    last_device: Device | None
    """`last_client` in words."""
    labels: Mapping[str, str]
    """Public key-value pairs, set by the application."""
    lifetimes: Lifetimes | None
    """The session's own timeouts; None if it has none."""
    data_version: int
    """The version of the session data; 0 before the first change."""
    ending: Ending | None
    """How it ended; None while it is live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One reason for suspicion, with evidence. The evidence never contains a token or session data."""

    type: SignalType
    expected: str
    """What was expected, from the session's record."""
    seen: str
    """What was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmetRequirement:
    """One requirement that is not met, and what would meet it."""

    kind: RequirementKind
    remedy: str
    """What would meet it, in words, for developers."""
    min_level: int
    """For LEVEL the level that is needed, otherwise 0."""
    max_authentication_age: timedelta | None
    """For AUTHENTICATION_AGE the age that the authentication must be younger than, otherwise None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieDirectives:
    """Complete headers for the response to the user's client; empty if there is nothing to send.

    Send all of them: `for name, value in answer.cookies.headers(): response.headers.append(name, value)`.
    """

    set_cookie: tuple[Token, ...] = ()
    """The values of the `Set-Cookie` headers, one header each. Secret: they contain tokens."""
    cache_control: str = ""
    """The value of the `Cache-Control` header; empty: no header."""
    clear_site_data: str = ""
    """The value of the `Clear-Site-Data` header; empty: no header."""

    def headers(self) -> list[tuple[str, str]]:
        """Names and values in plain text, for the response to the user's client only: they contain secrets.

        Append each of them. `Set-Cookie` may occur more than once, so a mapping would lose some.
        """
        headers = [("Set-Cookie", cookie.reveal()) for cookie in self.set_cookie]
        if self.cache_control:
            headers.append(("Cache-Control", self.cache_control))
        if self.clear_site_data:
            headers.append(("Clear-Site-Data", self.clear_site_data))
        return headers


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimit:
    """The limit of concurrent sessions, which a login has reached: no session was opened, nobody is logged in."""

    max_sessions: int
    """How many live sessions the subject may have."""
    live_sessions: tuple[Session, ...]
    """The subject's live sessions, newest first, to choose from. Empty if the policy does not ask."""
    ticket: Token | None
    """Secret. Repeat the call with it and with the user's choice in `evict`. Valid once, for `Policy.ticket_timeout`,
    and for the same application, subject and authentication. None if the policy does not ask."""
    ticket_expire_time: datetime | None
    """When the ticket expires."""
    live_count: int = 0
    """How many live sessions there are. `live_sessions` may show only some of them; if more must end than you can name,
    repeat the call with `evict_oldest`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLock:
    """A network that is locked for guessing tokens."""

    source: str
    """The locked network in CIDR form, as `clear_source_lock` takes it."""
    application: str
    lock_time: datetime
    expire_time: datetime
    """When the lock ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKey:
    """A key of the key ring, and what needs it. The key itself is not shown to anyone."""

    fingerprint: str
    """32 hexadecimal digits; the first 8 are enough to name it."""
    state: SealingKeyState
    state_time: datetime | None
    """Since when it is in that state."""
    holding_replicas: tuple[str, ...]
    """The replicas that hold it; empty if no other replica can use the store."""
    lacking_replicas: tuple[str, ...]
    """The replicas that run, and do not hold it."""
    live_tokens: int | None
    """How many live sessions may have a token that it sealed. None: it seals, or it never did."""
    tokens_partial: bool
    """Whether counting `live_tokens` stopped early, so that there may be more."""
    tokens_end_time: datetime | None
    """When the last of them ends at the latest. None: one of them has no end, or there are none."""
    tickets_end_time: datetime | None
    """Until when tickets and companion tokens of it may be valid."""
    sealed_values: int
    """How many values of session data are sealed with it now."""
    moved_values: int
    """How many values that it had sealed have since been sealed again with the sealing key."""
    logs_out_sessions: bool
    """It is removed even if that logs out sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The keys that seal tokens and stored data."""

    keys: tuple[SealingKey, ...]
    """The sealing key first."""
    source: str
    """Where the keys of the server that answered come from."""
    change: str
    """Where the operator changes them; empty: with `add_sealing_key` and the other calls."""
    encrypts_data: bool
    """Whether session data is encrypted."""
    plain_values: int
    """How many values of session data are not encrypted."""
    values_partial: bool
    """There may be more values: counting took too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFacts:
    """What a backup is of."""

    time: datetime
    """When the copied state was that of the authority."""
    size: int
    """The size of the database file in bytes."""
    authority_id: str
    """The UUID of the authority."""
    revision: int
    """The revision of the newest event in the copy."""
    server_version: str
    """The version of the server."""
    schema_version: int
    """The version of the database's schema."""
    key_fingerprints: tuple[str, ...]
    """The keys that the copy needs, the sealing key first. They are not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A role of a caller, for one application or for all of them."""

    role: Role
    application: str = "*"
    """`*`: all applications, those included that are configured later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerCredential:
    """One key of a caller, without its secret, or a name that its certificate may have."""

    id: str
    """Public. A key begins with `sessiond_` and this id; that of a certificate name is the name."""
    create_time: datetime
    expire_time: datetime | None
    """When it stops working; None: it does not expire."""
    certificate_name: str = ""
    """The URI or DNS name that proves the caller if its client certificate has it; empty: this is a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerInfo:
    """A caller: a service, tool or person that calls the authority."""

    name: str
    """Events have it as `cause.actor`."""
    grants: tuple[Grant, ...]
    credentials: tuple[CallerCredential, ...]
    """Oldest first."""
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessLimits:
    """When guessing counts as an attack. A source is one IPv4 address or one IPv6 /64."""

    alarm_after: int
    """This many guesses from one source within `window` raise GUESSING_SUSPECTED."""
    lock_after: int
    """This many guesses from one source within `window` lock it for `lock_time`; 0: never."""
    flood_after: int
    """This many guesses from all sources within `window` raise GUESSING_SUSPECTED for the source `*`."""
    window: timedelta
    """The time in which guesses are counted together."""
    lock_time: timedelta
    """How long a source stays locked."""
    deny_valid: bool
    """Whether valid tokens from a locked source are denied too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieRules:
    """The attributes of an application's cookies."""

    name: str
    """The name of the cookie of a session with a subject, without its prefix."""
    anonymous_name: str
    """The name of the cookie of an anonymous session, without its prefix."""
    secure: bool
    """Whether browsers send it over TLS only. The name then gets the prefix `__Host-` if the path is `/`, otherwise
    `__Secure-`."""
    same_site: str
    """`Strict`, `Lax` or `None`."""
    path: str
    clear_site_data: tuple[str, ...]
    """The values of `Clear-Site-Data` at logout. An answer that sets a fresh cookie leaves out `cookies` and `*`."""
    partitioned: bool
    """Whether the cookie is partitioned by top-level site (CHIPS), for applications embedded in other sites."""
    browser_name: str
    """The name of the cookie of a session with a subject, prefix included. Read this cookie from requests."""
    browser_anonymous_name: str
    """The name of the cookie of an anonymous session, prefix included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The effective policy of one application. None for a timeout: there is no such limit."""

    preset: str
    """`owasp-low`, `owasp-high`, `nist-aal1`, `nist-aal2` or `nist-aal3`."""
    idle_timeout: timedelta | None
    """A session ends after this long without activity."""
    absolute_timeout: timedelta | None
    """A session ends this long after it was opened or last authenticated."""
    renewal_timeout: timedelta | None
    """The age at which a token is renewed; None: never."""
    renewal_overlap: timedelta
    """How long the previous token stays valid after a renewal."""
    roll_tolerance: timedelta
    """How long a token that a login or roll has replaced is denied without an alarm (SUPERSEDED). For the same time
    after a session has ended, its clients keep their token (KEEP_TOKEN)."""
    lost_answer_tolerance: timedelta
    """How long such a token raises no alarm as long as nobody has used the new one, whose answer may have been lost."""
    refresh_extends_lifetime: bool
    """Whether `refresh` restarts the absolute lifetime too."""
    retention: timedelta
    """How long ended sessions of subjects are kept as history."""
    anonymous_retention: timedelta
    """How long ended anonymous sessions are kept as history."""
    answer_retention: timedelta
    """How long a call that is repeated with its `request_id` gets the first answer again."""
    max_data_bytes: int
    """The most bytes that a session's data may have, keys and values together."""
    login_timeout: timedelta
    """How long an anonymous session of a login page lasts unless the user logs in."""
    remember_idle_timeout: timedelta | None
    """The idle timeout of a remembered session; None: sessions cannot be remembered."""
    remember_absolute_timeout: timedelta | None
    """The absolute timeout of a remembered session; None: it has none, or sessions cannot be remembered."""
    remember_level: int
    """The level that a remembered session falls to after `idle_timeout` without activity."""
    elevation_timeout: timedelta
    """How long an elevation lasts."""
    csrf_overlap: timedelta
    """How long the previous CSRF token is still accepted after a subject authenticated again or was elevated; zero: it
    is not accepted. Servers from before this setting report zero."""
    max_sessions: int
    """How many live sessions a subject may have; 0: any number."""
    on_limit: str
    """What happens at the limit: `reject`, `evict-oldest`, `evict-least-recent` or `ask`."""
    ticket_timeout: timedelta
    """How long a ticket is valid (`on_limit` is `ask`)."""
    companion_timeout: timedelta
    """The longest time to live of a companion token."""
    related_agents: tuple[tuple[str, ...], ...]
    """Groups of user agents (`family on platform`) that count as one client: an app and its web view."""
    ipv4_prefix: int
    """How many leading bits of an IPv4 address must stay the same."""
    ipv6_prefix: int
    """How many leading bits of an IPv6 address must stay the same."""
    concurrent_use_window: timedelta
    """Three changes between two clients within this time are CONCURRENT_USE. If only the network differs: eight changes
    within ten times this window."""
    fold_window: timedelta
    """The time within which a repeated suspicion is reported only once."""
    reactions: Mapping[SignalType, Reaction]
    """The reaction to each signal. Signals that are newer than this package are left out."""
    guessing: GuessLimits
    """When guessing counts as an attack."""
    cookie: CookieRules
    """The attributes of the application's cookies."""
    origins: Mapping[str, str]
    """The origin of each value, by its path (`idle_timeout`, `reactions.ip_change`): the preset, or file and line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application that the authority serves, and its effective policy."""

    name: str
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of the log: durable and immutable. It never contains a token or session data."""

    revision: int
    """Its position in the log: in commit order, strictly increasing, without gaps over all events."""
    type: EventType
    event_time: datetime
    """By the authority's wall clock. `revision`, not this, is the order of events."""
    application: str
    subject: str
    """Empty for an anonymous session."""
    session_id: str
    """Empty for an event that is not about one session."""
    cause: Cause
    client: ClientContext
    """The client context of the call that caused it."""
    generation: int
    """The session's generation after the event."""
    authentication: Authentication | None
    """For SESSION_CREATED, SESSION_AUTHENTICATED and SESSION_LEVEL_LOWERED: how the subject is authenticated after the
    event, without the elevation if there is one; None for an anonymous session."""
    signals: tuple[Signal, ...]
    """For HIJACK_SUSPECTED: the reasons for suspicion."""
    reaction: Reaction
    """For HIJACK_SUSPECTED: what the authority did about it; otherwise UNSPECIFIED."""
    source: str
    """For GUESSING_SUSPECTED, SOURCE_LOCKED and SOURCE_UNLOCKED: the network in CIDR form; `*` for guesses from many
    sources together."""
    labels: Mapping[str, str]
    """The session's labels after the event."""
    cursor: str = ""
    """Pass it as `after` to resume directly after this event. Opaque, not a secret. Empty in `activity`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Progress on a stream without an event: everything up to here has been delivered."""

    revision: int
    """Every event that matches the filter has been delivered up to this revision."""
    cursor: str
    """Pass it as `after` to resume here. Opaque, not a secret."""
