"""Conversion of domain values to messages.

Fields are set on an existing message, submessages included. Building submessages separately and copying them in, as
keyword arguments do, takes three times as long for a session, and every response to a validation contains one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond.authority.key_ring import RingDescription
from sessiond.authority.results import Limit, ValidationResult
from sessiond.detection.devices import describe
from sessiond.detection.guesses import SourceLock
from sessiond.domain.access import CallerRecord, CredentialKind
from sessiond.domain.device import Device, DeviceType
from sessiond.domain.event import Event, EventType
from sessiond.domain.judge import Verdict
from sessiond.domain.key_ring import SealingKey
from sessiond.domain.policy import Policy
from sessiond.domain.requirements import RequirementKind, Unmet
from sessiond.domain.session import Activity, Session, SessionState
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import (
    NOBODY,
    POLICY_LIFETIMES,
    Authentication,
    Cause,
    CauseKind,
    ClientContext,
    Lifetimes,
    VersionedData,
)
from sessiond.rpc.cookies import browser_name
from sessiond.rpc.pages import fitting
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = [
    "caller_message",
    "key_message",
    "ring_message",
    "REACTION",
    "VERDICT",
    "event_message",
    "fill_data",
    "fill_device",
    "fill_event",
    "fill_limit",
    "fill_session",
    "lock_message",
    "next_step",
    "policy_message",
    "session_message",
    "set_activity",
    "set_time",
    "signal_messages",
    "unmet_messages",
]


VERDICT: Mapping[Verdict, pb.Verdict.ValueType] = MappingProxyType(
    {verdict: pb.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict}
)
REACTION: Mapping[Reaction, pb.Reaction.ValueType] = MappingProxyType(
    {reaction: pb.Reaction.Value(f"REACTION_{reaction.name}") for reaction in Reaction}
)
_DEVICE_TYPE = {kind: pb.DeviceType.Value(f"DEVICE_TYPE_{kind.name}") for kind in DeviceType}
_STATE = {state: pb.SessionState.Value(f"SESSION_STATE_{state.name}") for state in SessionState}
_CAUSE_KIND = {kind: pb.CauseKind.Value(f"CAUSE_KIND_{kind.name}") for kind in CauseKind}
_EVENT_TYPE = {kind: pb.EventType.Value(f"EVENT_TYPE_{kind.name}") for kind in EventType}
_SIGNAL_TYPE = {kind: pb.SignalType.Value(f"SIGNAL_TYPE_{kind.name}") for kind in SignalType}
_REQUIREMENT = {kind: pb.RequirementKind.Value(f"REQUIREMENT_KIND_{kind.name}") for kind in RequirementKind}


def set_time(field: Timestamp, at: int) -> None:
    """Set a timestamp field to a time in milliseconds since the Unix epoch."""
    field.seconds = at // 1000
    field.nanos = at % 1000 * 1_000_000


def set_duration(field: Duration, millis: int) -> None:
    """Set a duration field."""
    field.seconds = millis // 1000
    field.nanos = millis % 1000 * 1_000_000


def _duration(millis: int | None) -> Duration | None:
    if millis is None:
        return None
    duration = Duration()
    duration.FromTimedelta(timedelta(milliseconds=millis))
    return duration


def caller_message(caller: CallerRecord) -> pb.CallerInfo:
    """Return the message that shows a caller, without anything that proves to be it."""
    message = pb.CallerInfo(name=caller.name)
    for application, role in sorted(caller.grants):
        message.grants.add(application=application, role=pb.Role.Value(f"ROLE_{role.name}"))
    for credential in caller.credentials:
        shown = message.credentials.add(id=credential.id)
        if credential.kind is CredentialKind.CERTIFICATE:
            shown.certificate_name = credential.id
        set_time(shown.create_time, credential.created)
        if credential.expires is not None:
            set_time(shown.expire_time, credential.expires)
    set_time(message.create_time, caller.created)
    return message


def key_message(key: SealingKey) -> pb.SealingKey:
    """Return the message that shows a key of the key ring, without the key itself."""
    state = pb.SealingKeyState.Value(f"SEALING_KEY_STATE_{key.state.name}")
    message = pb.SealingKey(
        fingerprint=key.fingerprint.hex(), state=state, moved_values=key.moved, logs_out_sessions=key.log_out
    )
    if key.since is not None:
        set_time(message.state_time, key.since)
    return message


def ring_message(ring: RingDescription) -> pb.GetKeyRingResponse:
    """Return the message that shows the key ring."""
    message = pb.GetKeyRingResponse(
        source=ring.source,
        change=ring.change,
        encrypts_data=ring.encrypts,
        plain_values=ring.plain,
        values_partial=ring.is_partial,
    )
    for usage in ring.keys:
        shown = message.keys.add()
        shown.CopyFrom(key_message(usage.key))
        shown.holding_replicas.extend(usage.held_by)
        shown.lacking_replicas.extend(usage.missing_at)
        shown.sealed_values = usage.values
        if usage.tokens is not None:
            shown.live_tokens = usage.tokens.count
            shown.tokens_partial = usage.tokens.is_partial
            if usage.tokens.until is not None:
                set_time(shown.tokens_end_time, usage.tokens.until)
        if usage.needed_until is not None:
            set_time(shown.tickets_end_time, usage.needed_until)
    return message


def session_message(session: Session) -> pb.Session:
    """Return the message that shows a session to callers."""
    message = pb.Session()
    fill_session(message, session)
    return message


def fill_session(message: pb.Session, session: Session) -> None:
    """Fill an empty message with a session, as callers may see it."""
    message.session_id = str(session.id)
    message.application = session.application
    message.subject = session.subject
    message.state = _STATE[session.state]
    message.generation = session.generation
    message.data_version = session.data_version
    set_time(message.create_time, session.created)
    set_time(message.last_active_time, session.last_active)
    if session.idle_deadline is not None:
        set_time(message.idle_expire_time, session.idle_deadline)
    if session.absolute_deadline is not None:
        set_time(message.absolute_expire_time, session.absolute_deadline)
    if session.authentication is not None:
        _fill_authentication(message.authentication, session.authentication)
    message.MergeFrom(_clients(session.client, session.last_client))
    if session.labels:
        message.labels.update(session.labels)
    if session.lifetimes is not POLICY_LIFETIMES:
        _fill_lifetimes(message.lifetimes, session.lifetimes)
    if session.persistent:
        message.persistent = True
    if session.login_page and session.absolute_deadline is not None:
        set_time(message.login_expire_time, session.absolute_deadline)
    if session.elevation is not None:
        set_time(message.elevation_expire_time, session.elevation.until)
    if session.ending is not None:
        set_time(message.ending.end_time, session.ending.at)
        _fill_cause(message.ending.cause, session.ending.cause)


@lru_cache(maxsize=1_000)
def _clients(first: ClientContext, last: ClientContext) -> pb.Session:
    """Return a message with a session's clients and their devices, to copy from.

    It is cached because many sessions have the same clients. The caller must not change it.
    """
    message = pb.Session()
    if first != NOBODY:
        _fill_client(message.client, first)
        fill_device(message.device, describe(first.user_agent))
    if last != NOBODY:
        _fill_client(message.last_client, last)
        fill_device(message.last_device, describe(last.user_agent))
    return message


def _fill_lifetimes(message: pb.Lifetimes, lifetimes: Lifetimes) -> None:
    if lifetimes.idle is not None:
        message.idle_timeout.FromMilliseconds(lifetimes.idle)
    if lifetimes.absolute is not None:
        message.absolute_timeout.FromMilliseconds(lifetimes.absolute)


def _fill_authentication(message: pb.Authentication, value: Authentication) -> None:
    message.level = value.level
    message.methods.extend(value.methods)
    set_time(message.authenticate_time, value.at)


def _fill_client(message: pb.ClientContext, context: ClientContext) -> None:
    message.ip_address = context.ip_address
    message.user_agent = context.user_agent
    message.certificate_thumbprint = context.certificate_thumbprint
    message.device_id = context.device_id


def fill_device(message: pb.Device, device: Device) -> None:
    """Fill a message with the description of a device."""
    message.description = device.description
    message.type = _DEVICE_TYPE[device.type]


def _fill_cause(message: pb.Cause, cause: Cause) -> None:
    message.kind = _CAUSE_KIND[cause.kind]
    message.actor = cause.actor
    message.reason = cause.reason


def signal_messages(signals: Sequence[Signal]) -> list[pb.Signal]:
    """Return the messages of signals."""
    return [pb.Signal(type=_SIGNAL_TYPE[s.type], expected=s.expected, seen=s.seen) for s in signals]


def unmet_messages(unmet: Sequence[Unmet]) -> list[pb.UnmetRequirement]:
    """Return the messages of unmet requirements, each with its remedy."""
    return [
        pb.UnmetRequirement(
            kind=_REQUIREMENT[one.kind],
            remedy=one.remedy,
            min_level=one.min_level,
            max_authentication_age=_duration(one.max_age),
        )
        for one in unmet
    ]


_STEP_UP = (RequirementKind.LEVEL, RequirementKind.AUTHENTICATION_AGE, RequirementKind.REAUTHENTICATION)


def next_step(answer: ValidationResult) -> pb.NextStep.ValueType:
    """Return what the caller should do next."""
    if answer.judgement.in_flight or answer.judgement.keeps_token:
        return pb.NEXT_STEP_KEEP_TOKEN
    match answer.verdict:
        case Verdict.VALID if answer.renewed is None:
            return pb.NEXT_STEP_PROCEED
        case Verdict.VALID:
            return pb.NEXT_STEP_REPLACE_TOKEN
        case Verdict.INSUFFICIENT if any(one.kind in _STEP_UP for one in answer.unmet):
            return pb.NEXT_STEP_STEP_UP
        case Verdict.INSUFFICIENT | Verdict.SUPERSEDED | Verdict.LOCKED:
            return pb.NEXT_STEP_KEEP_TOKEN
        case _:
            return pb.NEXT_STEP_DISCARD_TOKEN


def set_activity(message: pb.Session, session: Session, activity: Activity) -> None:
    """Set a session message's activity fields, if `activity` is later than the session's last activity."""
    if activity.at <= session.last_active:
        return
    set_time(message.last_active_time, activity.at)
    if activity.idle_deadline is not None:
        set_time(message.idle_expire_time, activity.idle_deadline)
    client, before = activity.client, session.last_client
    if client is not None and (before.ip_address, before.user_agent) != (client.ip_address, client.user_agent):
        shown = message.last_client
        shown.ip_address, shown.user_agent = client.ip_address, client.user_agent
        fill_device(message.last_device, describe(client.user_agent))


def event_message(event: Event) -> pb.Event:
    """Return the message of an event."""
    message = pb.Event()
    fill_event(message, event)
    return message


def fill_event(message: pb.Event, event: Event) -> None:
    """Fill an empty message with an event."""
    message.revision = event.revision
    message.type = _EVENT_TYPE[event.type]
    set_time(message.event_time, event.at)
    message.application = event.application
    message.subject = event.subject
    message.session_id = "" if event.session_id is None else str(event.session_id)
    message.generation = event.generation
    _fill_cause(message.cause, event.cause)
    if event.client != NOBODY:
        _fill_client(message.client, event.client)
    if event.authentication is not None:
        _fill_authentication(message.authentication, event.authentication)
    if event.signals:
        message.signals.extend(signal_messages(event.signals))
    if event.reaction is not None:
        message.reaction = REACTION[event.reaction]
    if event.source:
        message.source = event.source
    if event.labels:
        message.labels.update(event.labels)


def batch_message(events: Sequence[Event]) -> bytes:
    """Return the part of an encoded FollowResponse that has these events. It is the same for every cache."""
    message = pb.FollowResponse()
    message.batch.SetInParent()
    for event in events:
        fill_event(message.batch.events.add(), event)
    return message.SerializeToString()


def fill_data(message: pb.SessionData, data: VersionedData) -> None:
    """Fill a message with session data and its version."""
    message.SetInParent()  # present even if there is no data and the version is 0
    message.version = data.version
    for key, value in data.values.items():
        message.values[key] = value


def fill_limit(message: pb.ConcurrencyLimit, limit: Limit) -> None:
    """Fill a message with the limit that refused a login, the live sessions, and the ticket for a retry."""
    message.max_sessions = limit.max_sessions
    message.live_count = limit.live_count
    message.live_sessions.extend(fitting(map(session_message, limit.live)))
    if limit.ticket is not None and limit.ticket_expires is not None:
        message.ticket = limit.ticket.reveal()
        set_time(message.ticket_expire_time, limit.ticket_expires)


def lock_message(lock: SourceLock) -> pb.SourceLock:
    """Return the message of a locked source."""
    message = pb.SourceLock(source=lock.source, application=lock.application)
    set_time(message.lock_time, lock.locked)
    set_time(message.expire_time, lock.until)
    return message


def policy_message(policy: Policy, origins: Mapping[str, str]) -> pb.Policy:
    """Return the message of an application's effective policy. `origins` names the source of each setting."""
    guessing, cookie = policy.guessing, policy.cookie
    return pb.Policy(
        preset=policy.preset,
        idle_timeout=_duration(policy.idle_timeout),
        absolute_timeout=_duration(policy.absolute_timeout),
        renewal_timeout=_duration(policy.renewal_timeout),
        renewal_overlap=_duration(policy.renewal_overlap),
        roll_tolerance=_duration(policy.roll_tolerance),
        lost_answer_tolerance=_duration(policy.lost_answer_tolerance),
        refresh_extends_lifetime=policy.refresh_extends_lifetime,
        retention=_duration(policy.retention),
        anonymous_retention=_duration(policy.anonymous_retention),
        answer_retention=_duration(policy.answer_retention),
        max_data_bytes=policy.max_data_bytes,
        login_timeout=_duration(policy.login_timeout),
        remember_idle_timeout=_duration(policy.remember_idle_timeout),
        remember_absolute_timeout=_duration(policy.remember_absolute_timeout),
        remember_level=policy.remember_level,
        elevation_timeout=_duration(policy.elevation_timeout),
        csrf_overlap=_duration(policy.csrf_overlap),
        max_sessions=policy.max_sessions,
        on_limit=policy.on_limit.value,
        ticket_timeout=_duration(policy.ticket_timeout),
        companion_timeout=_duration(policy.companion_timeout),
        related_agents=[pb.AgentGroup(agents=group) for group in policy.related_agents],
        ipv4_prefix=policy.ipv4_prefix,
        ipv6_prefix=policy.ipv6_prefix,
        concurrent_use_window=_duration(policy.concurrent_use_window),
        fold_window=_duration(policy.fold_window),
        reactions={signal.value: REACTION[reaction] for signal, reaction in policy.reactions.items()},
        guessing=pb.GuessLimits(
            alarm_after=guessing.alarm_after,
            lock_after=guessing.lock_after,
            flood_after=guessing.flood_after,
            window=_duration(guessing.window),
            lock_time=_duration(guessing.lock_time),
            deny_valid=guessing.deny_valid,
        ),
        cookie=pb.CookieRules(
            name=cookie.name,
            anonymous_name=cookie.anonymous_name,
            secure=cookie.secure,
            same_site=cookie.same_site,
            path=cookie.path,
            clear_site_data=cookie.clear_site_data,
            browser_name=browser_name(cookie, anonymous=False),
            browser_anonymous_name=browser_name(cookie, anonymous=True),
            partitioned=cookie.partitioned,
        ),
        # Only the name of the configuration file is shown: callers need not know its folder.
        origins={key: origin.rpartition("/")[2] for key, origin in origins.items()},
    )
