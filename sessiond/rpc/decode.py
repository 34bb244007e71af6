"""Conversion of request messages to domain values. Every field that a caller sends is checked here.

All functions raise `InvalidField` if a value is not allowed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond.access.identity import why_unusable
from sessiond.authority.question import DataRequest, Question
from sessiond.authority.requirements import NO_REQUIREMENTS, Requirements
from sessiond.authority.results import SessionRef, TicketChoice
from sessiond.crypto.tokens import Token
from sessiond.domain.access import RESERVED_NAMES, Grants, Role
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField, shown
from sessiond.domain.event import EventFilter, EventType
from sessiond.domain.login import Login
from sessiond.domain.position import Position
from sessiond.domain.query import SessionQuery
from sessiond.domain.requirements import AuthenticationRequirements
from sessiond.domain.session import SessionState
from sessiond.domain.values import MAX_LABELS, NOBODY, ClientContext, Instant, Labels, Lifetimes, Millis, SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "caller_name",
    "caller_reason",
    "certificate_changes",
    "certificate_names",
    "grants",
    "fingerprint",
    "overlap",
    "application",
    "checkpoint_interval",
    "follow_start",
    "client",
    "companion_path",
    "data_changes",
    "data_keys",
    "event_filter",
    "initial_data",
    "login",
    "data_request",
    "labels",
    "lifetimes",
    "named_session",
    "owner",
    "question",
    "requirements",
    "page_size",
    "purpose",
    "reason",
    "session_id",
    "session_query",
    "source",
    "subject",
    "ticket_choice",
    "time_to_live",
    "token",
    "waits_for_caches",
]

_MAX_TEXT = 256
_MAX_ADDRESS = 64  # includes a zone (RFC 4007), whose length would otherwise be unlimited
_MAX_USER_AGENT = 1024
_MAX_METHODS = 16
_MAX_METHOD = 64
_MAX_LEVEL = 3
_MAX_PAGE = 1000
_DEFAULT_PAGE = 100
_MAX_FILTER_VALUES = 100
_MAX_UPDATES = 1000
_MAX_EVICTED = 1000
_MAX_PURPOSE = 64
_LABEL_KEY = re.compile(r"[a-z0-9._-]{1,64}")
_SHORTEST_LIFETIME = 1_000  # milliseconds
_YEAR = 365 * 86_400
_LONGEST_SECONDS = 10 * _YEAR
_LONGEST_LIFETIME = Millis(1_000 * _LONGEST_SECONDS)
_FINGERPRINT = re.compile(r"[0-9a-fA-F]{8,32}")
_CALLER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_CALLER_REASON, _MAX_GRANTS, _MAX_OVERLAP_SECONDS = 128, 100, 30 * 86_400
_MAX_CERTIFICATE_NAMES = 10
_ROLE_BACK = {pb.Role.Value(f"ROLE_{role.name}"): role for role in Role}
_MAX_DURATION = 315_576_000_000  # seconds, the range of google.protobuf.Duration
# An address with a port, or in brackets, as in the header `Forwarded` (RFC 7239) and in other proxy headers.
_IPV4_AND_PORT = re.compile(r"([^:\[\]]+):[0-9]{1,5}")
_IPV6_IN_BRACKETS = re.compile(r"\[([^\[\]]*:[^\[\]]*)\](?::[0-9]{1,5})?")

_STATE_BACK = {pb.SessionState.Value(f"SESSION_STATE_{state.name}"): state for state in SessionState} | {
    pb.SESSION_STATE_UNSPECIFIED: SessionState.ACTIVE
}
_EVENT_TYPE_BACK = {pb.EventType.Value(f"EVENT_TYPE_{kind.name}"): kind for kind in EventType}


def _clean(field: str, value: str) -> str:
    """Return `value`. Raise `InvalidField` if it contains U+0000, which not every store can hold."""
    if "\0" in value:
        raise InvalidField(field, "must not contain the character U+0000")
    return value


def _text(field: str, value: str, most: int = _MAX_TEXT) -> str:
    _clean(field, value)
    if len(value) > most:
        raise InvalidField(field, f"has {len(value)} characters; at most {most} are allowed")
    return value


def application(name: str) -> str:
    """Return the application's name; `default` if none is given."""
    return _clean("application", name) or "default"


def subject(value: str) -> str:
    """Return a subject, which must not be empty."""
    if not value:
        raise InvalidField("subject", "must be set")
    return _text("subject", value)


