"""Messages to domain values and back. Everything that callers send is checked here, field by field."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond.authority import Answer, Named
from sessiond.domain.errors import InvalidField
from sessiond.domain.event import Event, EventFilter, EventType
from sessiond.domain.judge import Verdict
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session, SessionState
from sessiond.domain.signals import Signal, SignalType
from sessiond.domain.values import Authentication, Cause, CauseKind, ClientContext, Instant, SessionId
from sessiond.store import SessionQuery
from sessiond.tokens import Token
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "VERDICT",
    "application",
    "authentication",
    "checkpoint_interval",
    "client",
    "data_changes",
    "event_filter",
    "event_message",
    "fill_event",
    "fill_session",
    "first_data",
    "named_session",
    "next_step",
    "page_size",
    "policy_message",
    "reason",
    "session_id",
    "session_message",
    "session_query",
    "set_activity",
    "signal_messages",
    "subject",
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
_NOBODY = ClientContext()

VERDICT: Mapping[Verdict, pb.Verdict.ValueType] = MappingProxyType(
    {verdict: pb.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict}
)
_STATE = {state: pb.SessionState.Value(f"SESSION_STATE_{state.name}") for state in SessionState}
_STATE_BACK = {value: state for state, value in _STATE.items()} | {pb.SESSION_STATE_UNSPECIFIED: SessionState.ACTIVE}
_CAUSE_KIND = {kind: pb.CauseKind.Value(f"CAUSE_KIND_{kind.name}") for kind in CauseKind}
_EVENT_TYPE = {kind: pb.EventType.Value(f"EVENT_TYPE_{kind.name}") for kind in EventType}
_EVENT_TYPE_BACK = {value: kind for kind, value in _EVENT_TYPE.items()}
_SIGNAL_TYPE = {kind: pb.SignalType.Value(f"SIGNAL_TYPE_{kind.name}") for kind in SignalType}


# From messages


def _text(field: str, value: str, most: int = _MAX_TEXT) -> str:
    if len(value) > most:
        raise InvalidField(field, f"has {len(value)} characters, at most {most} are allowed")
    return value


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
        raise InvalidField(field, "is not a session id (a UUID in its canonical lower-case form)") from None


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
    try:
        parsed = ipaddress.ip_address(_text("client.ip_address", value, _MAX_ADDRESS))
    except ValueError:
        raise InvalidField("client.ip_address", "is not an IPv4 or IPv6 address") from None
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
        return _NOBODY
    if thumbprint and len(thumbprint) != 32:
        raise InvalidField("client.certificate_thumbprint", "must be a SHA-256 digest of 32 bytes")
    return ClientContext(
        ip_address=_address(address) if address else "",
        user_agent=agent,
        certificate_thumbprint=thumbprint,
        device_id=_text("client.device_id", device),
    )


def authentication(message: pb.Authentication) -> tuple[int, tuple[str, ...]]:
    """Level and methods."""
    if not 0 <= message.level <= _MAX_LEVEL:
        raise InvalidField("authentication.level", f"must be 0 to {_MAX_LEVEL}")
    methods = tuple(message.methods)
    if len(methods) > _MAX_METHODS:
        raise InvalidField("authentication.methods", f"has {len(methods)} entries, at most {_MAX_METHODS} are allowed")
    for method in methods:
        if not method or len(method) > _MAX_METHOD or not method.isprintable() or " " in method:
            raise InvalidField("authentication.methods", f"each must be a word of 1 to {_MAX_METHOD} characters")
    return message.level, methods


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
        raise InvalidField("page_size", f"must be 1 to {_MAX_PAGE}, or 0 for {_DEFAULT_PAGE}")
    return value or _DEFAULT_PAGE


def session_query(name: str, message: pb.SessionFilter, now: Instant) -> SessionQuery:
    """Which sessions."""
    if message.state not in _STATE_BACK:
        raise InvalidField("filter.state", f"{message.state} is no SessionState")
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
        raise InvalidField("filter.ip_network", "is neither an address nor a network in CIDR form") from None
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
            raise InvalidField("filter.types", f"{value} is no EventType")
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


# To messages


# Fields are set on the message that is there, submessages included: built apart and copied in, as keyword arguments do,
# a session costs three times as much, and it is in every validation's answer.


def _set_time(field: Timestamp, at: int) -> None:
    field.seconds = at // 1000
    field.nanos = at % 1000 * 1_000_000


def _duration(millis: int | None) -> Duration | None:
    if millis is None:
        return None
    duration = Duration()
    duration.FromTimedelta(timedelta(milliseconds=millis))
    return duration


def session_message(session: Session) -> pb.Session:
    """What callers may see of a session, in the state that it is in."""
    message = pb.Session()
    fill_session(message, session)
    return message


def fill_session(message: pb.Session, session: Session) -> None:
    """The same, into a message that is there."""
    message.session_id = str(session.id)
    message.application = session.application
    message.subject = session.subject
    message.state = _STATE[session.state]
    message.generation = session.generation
    message.data_version = session.data_version
    _set_time(message.create_time, session.created)
    _set_time(message.last_active_time, session.last_active)
    if session.idle_deadline is not None:
        _set_time(message.idle_expire_time, session.idle_deadline)
    if session.absolute_deadline is not None:
        _set_time(message.absolute_expire_time, session.absolute_deadline)
    if session.authentication is not None:
        _fill_authentication(message.authentication, session.authentication)
    if session.client != _NOBODY:
        _fill_client(message.client, session.client)
    if session.ending is not None:
        _set_time(message.ending.end_time, session.ending.at)
        _fill_cause(message.ending.cause, session.ending.cause)


def _fill_authentication(message: pb.Authentication, value: Authentication) -> None:
    message.level = value.level
    message.methods.extend(value.methods)
    _set_time(message.authenticate_time, value.at)


def _fill_client(message: pb.ClientContext, context: ClientContext) -> None:
    message.ip_address = context.ip_address
    message.user_agent = context.user_agent
    message.certificate_thumbprint = context.certificate_thumbprint
    message.device_id = context.device_id


def _fill_cause(message: pb.Cause, cause: Cause) -> None:
    message.kind = _CAUSE_KIND[cause.kind]
    message.actor = cause.actor
    message.reason = cause.reason


def signal_messages(signals: Sequence[Signal]) -> list[pb.Signal]:
    """Reasons for suspicion."""
    return [pb.Signal(type=_SIGNAL_TYPE[s.type], expected=s.expected, seen=s.seen) for s in signals]


def next_step(answer: Answer) -> pb.NextStep.ValueType:
    """What the caller should do next."""
    if answer.verdict is Verdict.VALID:
        return pb.NEXT_STEP_PROCEED if answer.renewed is None else pb.NEXT_STEP_REPLACE_TOKEN
    return pb.NEXT_STEP_KEEP_TOKEN if answer.verdict is Verdict.SUPERSEDED else pb.NEXT_STEP_DISCARD_TOKEN


def set_activity(message: pb.Session, at: Instant, idle_deadline: Instant | None) -> None:
    """Activity that is later than the session's own."""
    if at > message.last_active_time.seconds * 1000 + message.last_active_time.nanos // 1_000_000:
        _set_time(message.last_active_time, at)
        if idle_deadline is not None:
            _set_time(message.idle_expire_time, idle_deadline)


