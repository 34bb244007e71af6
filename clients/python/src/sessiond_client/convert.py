"""Converts between protobuf messages and the client's values, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond_client.arguments import invalid_argument
from sessiond_client.enums import (
    CauseKind,
    DeviceType,
    EventType,
    NextStep,
    Reaction,
    RequirementKind,
    Role,
    SealingKeyState,
    SessionState,
    SignalType,
    Verdict,
)
from sessiond_client.errors import Violation
from sessiond_client.lazy import Readers, complete, lazily
from sessiond_client.questions import NOT_REQUIRED, DataRequest, Requirements
from sessiond_client.tokens import Token
from sessiond_client.values import (
    Application,
    Authentication,
    BackupFacts,
    CallerCredential,
    CallerInfo,
    Cause,
    ClientContext,
    ConcurrencyLimit,
    CookieDirectives,
    CookieRules,
    Device,
    Ending,
    Event,
    Grant,
    GuessLimits,
    KeyRing,
    Lifetimes,
    Policy,
    SealingKey,
    Session,
    SessionData,
    Signal,
    SourceLock,
    UnmetRequirement,
)
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "application",
    "authentication_message",
    "caller_info",
    "client_message",
    "concurrency_limit",
    "cookie_directives",
    "data_request_message",
    "event",
    "event_type_number",
    "fill_client",
    "grant_message",
    "key_ring",
    "lazy_session",
    "lifetimes_message",
    "moment_or_none",
    "next_step",
    "reaction",
    "reference_message",
    "requirements_message",
    "secret_text",
    "sealing_key",
    "session",
    "session_data",
    "span_or_none",
    "signal",
    "source_lock",
    "span_message",
    "state_number",
    "timestamp_message",
    "token_or_none",
    "unmet_requirement",
    "verdict",
]

E = TypeVar("E", bound=StrEnum)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _numbers(kind: type[E], wire: Any, prefix: str) -> dict[E, Any]:
    """The protobuf number of each member. Fails at import if the enumeration and the contract differ."""
    return {member: wire.Value(prefix + member.name) for member in kind}


def _reader(kind: type[E], wire: Any, prefix: str) -> Callable[[int], E]:
    """A function from a protobuf number to its member. Unknown numbers become UNSPECIFIED, as 0 does."""
    members = {number: member for member, number in _numbers(kind, wire, prefix).items()}
    unspecified = members[0]
    return lambda number: members.get(number, unspecified)


verdict = _reader(Verdict, pb.Verdict, "VERDICT_")
next_step = _reader(NextStep, pb.NextStep, "NEXT_STEP_")
_state = _reader(SessionState, pb.SessionState, "SESSION_STATE_")
_cause_kind = _reader(CauseKind, pb.CauseKind, "CAUSE_KIND_")
_signal_type = _reader(SignalType, pb.SignalType, "SIGNAL_TYPE_")
_event_type = _reader(EventType, pb.EventType, "EVENT_TYPE_")
_device_type = _reader(DeviceType, pb.DeviceType, "DEVICE_TYPE_")
_requirement_kind = _reader(RequirementKind, pb.RequirementKind, "REQUIREMENT_KIND_")
reaction = _reader(Reaction, pb.Reaction, "REACTION_")
_key_state = _reader(SealingKeyState, pb.SealingKeyState, "SEALING_KEY_STATE_")
_role = _reader(Role, pb.Role, "ROLE_")
_ROLE_NUMBERS = _numbers(Role, pb.Role, "ROLE_")
_STATE_NUMBERS = _numbers(SessionState, pb.SessionState, "SESSION_STATE_")
_EVENT_TYPE_NUMBERS = _numbers(EventType, pb.EventType, "EVENT_TYPE_")


# Values to messages


def state_number(state: SessionState | None) -> pb.SessionState.ValueType:
    """A state for a filter; None: unset."""
    number: pb.SessionState.ValueType = _STATE_NUMBERS[state or SessionState.UNSPECIFIED]
    return number


def event_type_number(kind: EventType) -> pb.EventType.ValueType:
    """An event type for a filter."""
    number: pb.EventType.ValueType = _EVENT_TYPE_NUMBERS[kind]
    return number


def grant_message(grant: Grant) -> pb.Grant:
    """A role of a caller."""
    return pb.Grant(application=grant.application, role=_ROLE_NUMBERS[grant.role])


def timestamp_message(moment: datetime | None) -> Timestamp | None:
    """A time with a time zone; None: unset."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def span_message(span: timedelta | None) -> Duration | None:
    """A duration; None: unset."""
    if span is None:
        return None
    message = Duration()
    message.FromTimedelta(span)
    return message