def waits_for_caches(value: int) -> bool:
    """Return whether a revocation waits for all caches. Raise `InvalidField` if the value is unknown."""
    if value not in pb.RevocationWait.values():
        raise InvalidField("wait", f"{value} is not a value of RevocationWait")
    return value == pb.REVOCATION_WAIT_FOR_CACHES


def owner(value: str) -> str:
    """Return the subject that a session must belong to; empty for a session without a subject."""
    return _text("subject", value)


def reason(value: str) -> str:
    """Return the reason for a call, in the caller's words."""
    return _text("reason", value)


def token(value: str) -> Token:
    """Return a presented token, unchecked: the authority judges it."""
    return Token(value)


def session_id(value: str, field: str = "session_id") -> SessionId:
    """Return a session id."""
    try:
        return SessionId.parse(value)
    except ValueError:
        remedy = f"{shown(value)} is not a session id; pass a UUID in canonical lower-case form"
        raise InvalidField(field, remedy) from None


def named_session(reference: pb.SessionReference) -> SessionRef:
    """Return the token or the session id by which a call names a session."""
    match reference.WhichOneof("reference"):
        case "token":
            return Token(reference.token)
        case "session_id":
            return session_id(reference.session_id, "session.session_id")
        case _:
            raise InvalidField("session", "must name a session: set token or session_id")


def _address(value: str) -> str:
    _text("client.ip_address", value, _MAX_ADDRESS)
    bare = _IPV4_AND_PORT.fullmatch(value) or _IPV6_IN_BRACKETS.fullmatch(value)
    try:
        parsed = ipaddress.ip_address(bare[1] if bare else value)
    except ValueError:
        remedy = f"{shown(value)} is not an IPv4 or IPv6 address; leave it empty if it is unknown"
        raise InvalidField("client.ip_address", remedy) from None
    if parsed.version == 6 and (mapped := parsed.ipv4_mapped) is not None:
        return str(mapped)
    return str(parsed)


def client(message: pb.ClientContext) -> ClientContext:
    """Return what the caller saw of the client, in normalized form. A user agent is cut to 1,024 bytes."""
    # Cut before it is cached, so that the cache's size in bytes is bounded.
    agent = message.user_agent[:_MAX_USER_AGENT]
    if not agent.isascii():
        agent = agent.encode()[:_MAX_USER_AGENT].decode(errors="ignore")
    return _client(message.ip_address, agent, message.certificate_thumbprint, message.device_id)


@lru_cache(maxsize=10_000)
def _client(address: str, agent: str, thumbprint: bytes, device: str) -> ClientContext:
    if not (address or agent or thumbprint or device):
        return NOBODY
    if thumbprint and len(thumbprint) != 32:
        raise InvalidField("client.certificate_thumbprint", "must be a SHA-256 digest, which has 32 bytes")
    return ClientContext(
        ip_address=_address(_clean("client.ip_address", address)) if address else "",
        user_agent=_clean("client.user_agent", agent),
        certificate_thumbprint=thumbprint,
        device_id=_text("client.device_id", device),
    )


def _authentication(message: pb.Authentication) -> tuple[int, tuple[str, ...]]:
    """Return the level and the methods of an authentication."""
    if not 0 <= message.level <= _MAX_LEVEL:
        raise InvalidField("authentication.level", f"is {message.level}; must be 0 to {_MAX_LEVEL}")
    methods = tuple(message.methods)
    if len(methods) > _MAX_METHODS:
        raise InvalidField("authentication.methods", f"has {len(methods)} entries; at most {_MAX_METHODS} are allowed")
    for method in methods:
        if not method or len(method) > _MAX_METHOD or not method.isprintable() or " " in method:
            remedy = f"each method must have 1 to {_MAX_METHOD} printable characters and no spaces"
            raise InvalidField("authentication.methods", remedy)
    return message.level, methods


class _LoginRequest(Protocol):
    """The fields of a login that CreateSession and AuthenticateSession have in common."""

    subject: str
    persistent: bool
    ticket: str

    @property
    def authentication(self) -> pb.Authentication:
        """How the subject was authenticated."""

    evict_oldest: bool

    @property
    def evict_session_ids(self) -> Sequence[str]:
        """The sessions that the subject chose to end."""

    @property
    def lifetimes(self) -> pb.Lifetimes:
        """The session's own timeouts."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The session's labels."""

    def HasField(self, field_name: Any, /) -> bool:  # noqa: N802 - the name that messages have
        """Return whether a field is set."""


def login(request: _LoginRequest) -> Login:
    """Return the subject, its authentication, and the requested properties of the session."""
    level, methods = _authentication(request.authentication) if request.HasField("authentication") else (0, ())
    return Login(
        _text("subject", request.subject),
        level,
        methods,
        request.persistent,
        lifetimes(request.lifetimes) if request.HasField("lifetimes") else None,
        labels("labels", request.labels) if request.labels else (),
    )


