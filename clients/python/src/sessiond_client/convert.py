"""Between messages and values: the one place that knows both. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond_client.enums import CauseKind, EventType, NextStep, SessionState, SignalType, Verdict
from sessiond_client.tokens import Token
from sessiond_client.values import (
    Application,
    Authentication,
    Cause,
    ClientContext,
    Ending,
    Event,
    Policy,
    Session,
    Signal,
)
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "application",
    "authentication_message",
    "client_message",
    "event",
    "event_type_number",
    "next_step",
    "reference_message",
    "session",
    "signal",
    "state_number",
    "timestamp_message",
    "token_or_none",
    "verdict",
]

E = TypeVar("E", bound=StrEnum)


def _numbers(kind: type[E], wire: Any, prefix: str) -> dict[E, Any]:
    """The number of each word on the wire. Fails at import where the two have drifted apart."""
    return {member: wire.Value(prefix + member.name) for member in kind}


def _reader(kind: type[E], wire: Any, prefix: str) -> Callable[[int], E]:
    """A function from a number to its word; a number nobody knows yet is UNSPECIFIED, as number 0 is."""
    words = {number: member for member, number in _numbers(kind, wire, prefix).items()}
    unspecified = words[0]
    return lambda number: words.get(number, unspecified)


verdict = _reader(Verdict, pb.Verdict, "VERDICT_")
next_step = _reader(NextStep, pb.NextStep, "NEXT_STEP_")
_state = _reader(SessionState, pb.SessionState, "SESSION_STATE_")
_cause_kind = _reader(CauseKind, pb.CauseKind, "CAUSE_KIND_")
_signal_type = _reader(SignalType, pb.SignalType, "SIGNAL_TYPE_")
_event_type = _reader(EventType, pb.EventType, "EVENT_TYPE_")
_STATE_NUMBERS = _numbers(SessionState, pb.SessionState, "SESSION_STATE_")
_EVENT_TYPE_NUMBERS = _numbers(EventType, pb.EventType, "EVENT_TYPE_")


# Values to messages


def state_number(state: SessionState | None) -> pb.SessionState.ValueType:
    """A state for a filter; None sets no condition."""
    number: pb.SessionState.ValueType = _STATE_NUMBERS[state or SessionState.UNSPECIFIED]
    return number


def event_type_number(kind: EventType) -> pb.EventType.ValueType:
    """A type for a filter."""
    number: pb.EventType.ValueType = _EVENT_TYPE_NUMBERS[kind]
    return number


def timestamp_message(moment: datetime | None) -> Timestamp | None:
    """A moment. Raises ValueError for a naive one, which could be any zone's."""
    if moment is None:
        return None
    if moment.utcoffset() is None:
        raise ValueError("a time needs a time zone: use an aware datetime")
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def authentication_message(authentication: Authentication | None) -> pb.Authentication | None:
    """How a subject was authenticated; the authority sets the time itself."""
    if authentication is None:
        return None
    return pb.Authentication(level=authentication.level, methods=authentication.methods)


def client_message(client: ClientContext | None) -> pb.ClientContext | None:
    """A client context. What the client says of itself may be any bytes; it must not be able to break the call."""
    if client is None:
        return None
    return pb.ClientContext(
        ip_address=_sound(client.ip_address),
        user_agent=_sound(client.user_agent),
        certificate_thumbprint=client.certificate_thumbprint,
        device_id=_sound(client.device_id),
    )


def reference_message(token: str | Token | None, session_id: str | None) -> pb.SessionReference:
    """A reference to one session. Raises TypeError unless exactly one of the two is given."""
    if token is not None and session_id is None:
        return pb.SessionReference(token=Token(token).reveal())
    if session_id is not None and token is None:
        return pb.SessionReference(session_id=session_id)
    raise TypeError("name the session by exactly one of token and session_id")


def _sound(text: str) -> str:
    """Text with a UTF-8 form: lone surrogates, as WSGI makes of odd header bytes, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


# Messages to values


def token_or_none(text: str) -> Token | None:
    """A token field; empty means unset."""
    return Token(text) if text else None


def session(message: pb.Session) -> Session:
    """What callers may see of a session."""
    return Session(
        session_id=message.session_id,
        application=message.application,
        subject=message.subject,
        state=_state(message.state),
        generation=message.generation,
        create_time=_moment(message.create_time),
        last_active_time=_moment(message.last_active_time),
        idle_expire_time=_moment(message.idle_expire_time) if message.HasField("idle_expire_time") else None,
        absolute_expire_time=_moment(message.absolute_expire_time)
        if message.HasField("absolute_expire_time")
        else None,
        authentication=_authentication(message.authentication) if message.HasField("authentication") else None,
        client=_client(message.client),
        data_version=message.data_version,
        ending=_ending(message.ending) if message.HasField("ending") else None,
    )


def signal(message: pb.Signal) -> Signal:
    """One reason for suspicion."""
    return Signal(type=_signal_type(message.type), expected=message.expected, seen=message.seen)


def event(message: pb.Event, cursor: str = "") -> Event:
    """One fact of the lifecycle; `cursor` where it came on a stream."""
    return Event(
        revision=message.revision,
        type=_event_type(message.type),
        event_time=_moment(message.event_time),
        application=message.application,
        subject=message.subject,
        session_id=message.session_id,
        cause=_cause(message.cause),
        client=_client(message.client),
        generation=message.generation,
        authentication=_authentication(message.authentication) if message.HasField("authentication") else None,
        signals=tuple(signal(item) for item in message.signals),
        cursor=cursor,
    )


def application(message: pb.Application) -> Application:
    """One application and its policy in force."""
    policy = message.policy
    return Application(
        name=message.name,
        policy=Policy(
            preset=policy.preset,
            idle_timeout=_span(policy.idle_timeout) if policy.HasField("idle_timeout") else None,
            absolute_timeout=_span(policy.absolute_timeout) if policy.HasField("absolute_timeout") else None,
            renewal_timeout=_span(policy.renewal_timeout) if policy.HasField("renewal_timeout") else None,
            renewal_overlap=_span(policy.renewal_overlap),
            roll_tolerance=_span(policy.roll_tolerance),
            refresh_extends_lifetime=policy.refresh_extends_lifetime,
            retention=_span(policy.retention),
            max_data_bytes=policy.max_data_bytes,
        ),
    )


def _moment(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)


def _span(message: Duration) -> timedelta:
    return message.ToTimedelta()


def _client(message: pb.ClientContext) -> ClientContext:
    return ClientContext(
        ip_address=message.ip_address,
        user_agent=message.user_agent,
        certificate_thumbprint=message.certificate_thumbprint,
        device_id=message.device_id,
    )


def _authentication(message: pb.Authentication) -> Authentication:
    return Authentication(
        level=message.level,
        methods=tuple(message.methods),
        authenticate_time=_moment(message.authenticate_time) if message.HasField("authenticate_time") else None,
    )


def _cause(message: pb.Cause) -> Cause:
    return Cause(kind=_cause_kind(message.kind), actor=message.actor, reason=message.reason)


def _ending(message: pb.Ending) -> Ending:
    return Ending(end_time=_moment(message.end_time), cause=_cause(message.cause))