def secret_text(secret: str | Token | None) -> str:
    """A secret for a field of a request; None: empty."""
    if secret is None:
        return ""
    return secret.reveal() if isinstance(secret, Token) else Token(secret).reveal()


def requirements_message(requirements: Requirements | None) -> pb.Requirements | None:
    """Requirements. A required token that is missing is sent as an empty one, never as no requirement."""
    if requirements is None:
        return None
    message = pb.Requirements(
        min_level=requirements.min_level, max_authentication_age=span_message(requirements.max_authentication_age)
    )
    if requirements.companion is not None:
        purpose, companion = requirements.companion
        message.companion.CopyFrom(pb.CompanionRequirement(purpose=purpose, companion_token=secret_text(companion)))
    if requirements.csrf is not NOT_REQUIRED:
        message.csrf.CopyFrom(pb.CsrfRequirement(csrf_token=secret_text(requirements.csrf)))
    return message


def authentication_message(authentication: Authentication | None) -> pb.Authentication | None:
    """How a subject was authenticated, without the time, which the authority sets itself."""
    if authentication is None:
        return None
    return pb.Authentication(level=authentication.level, methods=authentication.methods)


def client_message(client: ClientContext | None) -> pb.ClientContext | None:
    """A client context, with a question mark for each character of its texts that the authority would reject.

    No content of a `User-Agent` header makes a call fail. An `ip_address` that is neither empty nor an address does:
    the authority rejects it with INVALID_ARGUMENT. It also rejects a `device_id` of more than 256 characters and a
    `certificate_thumbprint` that is not 32 bytes long.
    """
    if client is None:
        return None
    message = pb.ClientContext()
    fill_client(message, client)
    return message


def fill_client(message: pb.ClientContext, client: ClientContext) -> None:
    """Fill the message of a client context as `client_message` does."""
    message.ip_address = _acceptable(client.ip_address)  # even an empty text makes the message one that is set
    message.user_agent = _acceptable(client.user_agent)
    if client.certificate_thumbprint:
        message.certificate_thumbprint = client.certificate_thumbprint
    if client.device_id:
        message.device_id = _acceptable(client.device_id)


def fill_usual_client(request: pb.ValidateSessionRequest, client: Any) -> bool:
    """Fill the client of a request from a context of ASCII texts. False: it is something else; check it first."""
    if type(client) is not ClientContext:
        return False
    address, agent, device = client.ip_address, client.user_agent, client.device_id
    if not (type(address) is type(agent) is type(device) is str and type(client.certificate_thumbprint) is bytes):
        return False
    if not (address.isascii() and agent.isascii() and device.isascii()):
        return False
    if "\0" in address or "\0" in agent or "\0" in device:
        return False
    message = request.client
    message.ip_address = address
    message.user_agent = agent
    if device:
        message.device_id = device
    if client.certificate_thumbprint:
        message.certificate_thumbprint = client.certificate_thumbprint
    return True


def lifetimes_message(lifetimes: Lifetimes | None) -> pb.Lifetimes | None:
    """A session's own timeouts; None: unset."""
    if lifetimes is None:
        return None
    return pb.Lifetimes(
        idle_timeout=span_message(lifetimes.idle_timeout), absolute_timeout=span_message(lifetimes.absolute_timeout)
    )