def ticket_choice(request: _LoginRequest) -> TicketChoice:
    """Return the ticket, and the sessions that the subject chose to end."""
    evict = request.evict_session_ids
    if len(evict) > _MAX_EVICTED:
        raise InvalidField("evict_session_ids", f"has {len(evict)} entries; at most {_MAX_EVICTED} are allowed")
    return TicketChoice(
        Token(request.ticket) if request.ticket else None,
        tuple([session_id(one, "evict_session_ids") for one in evict]) if evict else (),
        request.evict_oldest,
    )


def lifetimes(message: pb.Lifetimes) -> Lifetimes:
    """Return a session's own timeouts."""
    own = {}
    for name in ("idle_timeout", "absolute_timeout"):
        if message.HasField(name):
            field = f"lifetimes.{name}"
            # A timeout longer than the policy's has no effect, so any valid duration is accepted, and cut to ten years.
            own[name] = min(_millis(field, getattr(message, name), _MAX_DURATION), _LONGEST_LIFETIME)
            if own[name] < _SHORTEST_LIFETIME:
                raise InvalidField(field, "must be at least 1 s")
    return Lifetimes(own.get("idle_timeout"), own.get("absolute_timeout"))


def labels(field: str, values: Mapping[str, str]) -> Labels:
    """Return labels: public key-value pairs, sorted by key."""
    if len(values) > MAX_LABELS:
        raise InvalidField(field, f"has {len(values)} entries; at most {MAX_LABELS} are allowed")
    for key, value in values.items():
        if not _LABEL_KEY.fullmatch(key):
            remedy = f"the key {shown(key)} must have 1 to 64 characters from a-z, 0-9, '.', '_' and '-'"
            raise InvalidField(field, remedy)
        if not value:
            raise InvalidField(field, f"the value of {key!r} must not be empty")
        _text(field, value)
    return tuple(sorted(values.items()))


def requirements(request: pb.ValidateSessionRequest) -> Requirements:
    """Return what a request requires in addition to a valid token."""
    if not request.HasField("requirements"):
        return NO_REQUIREMENTS
    message = request.requirements
    if not 0 <= message.min_level <= _MAX_LEVEL:
        raise InvalidField("requirements.min_level", f"is {message.min_level}; must be 0 to {_MAX_LEVEL}")
    max_age, companion, csrf = None, None, None
    if message.HasField("max_authentication_age"):
        max_age = _millis("requirements.max_authentication_age", message.max_authentication_age)
    if message.HasField("companion"):
        name = purpose(message.companion.purpose, "requirements.companion.purpose")
        companion = (name, Token(message.companion.companion_token))
    if message.HasField("csrf"):
        csrf = Token(message.csrf.csrf_token)
    return Requirements(AuthenticationRequirements(message.min_level, max_age), companion, csrf)


def data_request(message: pb.DataRequest, field: str = "data") -> DataRequest:
    """Return which session data a validation should return."""
    return DataRequest(data_keys(f"{field}.keys", message.keys), message.newer_than)


def data_keys(field: str, keys: Sequence[str]) -> frozenset[str]:
    """Return the requested keys of session data; empty for all keys."""
    if len(keys) > _MAX_UPDATES:
        raise InvalidField(field, f"has {len(keys)} entries; at most {_MAX_UPDATES} are allowed")
    return frozenset(_data_key(field, key) for key in keys)


def question(call: Call, request: pb.ValidateSessionRequest, at_least: Position | None) -> Question:
    """Return everything that one validation asks."""
    return Question(
        call,
        Token(request.token),
        request.passive,
        requirements(request),
        request.with_csrf_token,
        data_request(request.data) if request.HasField("data") else None,
        at_least,
    )


def purpose(value: str, field: str = "purpose") -> str:
    """Return the purpose of a companion token, which becomes part of a cookie's name."""
    if not 1 <= len(value) <= _MAX_PURPOSE or not all(c.isascii() and (c.isalnum() or c in "._-") for c in value):
        remedy = f"is {shown(value)}; must be 1 to {_MAX_PURPOSE} ASCII letters, digits, '.', '_' and '-'"
        raise InvalidField(field, remedy)
    return value


def companion_path(value: str) -> str:
    """Return the path of a companion token's cookie; empty for the path of the session cookie."""
    if not value:
        return value
    if not value.startswith("/") or not value.isascii() or not value.isprintable() or ";" in value:
        raise InvalidField("path", "must begin with '/' and contain only printable ASCII characters without ';'")
    return _text("path", value)


