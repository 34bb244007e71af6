"""What commands write: JSON for machines, aligned and coloured lines for people.

Everything that came from elsewhere passes `printable` on its way to a terminal: a subject, a reason or a user agent may
contain escape sequences meant for an operator's terminal. JSON is read on terminals, too, so it escapes the same
characters in its own notation.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from sessionctl.durations import in_config_notation
from sessionctl.labels import labels_text
from sessiond.domain.text import printable
from sessiond_client import (
    Authentication,
    ClientContext,
    Device,
    DeviceType,
    Event,
    EventType,
    Reaction,
    Session,
    SessionState,
    Signal,
    SignalType,
    Token,
)

__all__ = [
    "as_json",
    "event_line",
    "plain",
    "printable",
    "session_facts",
    "session_line",
    "show",
    "show_facts",
    "show_table",
    "signal_text",
    "when",
]

_STATE_STYLES = {SessionState.ACTIVE: "green", SessionState.EXPIRED: "yellow", SessionState.REVOKED: "red"}
_EVENT_STYLES = {
    EventType.SESSION_CREATED: "green",
    EventType.SESSION_AUTHENTICATED: "bold green",
    EventType.SESSION_RENEWED: "cyan",
    EventType.SESSION_ROLLED: "cyan",
    EventType.SESSION_REFRESHED: "cyan",
    EventType.SESSION_EXPIRED: "yellow",
    EventType.SESSION_REVOKED: "yellow",
    EventType.HIJACK_SUSPECTED: "bold red",
    EventType.GUESSING_SUSPECTED: "bold red",
    EventType.SOURCE_LOCKED: "red",
    EventType.SOURCE_UNLOCKED: "green",
    EventType.CONCURRENCY_LIMIT_REACHED: "yellow",
    EventType.POLICY_CHANGED: "yellow",
    EventType.SESSION_LEVEL_LOWERED: "yellow",
    EventType.OLD_TOKEN_PRESENTED: "yellow",
}


# For machines


def plain(value: Any) -> Any:
    """A value of the client as JSON can express it. A token becomes null; only an explicit argument shows one."""
    match value:
        case Token():
            return None
        case datetime():
            return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case str():
            return str(value)
        case Mapping():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return value


def as_json(value: Any, **more: Any) -> None:
    """Write one JSON object as one line."""
    document = plain(value) | {key: plain(item) for key, item in more.items()}
    click.echo(_escaped(json.dumps(document, ensure_ascii=False)))


def _escaped(document: str) -> str:
    r"""JSON with every character that is not printable as `\uXXXX`: the same document, and no command to a terminal."""
    if document.isprintable():
        return document
    # Such characters stand in strings alone. JSON itself demands escapes for U+0000 to U+001F only.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in document)


# For people


def when(moment: datetime | None) -> str:
    """A moment in UTC, marked as such, so that it can be compared with JSON and logs in any time zone."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if moment is not None else "never"


def signal_text(signal: Signal) -> str:
    """A signal with its evidence; a reported signal has no expected value."""
    if signal.type is SignalType.REPORTED:
        return f"reported: {signal.seen}" if signal.seen else "reported"
    return f"{signal.type}: expected {signal.expected or '?'}, seen {signal.seen or '?'}"


def show(*parts: str | tuple[str, str]) -> None:
    """Write a line; a part may be a pair of text and style. Colours go to terminals only, and not with NO_COLOR."""
    # soft_wrap: a line stays a line, for `grep` and for a narrow terminal alike.
    Console(soft_wrap=True, highlight=False, markup=False, emoji=False).print(Text.assemble(*parts))


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Write names and values, one pair a line."""
    for name, value in facts:
        show((f"{name:<22} ", "dim"), printable(value))


def show_table(rows: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Write rows of cells, each a pair of text and style, in aligned columns."""
    safe = [[(printable(text), style) for text, style in row] for row in rows]
    widths = [max(len(text) for text, _ in column) for column in zip(*safe, strict=True)]
    for row in safe:
        *padded, (last, style) = row
        cells = [(f"{text:<{width}}  ", looks) for (text, looks), width in zip(padded, widths, strict=False)]
        show(*cells, (last, style))