def data_request_message(data: DataRequest | bool | None) -> pb.DataRequest | None:
    """Which session data to return: True for all, False or None for none."""
    if data is None or data is False:
        return None
    if data is True:
        return pb.DataRequest()
    return pb.DataRequest(keys=data.keys, newer_than=data.newer_than)


def reference_message(token: str | Token | None, session_id: str | None) -> pb.SessionReference:
    """A reference to one session. Raises `InvalidArgument` unless exactly one of the two is set."""
    if token is not None and session_id is None:
        return pb.SessionReference(token=Token(token).reveal())
    if session_id is not None and token is None:
        return pb.SessionReference(session_id=session_id)
    raise invalid_argument(Violation("session", "specify exactly one of token and session_id"))


def _acceptable(text: str) -> str:
    """The text with question marks for U+0000 and for lone surrogates.

    Frameworks create lone surrogates from bytes that are not UTF-8.
    """
    if text.isascii():  # the usual case
        return text.replace("\0", "?")
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


# Messages to values


def token_or_none(text: str) -> Token | None:
    """A token field; empty: None."""
    return Token(text) if text else None


def _moment_reader(name: str) -> Callable[[Any], datetime | None]:
    return lambda message: moment_or_none(message, name)


_SESSION: Readers = {
    "session_id": attrgetter("session_id"),
    "application": attrgetter("application"),
    "subject": attrgetter("subject"),
    "state": lambda message: _state(message.state),
    "generation": attrgetter("generation"),
    "create_time": lambda message: _moment(message.create_time),
    "last_active_time": lambda message: _moment(message.last_active_time),
    "idle_expire_time": _moment_reader("idle_expire_time"),
    "absolute_expire_time": _moment_reader("absolute_expire_time"),
    "login_expire_time": _moment_reader("login_expire_time"),
    "persistent": attrgetter("persistent"),
    "authentication": lambda message: (
        _authentication(message.authentication) if message.HasField("authentication") else None
    ),
    "elevation_expire_time": _moment_reader("elevation_expire_time"),
    "client": lambda message: _client(message.client),
    "last_client": lambda message: _client(message.last_client) if message.HasField("last_client") else None,
    "device": lambda message: _device(message.device) if message.HasField("device") else None,
    "last_device": lambda message: _device(message.last_device) if message.HasField("last_device") else None,
    "labels": lambda message: dict(message.labels),
    "lifetimes": lambda message: _lifetimes(message.lifetimes) if message.HasField("lifetimes") else None,
    "data_version": attrgetter("data_version"),
    "ending": lambda message: _ending(message.ending) if message.HasField("ending") else None,
}


def session(message: pb.Session) -> Session:
    """A session."""
    return complete(Session, _SESSION, message)


def lazy_session(message: pb.Session) -> Session:
    """A session that reads its fields from the message when they are needed."""
    return lazily(Session, _SESSION, message)


def session_data(message: pb.SessionData) -> SessionData:
    """Session data and its version."""
    return SessionData(values=dict(message.values), version=message.version)


def signal(message: pb.Signal) -> Signal:
    """One reason for suspicion."""
    return Signal(type=_signal_type(message.type), expected=message.expected, seen=message.seen)


def event(message: pb.Event, cursor: str = "") -> Event:
    """An event, with the `cursor` of the stream that it came on, if any."""
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
        reaction=reaction(message.reaction),
        source=message.source,
        labels=dict(message.labels),
        cursor=cursor,
    )


def unmet_requirement(message: pb.UnmetRequirement) -> UnmetRequirement:
    """One requirement that is not met."""
    return UnmetRequirement(
        kind=_requirement_kind(message.kind),
        remedy=message.remedy,
        min_level=message.min_level,
        max_authentication_age=span_or_none(message, "max_authentication_age"),
    )