def time_to_live(message: pb.IssueCompanionTokenRequest) -> Millis | None:
    """Return the requested lifetime of a companion token; None for the longest that the policy allows."""
    return _millis("time_to_live", message.time_to_live) if message.HasField("time_to_live") else None


def source(value: str) -> str:
    """Return a locked source, a network."""
    try:
        return str(ipaddress.ip_network(_text("source", value)))
    except ValueError:
        remedy = f"{shown(value)} is not a network; pass one exactly as ListSourceLocks returns it"
        raise InvalidField("source", remedy) from None


def caller_name(value: str) -> str:
    """Return the name of a caller."""
    if not _CALLER_NAME.fullmatch(value):
        raise InvalidField(
            "name", "must have 1 to 64 characters of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit"
        )
    return value


def new_caller_name(value: str) -> str:
    """Return the name of a caller that is to be added."""
    if value in RESERVED_NAMES:
        raise InvalidField(
            "name", f"{shown(value)} is in events for the authority itself, or for calls without a key; choose another"
        )
    return caller_name(value)


def caller_reason(value: str) -> str:
    """Return the reason for a change of a caller."""
    return _text("reason", value, _MAX_CALLER_REASON)


def grants(messages: Sequence[pb.Grant]) -> Grants:
    """Return the roles of a caller."""
    if not 1 <= len(messages) <= _MAX_GRANTS:
        raise InvalidField("grants", f"has {len(messages)} entries; 1 to {_MAX_GRANTS} are allowed")
    return frozenset(_grant(f"grants[{number}]", message) for number, message in enumerate(messages))


def certificate_names(field: str, values: Sequence[str]) -> tuple[str, ...]:
    """Return names that prove a caller if its certificate has one of them."""
    if len(values) > _MAX_CERTIFICATE_NAMES:
        raise InvalidField(field, f"has {len(values)} entries; at most {_MAX_CERTIFICATE_NAMES} are allowed")
    for number, value in enumerate(values):
        if problem := why_unusable(value):
            raise InvalidField(field, f"{shown(value)} {problem}")
        if value in values[:number]:
            raise InvalidField(field, f"{shown(value)} is there twice; name it once")
    return tuple(values)


