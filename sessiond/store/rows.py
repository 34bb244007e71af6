"""Conversion between rows and domain values, shared by every engine. No other module knows both."""

from __future__ import annotations

import ipaddress
import json
from functools import lru_cache
from typing import Any, Protocol

from sessiond.domain.access import CallerRecord, Credential, CredentialKind, Role
from sessiond.domain.event import Event, EventType
from sessiond.domain.key_ring import KeyState, SealingKey
from sessiond.domain.session import Activity, Elevation, Ending, Session
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import (
    POLICY_LIFETIMES,
    Authentication,
    Cause,
    CauseKind,
    ClientContext,
    Instant,
    Lifetimes,
    Millis,
    Revision,
    SessionId,
)
from sessiond.store.contract import KeptAnswer

__all__ = [
    "activity_row",
    "answer_from_row",
    "answer_row",
    "caller_from_row",
    "caller_row",
    "event_from_row",
    "event_row",
    "key_from_row",
    "key_row",
    "session_from_row",
    "session_row",
]


class Row(Protocol):
    """A row as any database driver returns it."""

    def __getitem__(self, column: str, /) -> Any:
        """Return the value of a column."""


@lru_cache(maxsize=10_000)
def _ip_key(address: str) -> str:
    """Return 32 hex digits that sort in the order of addresses, IPv4 mapped into IPv6; empty if there is no address."""
    if not address:
        return ""
    parsed = ipaddress.ip_address(address)
    return f"{int(parsed) + (0xFFFF << 32) if parsed.version == 4 else int(parsed):032x}"


def session_row(session: Session, retention: Millis | None) -> dict[str, Any]:
    """Return the row of a session. `retention`, in milliseconds, is needed if the session has ended."""
    ending, authentication, client = session.ending, session.authentication, session.client
    elevation = session.elevation
    return {
        "session_id": bytes(session.id),
        "application": session.application,
        "subject": session.subject,
        "created_at": session.created,
        "last_active": session.last_active,
        "idle_deadline": session.idle_deadline,
        "absolute_deadline": session.absolute_deadline,
        "due_at": session.due_at,
        "generation": session.generation,
        "generation_began": session.generation_began,
        "digest": session.digest,
        "rolled_digest": session.rolled_digest,
        "rolled_at": session.rolled_at,
        "auth_level": None if authentication is None else authentication.level,
        "auth_methods": None if authentication is None else " ".join(authentication.methods),
        "auth_at": None if authentication is None else authentication.at,
        "ip_address": client.ip_address,
        "ip_key": _ip_key(client.ip_address),
        "user_agent": client.user_agent,
        "certificate": client.certificate_thumbprint,
        "device_id": client.device_id,
        "data_version": session.data_version,
        "data_bytes": session.data_bytes,
        "ended_at": None if ending is None else ending.at,
        "end_kind": None if ending is None else ending.cause.kind.value,
        "end_actor": None if ending is None else ending.cause.actor,
        "end_reason": None if ending is None else ending.cause.reason,
        "purge_at": None if ending is None or retention is None else ending.at + retention,
        "persistent": int(session.persistent),
        "login_page": int(session.login_page),
        "elevation": None if elevation is None else _elevation_text(elevation),
        "must_authenticate": int(session.must_authenticate),
        "old_token": session.old_token,
        "earlier_csrf": session.earlier_csrf,
        "earlier_csrf_at": session.earlier_csrf_at,
        "last_ip": session.last_client.ip_address,
        "last_agent": session.last_client.user_agent,
        "own_idle": session.lifetimes.idle,
        "own_absolute": session.lifetimes.absolute,
        "labels": json.dumps(dict(session.labels)) if session.labels else None,
        "revision": session.revision,
    }


def session_from_row(row: Row) -> Session:
    """Return the session that a row describes."""
    ending = None
    if row["ended_at"] is not None:
        cause = Cause(CauseKind(row["end_kind"]), row["end_actor"], row["end_reason"])
        ending = Ending(Instant(row["ended_at"]), cause)
    return Session(
        id=SessionId(row["session_id"]),
        application=row["application"],
        subject=row["subject"],
        created=Instant(row["created_at"]),
        last_active=Instant(row["last_active"]),
        idle_deadline=row["idle_deadline"],
        absolute_deadline=row["absolute_deadline"],
        generation=row["generation"],
        generation_began=Instant(row["generation_began"]),
        digest=row["digest"],
        rolled_digest=row["rolled_digest"],
        rolled_at=row["rolled_at"],
        authentication=_authentication_from_row(row),
        client=_client_from_row(row),
        data_version=row["data_version"],
        data_bytes=row["data_bytes"],
        ending=ending,
        persistent=bool(row["persistent"]),
        login_page=bool(row["login_page"]),
        elevation=None if row["elevation"] is None else _elevation(row["elevation"]),
        must_authenticate=bool(row["must_authenticate"]),
        old_token=row["old_token"],
        earlier_csrf=row["earlier_csrf"],
        earlier_csrf_at=row["earlier_csrf_at"],
        last_client=ClientContext(row["last_ip"], row["last_agent"]),
        labels=tuple(sorted(json.loads(row["labels"]).items())) if row["labels"] else (),
        lifetimes=_lifetimes(row["own_idle"], row["own_absolute"]),
        revision=Revision(row["revision"]),
    )


def _lifetimes(idle: int | None, absolute: int | None) -> Lifetimes:
    if idle is None and absolute is None:
        return POLICY_LIFETIMES
    return Lifetimes(None if idle is None else Millis(idle), None if absolute is None else Millis(absolute))