def cookie_directives(message: pb.CookieDirectives) -> CookieDirectives:
    """Response headers for the client; unset ones are left out."""
    return CookieDirectives(
        set_cookie=tuple(Token(cookie) for cookie in message.set_cookie),
        cache_control=message.cache_control,
        clear_site_data=message.clear_site_data,
    )


def concurrency_limit(message: pb.ConcurrencyLimit) -> ConcurrencyLimit:
    """The limit of concurrent sessions that a login has reached."""
    return ConcurrencyLimit(
        max_sessions=message.max_sessions,
        live_sessions=tuple(session(item) for item in message.live_sessions),
        ticket=token_or_none(message.ticket),
        ticket_expire_time=moment_or_none(message, "ticket_expire_time"),
        live_count=message.live_count,
    )


def caller_info(message: pb.CallerInfo) -> CallerInfo:
    """A caller."""
    return CallerInfo(
        name=message.name,
        grants=tuple(Grant(role=_role(grant.role), application=grant.application) for grant in message.grants),
        credentials=tuple(
            CallerCredential(
                id=credential.id,
                create_time=_moment(credential.create_time),
                expire_time=moment_or_none(credential, "expire_time"),
                certificate_name=credential.certificate_name,
            )
            for credential in message.credentials
        ),
        create_time=_moment(message.create_time),
    )


def sealing_key(message: pb.SealingKey) -> SealingKey:
    """A key of the key ring."""
    return SealingKey(
        fingerprint=message.fingerprint,
        state=_key_state(message.state),
        state_time=moment_or_none(message, "state_time"),
        holding_replicas=tuple(message.holding_replicas),
        lacking_replicas=tuple(message.lacking_replicas),
        live_tokens=message.live_tokens if message.HasField("live_tokens") else None,
        tokens_partial=message.tokens_partial,
        tokens_end_time=moment_or_none(message, "tokens_end_time"),
        tickets_end_time=moment_or_none(message, "tickets_end_time"),
        sealed_values=message.sealed_values,
        moved_values=message.moved_values,
        logs_out_sessions=message.logs_out_sessions,
    )


def key_ring(message: pb.GetKeyRingResponse) -> KeyRing:
    """The key ring."""
    return KeyRing(
        keys=tuple(map(sealing_key, message.keys)),
        source=message.source,
        change=message.change,
        encrypts_data=message.encrypts_data,
        plain_values=message.plain_values,
        values_partial=message.values_partial,
    )


def backup_facts(message: pb.BackupStarted) -> BackupFacts:
    """What a backup is of."""
    return BackupFacts(
        time=_moment(message.time),
        size=message.size,
        authority_id=message.authority_id,
        revision=message.revision,
        server_version=message.server_version,
        schema_version=message.schema_version,
        key_fingerprints=tuple(message.key_fingerprints),
    )


def source_lock(message: pb.SourceLock) -> SourceLock:
    """A locked source."""
    return SourceLock(
        source=message.source,
        application=message.application,
        lock_time=_moment(message.lock_time),
        expire_time=_moment(message.expire_time),
    )


def application(message: pb.Application) -> Application:
    """An application and its effective policy."""
    return Application(name=message.name, policy=_policy(message.policy))