def certificate_changes(request: pb.UpdateCallerCertificatesRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names to add to a caller, and those to remove."""
    add = certificate_names("add", request.add)
    remove = certificate_names("remove", request.remove)
    if not add and not remove:
        raise InvalidField("add", "must have a name if remove has none; specify a name to add or to remove")
    return add, remove


def _grant(field: str, message: pb.Grant) -> tuple[str, Role]:
    if message.role not in _ROLE_BACK:
        raise InvalidField(f"{field}.role", f"{message.role} is not a role of a caller")
    application = _text(f"{field}.application", message.application)
    if not application:
        raise InvalidField(f"{field}.application", "must be set; `*` means all applications")
    return application, _ROLE_BACK[message.role]


def fingerprint(value: str, *, optional: bool = False) -> str:
    """Return the beginning of a key's fingerprint; empty if it is optional and not given."""
    if optional and not value:
        return ""
    if not _FINGERPRINT.fullmatch(value):
        raise InvalidField("fingerprint", "must be the first 8 to 32 digits, as `sessionctl keyring status` shows them")
    return value.lower()


def overlap(request: pb.RotateCallerRequest) -> Millis:
    """Return how long the other keys of a caller remain valid."""
    if not request.HasField("overlap") or not (request.overlap.seconds or request.overlap.nanos):
        return Millis(0)
    return _millis("overlap", request.overlap, _MAX_OVERLAP_SECONDS)


def _millis(field: str, message: Duration, longest: int = _LONGEST_SECONDS) -> Millis:
    if not 0 <= message.seconds <= longest or not 0 <= message.nanos < 1_000_000_000:
        raise InvalidField(field, f"must be a duration from 1 ms to {_longest(longest)}")
    millis = message.seconds * 1000 + message.nanos // 1_000_000
    if not millis:
        raise InvalidField(field, "must be at least 1 ms")
    return Millis(millis)


def _longest(seconds: int) -> str:
    return f"{seconds // _YEAR} years" if seconds >= _YEAR else f"{seconds // 86_400} days"


def initial_data(data: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the initial data of a session."""
    if not data:
        return {}
    for key in data:
        _data_key("data", key)
    return dict(data)


def data_changes(message: pb.UpdateSessionDataRequest) -> dict[str, bytes | None]:
    """Return the keys to set (bytes) and to delete (None)."""
    if not message.set and not message.delete:
        raise InvalidField("set", "must not be empty unless delete is set; set or delete at least one key")
    changes = len(message.set) + len(message.delete)
    if changes > _MAX_UPDATES:
        raise InvalidField("set", f"set and delete have {changes} keys; at most {_MAX_UPDATES} are allowed")
    changed: dict[str, bytes | None] = {}
    for key, value in message.set.items():
        changed[_data_key("set", key)] = value
    for key in message.delete:
        if changed.get(_data_key("delete", key)) is not None:
            raise InvalidField("delete", "shares a key with set; remove it from one of them")
        changed[key] = None
    return changed


def _data_key(field: str, key: str) -> str:
    if not 1 <= len(key) <= _MAX_TEXT:
        raise InvalidField(field, f"each key must have 1 to {_MAX_TEXT} characters")
    return _clean(field, key)


def page_size(value: int) -> int:
    """Return the maximum number of entries on a page."""
    if value < 0 or value > _MAX_PAGE:
        raise InvalidField("page_size", f"is {value}; must be 1 to {_MAX_PAGE}, or 0 for {_DEFAULT_PAGE}")
    return value or _DEFAULT_PAGE


def session_query(name: str, message: pb.SessionFilter, now: Instant) -> SessionQuery:
    """Return the query for the sessions of application `name` that match a filter."""
    if message.state not in _STATE_BACK:
        raise InvalidField("filter.state", f"{message.state} is not a value of SessionState")
    return SessionQuery(
        application=name,
        now=now,
        state=_STATE_BACK[message.state],
        subject=_text("filter.subject", message.subject) if message.HasField("subject") else None,
        ip_range=_network(message.ip_network) if message.ip_network else None,
        created_from=_instant("filter.created_from", message.created_from)
        if message.HasField("created_from")
        else None,
        created_until=(
            _instant("filter.created_until", message.created_until) if message.HasField("created_until") else None
        ),
        labels=labels("filter.labels", message.labels),
    )


def _network(value: str) -> tuple[str, str]:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        remedy = f"{shown(value)} is neither an IP address nor a network in CIDR notation"
        raise InvalidField("filter.ip_network", remedy) from None
    base = 0xFFFF << 32 if network.version == 4 else 0
    return f"{base + int(network[0]):032x}", f"{base + int(network[-1]):032x}"


def _instant(field: str, message: Timestamp) -> Instant:
    # The range of google.protobuf.Timestamp: years 1 to 9999.
    if not -62135596800 <= message.seconds <= 253402300799 or not 0 <= message.nanos < 1_000_000_000:
        raise InvalidField(field, "must be a timestamp between the years 1 and 9999")
    return Instant(message.seconds * 1000 + message.nanos // 1_000_000)


def event_filter(message: pb.EventFilter) -> EventFilter:
    """Return which events a subscriber wants."""
    for field in ("applications", "subjects"):
        if len(getattr(message, field)) > _MAX_FILTER_VALUES:
            number = len(getattr(message, field))
            raise InvalidField(f"filter.{field}", f"has {number} entries; at most {_MAX_FILTER_VALUES} are allowed")
        for value in getattr(message, field):
            _text(f"filter.{field}", value)
    for kind in message.types:
        if kind not in _EVENT_TYPE_BACK:
            raise InvalidField("filter.types", f"{kind} is not a value of EventType")
    return EventFilter(
        frozenset(message.applications),
        frozenset(message.subjects),
        frozenset(_EVENT_TYPE_BACK[value] for value in message.types),
        frozenset(labels("filter.labels", message.labels)),
    )


def follow_start(message: pb.FollowStart) -> tuple[frozenset[str], str]:
    """Return the applications that a cache follows (empty: all), and the cache's name."""
    if len(message.applications) > _MAX_FILTER_VALUES:
        number = len(message.applications)
        raise InvalidField("start.applications", f"has {number} entries; at most {_MAX_FILTER_VALUES} are allowed")
    for value in message.applications:
        _text("start.applications", value)
    return frozenset(map(application, message.applications)), _text("start.follower", message.follower)


def checkpoint_interval(message: pb.SubscribeRequest) -> float:
    """Return the seconds between checkpoints on a stream without events."""
    if not message.HasField("checkpoint_interval"):
        return 10.0
    interval = message.checkpoint_interval
    seconds = interval.seconds + interval.nanos / 1e9
    if not 0.1 <= seconds <= 3600 or not 0 <= interval.nanos < 1_000_000_000:
        raise InvalidField("checkpoint_interval", "must be from 100 ms to 1 h")
    return seconds