def session_facts(session: Session) -> list[tuple[str, str]]:
    """Everything that can be shown of a session."""
    facts = [
        ("session", session.session_id),
        ("application", session.application),
        ("subject", session.subject or "(anonymous)"),
        ("state", str(session.state)),
        ("generation", str(session.generation)),
        ("opened", when(session.create_time)),
        ("last active", when(session.last_active_time)),
        ("expires idle", when(session.idle_expire_time)),
        ("expires at the latest", when(session.absolute_expire_time)),
        ("authenticated", _authentication(session.authentication)),
        ("ip address", session.client.ip_address or "unknown"),
        ("user agent", session.client.user_agent or "unknown"),
        ("device", _device(session.device) or "unknown"),
        *_last_seen(session.last_client, session.last_device),
        ("data version", str(session.data_version)),
        *(("label", f"{key}={value}") for key, value in sorted(session.labels.items())),
    ]
    if session.lifetimes is not None:
        facts += [
            (name, in_config_notation(timeout))
            for name, timeout in (
                ("own idle timeout", session.lifetimes.idle_timeout),
                ("own absolute timeout", session.lifetimes.absolute_timeout),
            )
            if timeout is not None
        ]
    if session.login_expire_time is not None:
        facts.append(("login page ends", f"{when(session.login_expire_time)} unless the subject logs in"))
    if session.persistent:
        facts.append(("remembered", "beyond the browser's session"))
    if session.elevation_expire_time is not None:
        facts.append(("elevated until", when(session.elevation_expire_time)))
    if session.ending is not None:
        cause = session.ending.cause
        facts.append(
            ("ended", f"{when(session.ending.end_time)} {cause.kind} by {cause.actor} {cause.reason}".rstrip())
        )
    return facts


def session_line(session: Session) -> None:
    """Write a session as one line."""
    show(
        f"{session.session_id}  ",
        (f"{session.state:<8}", _STATE_STYLES.get(session.state, "")),
        f"  opened {when(session.create_time)}  active {when(session.last_active_time)}  ",
        f"{printable(session.client.ip_address) or '-':<15}  ",
        printable(session.subject) or "(anonymous)",
        (f"  {device}", "dim") if (device := printable(_device(session.last_device or session.device))) else "",
        (f"  {labels}", "blue") if (labels := printable(labels_text(session.labels))) else "",
        *((f"  {mark}", "cyan") for mark in _marks(session)),
    )


def _marks(session: Session) -> list[str]:
    """What is unusual about a session."""
    marks = ["remembered"] if session.persistent else []
    if session.elevation_expire_time is not None:
        marks.append(f"elevated until {when(session.elevation_expire_time)}")
    if session.login_expire_time is not None:
        marks.append(f"login until {when(session.login_expire_time)}")
    return marks


def event_line(event: Event) -> None:
    """Write an event as one line: whom it is about, who caused it and why, the evidence and the reaction."""
    cause = " ".join(part for part in (event.cause.kind, event.cause.actor and f"by {event.cause.actor}") if part)
    who = printable(event.subject) or ("(anonymous)" if event.session_id else "-")
    parts: list[str | tuple[str, str]] = [
        (f"{when(event.event_time)}  #{event.revision:<6} ", "dim"),
        (f"{event.type:<25} ", _EVENT_STYLES.get(event.type, "")),
        f"{printable(event.application)}  {who}  {event.session_id or '-'}  ",
        (printable(f"{cause} {event.cause.reason}".rstrip()), "dim"),
    ]
    if event.source:
        parts.append((printable(f"  source {event.source}"), _EVENT_STYLES.get(event.type, "")))
    parts.extend((printable(f"  {signal_text(item)}"), "red") for item in event.signals)
    if event.reaction is not Reaction.UNSPECIFIED:
        parts.append((f"  reaction {event.reaction}", "bold red"))
    if event.labels:
        parts.append((printable(f"  {labels_text(event.labels)}"), "blue"))
    show(*parts)


def _device(device: Device | None) -> str:
    """A device in words; empty if nothing is known about it."""
    if device is None:
        return ""
    kind = "" if device.type is DeviceType.UNSPECIFIED else device.type.lower()
    return f"{device.description} ({kind})" if device.description and kind else device.description or kind


def _last_seen(client: ClientContext | None, device: Device | None) -> list[tuple[str, str]]:
    if client is None:
        return []
    return [
        ("last ip address", client.ip_address or "unknown"),
        ("last user agent", client.user_agent or "unknown"),
        ("last device", _device(device) or "unknown"),
    ]


def _authentication(authentication: Authentication | None) -> str:
    if authentication is None:
        return "no"
    methods = ", ".join(authentication.methods) or "methods unknown"
    return f"{when(authentication.authenticate_time)} level {authentication.level} ({methods})"
