"""Messages to domain values. Everything that callers send is checked here, field by field."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond.authority.requirements import Needed
from sessiond.authority.results import Login, Named
from sessiond.crypto.tokens import Token
from sessiond.domain.errors import InvalidField
from sessiond.domain.event import EventFilter, EventType
from sessiond.domain.requirements import Requirements
from sessiond.domain.session import SessionState
from sessiond.domain.values import NOBODY, ClientContext, Instant, Millis, SessionId
from sessiond.store.contract import SessionQuery
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "application",
    "checkpoint_interval",
    "client",
    "companion_path",
    "data_changes",
    "event_filter",
    "first_data",
    "login",
    "named_session",
    "needed",
    "page_size",
    "purpose",
    "reason",
    "session_id",
    "session_query",
    "source",
    "subject",
    "time_to_live",
    "token",
]

_MAX_TEXT = 256
_MAX_ADDRESS = 64  # a zone (RFC 4007) included, which may be of any length else
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
_MAX_SHOWN = 64
_LONGEST_SECONDS = 10 * 365 * 86_400
# An address with a port, or in brackets, as proxies and `Forwarded` (RFC 7239) write it.
_IPV4_AND_PORT = re.compile(r"([^:\[\]]+):[0-9]{1,5}")
_IPV6_IN_BRACKETS = re.compile(r"\[([^\[\]]*:[^\[\]]*)\](?::[0-9]{1,5})?")
# Longer than a session id or an address, shorter than every kind of token and ticket.
_MAYBE_SECRET = re.compile(r"[A-Za-z0-9_-]{40}")

_STATE_BACK = {pb.SessionState.Value(f"SESSION_STATE_{state.name}"): state for state in SessionState} | {
    pb.SESSION_STATE_UNSPECIFIED: SessionState.ACTIVE
}
_EVENT_TYPE_BACK = {pb.EventType.Value(f"EVENT_TYPE_{kind.name}"): kind for kind in EventType}


def _text(field: str, value: str, most: int = _MAX_TEXT) -> str:
    if len(value) > most:
        raise InvalidField(field, f"has {len(value)} characters, at most {most} are allowed")
    return value


def _shown(value: str) -> str:
    """A value as a refusal may show it: quoted, in ASCII, cut to 64 characters.

    What may be a token in the wrong field is not shown: callers log refusals.
    """
    if _MAYBE_SECRET.search(value[: 2 * _MAX_SHOWN]):
        return f"a text of {len(value)} characters"
    escaped = value[:_MAX_SHOWN].encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"' + ("..." if len(value) > _MAX_SHOWN else "")


def application(name: str) -> str:
    """The application's name; `default` where none is given."""
    return name or "default"


def subject(value: str) -> str:
    """A subject that must be there."""
    if not value:
        raise InvalidField("subject", "must be set")
    return _text("subject", value)


def reason(value: str) -> str:
    """Why, in the caller's words."""
    return _text("reason", value)


def token(value: str) -> Token:
    """A presented token, whatever it is: judging it is the authority's work."""
    return Token(value)


def session_id(value: str, field: str = "session_id") -> SessionId:
    """A public session id."""
    try:
        return SessionId.parse(value)
    except ValueError:
        remedy = f"{_shown(value)} is not a session id (a UUID in its canonical lower-case form)"
        raise InvalidField(field, remedy) from None


def named_session(reference: pb.SessionReference) -> Named:
    """A session as the call names it."""
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
        raise InvalidField("client.ip_address", f"{_shown(value)} is not an IPv4 or IPv6 address") from None
    if parsed.version == 6 and (mapped := parsed.ipv4_mapped) is not None:
        return str(mapped)
    return str(parsed)


def client(message: pb.ClientContext) -> ClientContext:
    """What the caller saw of the client, in normal form."""
    # Cut before it is remembered: what is kept must be bounded whatever clients send.
    agent = message.user_agent[:_MAX_USER_AGENT]
    return _client(message.ip_address, agent, message.certificate_thumbprint, message.device_id)