def _policy(policy: pb.Policy) -> Policy:
    return Policy(
        preset=policy.preset,
        idle_timeout=span_or_none(policy, "idle_timeout"),
        absolute_timeout=span_or_none(policy, "absolute_timeout"),
        renewal_timeout=span_or_none(policy, "renewal_timeout"),
        renewal_overlap=_span(policy.renewal_overlap),
        roll_tolerance=_span(policy.roll_tolerance),
        lost_answer_tolerance=_span(policy.lost_answer_tolerance),
        refresh_extends_lifetime=policy.refresh_extends_lifetime,
        retention=_span(policy.retention),
        anonymous_retention=_span(policy.anonymous_retention),
        answer_retention=_span(policy.answer_retention),
        max_data_bytes=policy.max_data_bytes,
        login_timeout=_span(policy.login_timeout),
        remember_idle_timeout=span_or_none(policy, "remember_idle_timeout"),
        remember_absolute_timeout=span_or_none(policy, "remember_absolute_timeout"),
        remember_level=policy.remember_level,
        elevation_timeout=_span(policy.elevation_timeout),
        csrf_overlap=_span(policy.csrf_overlap),
        max_sessions=policy.max_sessions,
        on_limit=policy.on_limit,
        ticket_timeout=_span(policy.ticket_timeout),
        companion_timeout=_span(policy.companion_timeout),
        related_agents=tuple(tuple(group.agents) for group in policy.related_agents),
        ipv4_prefix=policy.ipv4_prefix,
        ipv6_prefix=policy.ipv6_prefix,
        concurrent_use_window=_span(policy.concurrent_use_window),
        fold_window=_span(policy.fold_window),
        reactions=_reactions(policy.reactions),
        guessing=_guess_limits(policy.guessing),
        cookie=_cookie_rules(policy.cookie),
        origins=dict(policy.origins),
    )


def _reactions(by_name: Mapping[str, int]) -> Mapping[SignalType, Reaction]:
    return {
        SignalType[name.upper()]: reaction(number)
        for name, number in by_name.items()
        if name.upper() in SignalType.__members__
    }


def _guess_limits(message: pb.GuessLimits) -> GuessLimits:
    return GuessLimits(
        alarm_after=message.alarm_after,
        lock_after=message.lock_after,
        flood_after=message.flood_after,
        window=_span(message.window),
        lock_time=_span(message.lock_time),
        deny_valid=message.deny_valid,
    )


def _cookie_rules(message: pb.CookieRules) -> CookieRules:
    return CookieRules(
        name=message.name,
        anonymous_name=message.anonymous_name,
        secure=message.secure,
        same_site=message.same_site,
        path=message.path,
        clear_site_data=tuple(message.clear_site_data),
        partitioned=message.partitioned,
        browser_name=message.browser_name,
        browser_anonymous_name=message.browser_anonymous_name,
    )


def moment_or_none(message: Message, name: str) -> datetime | None:
    """The time field of a message with this name; unset: None."""
    return _moment(getattr(message, name)) if message.HasField(name) else None


def span_or_none(message: Message, name: str) -> timedelta | None:
    """The duration field of a message with this name; unset: None."""
    return _span(getattr(message, name)) if message.HasField(name) else None


def _moment(message: Timestamp) -> datetime:
    return _EPOCH + timedelta(0, message.seconds, message.nanos // 1_000)  # ToDatetime takes three times as long


def _span(message: Duration) -> timedelta:
    return message.ToTimedelta()


def _client(message: pb.ClientContext) -> ClientContext:
    return ClientContext(
        ip_address=message.ip_address,
        user_agent=message.user_agent,
        certificate_thumbprint=message.certificate_thumbprint,
        device_id=message.device_id,
    )


def _device(message: pb.Device) -> Device:
    return Device(description=message.description, type=_device_type(message.type))


def _lifetimes(message: pb.Lifetimes) -> Lifetimes:
    return Lifetimes(
        idle_timeout=span_or_none(message, "idle_timeout"),
        absolute_timeout=span_or_none(message, "absolute_timeout"),
    )


def _authentication(message: pb.Authentication) -> Authentication:
    return Authentication(
        level=message.level,
        methods=tuple(message.methods),
        authenticate_time=moment_or_none(message, "authenticate_time"),
    )


def _cause(message: pb.Cause) -> Cause:
    return Cause(kind=_cause_kind(message.kind), actor=message.actor, reason=message.reason)


def _ending(message: pb.Ending) -> Ending:
    return Ending(end_time=_moment(message.end_time), cause=_cause(message.cause))