def activity_row(activity: Activity) -> dict[str, Any]:
    """Return the parameters that record activity. If the client is unknown, the last known client is kept."""
    client = activity.client
    return {
        "session_id": bytes(activity.session_id),
        "at": activity.at,
        "idle_deadline": activity.idle_deadline,
        "last_ip": None if client is None else client.ip_address,
        "last_agent": None if client is None else client.user_agent,
    }


def answer_row(answer: KeptAnswer) -> dict[str, Any]:
    """Return the row of a kept answer."""
    return {
        "key": answer.key,
        "parameters": answer.parameters,
        "sealed": answer.sealed,
        "expires": answer.expires,
        "session_id": None if answer.session_id is None else bytes(answer.session_id),
        "generation": answer.generation,
    }


def answer_from_row(row: Row) -> KeptAnswer:
    """Return the kept answer that a row describes."""
    return KeptAnswer(
        row["answer_key"],
        row["parameters"],
        row["sealed"],
        Instant(row["expires_at"]),
        None if row["session_id"] is None else SessionId(row["session_id"]),
        row["generation"],
    )


def caller_row(caller: CallerRecord) -> dict[str, Any]:
    """Return the row of a caller."""
    return {
        "name": caller.name,
        "grants": json.dumps(sorted([application, role.value] for application, role in caller.grants)),
        "credentials": json.dumps(
            [[c.id, c.kind.value, c.value.hex(), c.created, c.expires] for c in caller.credentials]
        ),
        "created_at": caller.created,
        "revision": caller.revision,
    }


def caller_from_row(row: Row) -> CallerRecord:
    """Return the caller that a row describes."""
    return CallerRecord(
        name=row["name"],
        grants=frozenset((application, Role(role)) for application, role in json.loads(row["grants"])),
        credentials=tuple(
            Credential(key_id, CredentialKind(kind), bytes.fromhex(value), Instant(created), expires)
            for key_id, kind, value, created, expires in json.loads(row["credentials"])
        ),
        created=Instant(row["created_at"]),
        revision=Revision(row["revision"]),
    )


def key_row(number: int, key: SealingKey) -> dict[str, Any]:
    """Return the row of a key of the ring; `number` orders the keys."""
    return {
        "number": number,
        "fingerprint": key.fingerprint,
        "state": key.state.value,
        "since": key.since,
        "sealed_until": key.sealed_until,
        "log_out": int(key.log_out),
        "wrapped": key.wrapped,
        "moved": key.moved,
    }


def key_from_row(row: Row) -> SealingKey:
    """Return the key of the ring that a row describes."""
    return SealingKey(
        fingerprint=row["fingerprint"],
        state=KeyState(row["state"]),
        since=row["since"],
        sealed_until=row["sealed_until"],
        log_out=bool(row["log_out"]),
        wrapped=row["wrapped"],
        moved=row["moved"],
    )


def event_row(event: Event) -> dict[str, Any]:
    """Return the row of an event."""
    authentication = event.authentication
    return {
        "revision": event.revision,
        "type": event.type.value,
        "at": event.at,
        "application": event.application,
        "subject": event.subject,
        "session_id": None if event.session_id is None else bytes(event.session_id),
        "cause_kind": event.cause.kind.value,
        "cause_actor": event.cause.actor,
        "cause_reason": event.cause.reason,
        "ip_address": event.client.ip_address,
        "user_agent": event.client.user_agent,
        "certificate": event.client.certificate_thumbprint,
        "device_id": event.client.device_id,
        "generation": event.generation,
        "auth_level": None if authentication is None else authentication.level,
        "auth_methods": None if authentication is None else " ".join(authentication.methods),
        "auth_at": None if authentication is None else authentication.at,
        "detail": _detail(event),
    }


def event_from_row(row: Row) -> Event:
    """Return the event that a row describes."""
    detail = json.loads(row["detail"]) if row["detail"] is not None else {}
    return Event(
        revision=Revision(row["revision"]),
        type=EventType(row["type"]),
        at=Instant(row["at"]),
        application=row["application"],
        subject=row["subject"],
        session_id=None if row["session_id"] is None else SessionId(row["session_id"]),
        cause=Cause(CauseKind(row["cause_kind"]), row["cause_actor"], row["cause_reason"]),
        client=_client_from_row(row),
        generation=row["generation"],
        authentication=_authentication_from_row(row),
        signals=tuple(Signal(SignalType(kind), expected, seen) for kind, expected, seen in detail.get("signals", ())),
        reaction=Reaction(detail["reaction"]) if "reaction" in detail else None,
        source=detail.get("source", ""),
        labels=tuple(sorted(detail.get("labels", {}).items())),
    )


def _client_from_row(row: Row) -> ClientContext:
    return ClientContext(row["ip_address"], row["user_agent"], row["certificate"], row["device_id"])


def _authentication_from_row(row: Row) -> Authentication | None:
    if row["auth_level"] is None:
        return None
    return Authentication(row["auth_level"], tuple(row["auth_methods"].split()), Instant(row["auth_at"]))


def _elevation_text(elevation: Elevation) -> str:
    authentication = elevation.authentication
    return json.dumps([authentication.level, authentication.methods, authentication.at, elevation.until])


def _elevation(text: str) -> Elevation:
    level, methods, at, until = json.loads(text)
    return Elevation(Authentication(level, tuple(methods), Instant(at)), Instant(until))


def _detail(event: Event) -> str | None:
    detail: dict[str, Any] = {}
    if event.signals:
        detail["signals"] = [(signal.type.value, signal.expected, signal.seen) for signal in event.signals]
    if event.reaction is not None:
        detail["reaction"] = event.reaction.value
    if event.source:
        detail["source"] = event.source
    if event.labels:
        detail["labels"] = dict(event.labels)
    return json.dumps(detail, separators=(",", ":")) if detail else None