@lru_cache(maxsize=10_000)
def _client(address: str, agent: str, thumbprint: bytes, device: str) -> ClientContext:
    if not (address or agent or thumbprint or device):
        return NOBODY
    if thumbprint and len(thumbprint) != 32:
        raise InvalidField("client.certificate_thumbprint", "must be a SHA-256 digest of 32 bytes")
    return ClientContext(
        ip_address=_address(address) if address else "",
        user_agent=agent,
        certificate_thumbprint=thumbprint,
        device_id=_text("client.device_id", device),
    )


def _authentication(message: pb.Authentication) -> tuple[int, tuple[str, ...]]:
    """Level and methods."""
    if not 0 <= message.level <= _MAX_LEVEL:
        raise InvalidField("authentication.level", f"is {message.level}, must be 0 to {_MAX_LEVEL}")
    methods = tuple(message.methods)
    if len(methods) > _MAX_METHODS:
        raise InvalidField("authentication.methods", f"has {len(methods)} entries, at most {_MAX_METHODS} are allowed")
    for method in methods:
        if not method or len(method) > _MAX_METHOD or not method.isprintable() or " " in method:
            raise InvalidField("authentication.methods", f"each must be a word of 1 to {_MAX_METHOD} characters")
    return message.level, methods


class _LoginRequest(Protocol):
    """The fields that a login has in CreateSession and in AuthenticateSession."""

    subject: str
    persistent: bool
    ticket: str

    @property
    def authentication(self) -> pb.Authentication:
        """How the subject was authenticated."""

    @property
    def evict_session_ids(self) -> Sequence[str]:
        """What the subject chose to end."""


def login(request: _LoginRequest) -> Login:
    """Who was authenticated and how, and what is wished for the session."""
    level, methods = _authentication(request.authentication)
    evict = request.evict_session_ids
    if len(evict) > _MAX_EVICTED:
        raise InvalidField("evict_session_ids", f"has {len(evict)} entries, at most {_MAX_EVICTED} are allowed")
    return Login(
        _text("subject", request.subject),
        level,
        methods,
        request.persistent,
        Token(request.ticket) if request.ticket else None,
        tuple([session_id(one, "evict_session_ids") for one in evict]) if evict else (),
    )


def needed(request: pb.ValidateSessionRequest) -> Needed | None:
    """What a request needs beyond a good token; None: nothing."""
    if not request.HasField("requirements"):
        return None
    message = request.requirements
    if not 0 <= message.min_level <= _MAX_LEVEL:
        raise InvalidField("requirements.min_level", f"is {message.min_level}, must be 0 to {_MAX_LEVEL}")
    max_age, companion, csrf = None, None, None
    if message.HasField("max_authentication_age"):
        max_age = _millis("requirements.max_authentication_age", message.max_authentication_age)
    if message.HasField("companion"):
        name = purpose(message.companion.purpose, "requirements.companion.purpose")
        companion = (name, Token(message.companion.companion_token))
    if message.HasField("csrf"):
        csrf = Token(message.csrf.csrf_token)
    return Needed(Requirements(message.min_level, max_age), companion, csrf)


def purpose(value: str, field: str = "purpose") -> str:
    """What a companion token is for: a word that may stand in a cookie's name."""
    if not 1 <= len(value) <= _MAX_PURPOSE or not all(c.isascii() and (c.isalnum() or c in "._-") for c in value):
        remedy = f"is {_shown(value)}, must be 1 to {_MAX_PURPOSE} of ASCII letters, digits, '.', '_' and '-'"
        raise InvalidField(field, remedy)
    return value


def companion_path(value: str) -> str:
    """The path of a companion token's cookie; empty: the session cookie's."""
    if not value:
        return value
    if not value.startswith("/") or not value.isascii() or not value.isprintable() or ";" in value:
        raise InvalidField("path", "must begin with '/' and be printable ASCII without ';'")
    return _text("path", value)


def time_to_live(message: pb.IssueCompanionTokenRequest) -> Millis | None:
    """How long a companion token is to be good; None: as long as the policy lets it."""
    return _millis("time_to_live", message.time_to_live) if message.HasField("time_to_live") else None