def event_message(event: Event) -> pb.Event:
    """An event."""
    message = pb.Event()
    fill_event(message, event)
    return message


def fill_event(message: pb.Event, event: Event) -> None:
    """The same, into a message that is there."""
    message.revision = event.revision
    message.type = _EVENT_TYPE[event.type]
    _set_time(message.event_time, event.at)
    message.application = event.application
    message.subject = event.subject
    message.session_id = "" if event.session_id is None else str(event.session_id)
    message.generation = event.generation
    _fill_cause(message.cause, event.cause)
    if event.client != _NOBODY:
        _fill_client(message.client, event.client)
    if event.authentication is not None:
        _fill_authentication(message.authentication, event.authentication)
    message.signals.extend(signal_messages(event.signals))


def policy_message(policy: Policy) -> pb.Policy:
    """The rules of an application, as they are in force."""
    return pb.Policy(
        preset=policy.preset,
        idle_timeout=_duration(policy.idle_timeout),
        absolute_timeout=_duration(policy.absolute_timeout),
        renewal_timeout=_duration(policy.renewal_timeout),
        renewal_overlap=_duration(policy.renewal_overlap),
        roll_tolerance=_duration(policy.roll_tolerance),
        refresh_extends_lifetime=policy.refresh_extends_lifetime,
        retention=_duration(policy.retention),
        max_data_bytes=policy.max_data_bytes,
    )