def source(value: str) -> str:
    """A locked source."""
    try:
        return str(ipaddress.ip_network(_text("source", value)))
    except ValueError:
        remedy = f"{_shown(value)} is not a network as ListSourceLocks returns it"
        raise InvalidField("source", remedy) from None


def _millis(field: str, message: Duration) -> Millis:
    if not 0 <= message.seconds <= _LONGEST_SECONDS or not 0 <= message.nanos < 1_000_000_000:
        raise InvalidField(field, "must be a duration between nothing and ten years")
    millis = message.seconds * 1000 + message.nanos // 1_000_000
    if not millis:
        raise InvalidField(field, "must be at least a millisecond")
    return Millis(millis)


def first_data(data: Mapping[str, bytes]) -> dict[str, bytes]:
    """The first data of a session."""
    for key in data:
        _data_key("data", key)
    return dict(data)


def data_changes(message: pb.UpdateSessionDataRequest) -> dict[str, bytes | None]:
    """What to set (bytes) and to delete (None)."""
    if not message.set and not message.delete:
        raise InvalidField("set", "nothing to change: set or delete at least one key")
    if len(message.set) + len(message.delete) > _MAX_UPDATES:
        raise InvalidField("set", f"at most {_MAX_UPDATES} keys can be changed at once")
    changed: dict[str, bytes | None] = {}
    for key, value in message.set.items():
        changed[_data_key("set", key)] = value
    for key in message.delete:
        if changed.get(_data_key("delete", key)) is not None:
            raise InvalidField("delete", "shares a key with set")
        changed[key] = None
    return changed


def _data_key(field: str, key: str) -> str:
    if not 1 <= len(key) <= _MAX_TEXT:
        raise InvalidField(field, f"a key must have 1 to {_MAX_TEXT} characters")
    return key


def page_size(value: int) -> int:
    """How many at most."""
    if value < 0 or value > _MAX_PAGE:
        raise InvalidField("page_size", f"is {value}, must be 1 to {_MAX_PAGE}, or 0 for {_DEFAULT_PAGE}")
    return value or _DEFAULT_PAGE


def session_query(name: str, message: pb.SessionFilter, now: Instant) -> SessionQuery:
    """Which sessions."""
    if message.state not in _STATE_BACK:
        raise InvalidField("filter.state", f"{message.state} is not a SessionState")
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
    )


def _network(value: str) -> tuple[str, str]:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        remedy = f"{_shown(value)} is neither an address nor a network in CIDR form"
        raise InvalidField("filter.ip_network", remedy) from None
    base = 0xFFFF << 32 if network.version == 4 else 0
    return f"{base + int(network[0]):032x}", f"{base + int(network[-1]):032x}"


def _instant(field: str, message: Timestamp) -> Instant:
    # The range of google.protobuf.Timestamp: years 1 to 9999.
    if not -62135596800 <= message.seconds <= 253402300799 or not 0 <= message.nanos < 1_000_000_000:
        raise InvalidField(field, "is not a timestamp between the years 1 and 9999")
    return Instant(message.seconds * 1000 + message.nanos // 1_000_000)


def event_filter(message: pb.EventFilter) -> EventFilter:
    """Which events."""
    for field in ("applications", "subjects"):
        if len(getattr(message, field)) > _MAX_FILTER_VALUES:
            raise InvalidField(f"filter.{field}", f"at most {_MAX_FILTER_VALUES} values are allowed")
    for value in message.types:
        if value not in _EVENT_TYPE_BACK:
            raise InvalidField("filter.types", f"{value} is not an EventType")
    return EventFilter(
        frozenset(message.applications),
        frozenset(message.subjects),
        frozenset(_EVENT_TYPE_BACK[value] for value in message.types),
    )


def checkpoint_interval(message: pb.SubscribeRequest) -> float:
    """Seconds between checkpoints on a quiet stream."""
    if not message.HasField("checkpoint_interval"):
        return 10.0
    interval = message.checkpoint_interval
    seconds = interval.seconds + interval.nanos / 1e9
    if not 0.1 <= seconds <= 3600 or not 0 <= interval.nanos < 1_000_000_000:
        raise InvalidField("checkpoint_interval", "must be 100 ms to 1 h")
    return seconds
