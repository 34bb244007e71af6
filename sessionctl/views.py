"""How sessions, events and locks are shown to people: which columns and facts there are, and in which words."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sessionctl.durations import in_config_notation
from sessionctl.labels import labels_text
from sessionctl.output import when
from sessionctl.screen import rfc3339, screen
from sessionctl.settings import settings
from sessionctl.tables import Column, Row

if TYPE_CHECKING:
    from sessiond_client import (
        Authentication,
        CallerCredential,
        CallerInfo,
        Cause,
        ClientContext,
        Device,
        Event,
        Grant,
        SealingKey,
        Session,
        Signal,
        SourceLock,
    )

__all__ = [
    "CALLERS",
    "EVENTS",
    "KEYS",
    "LOCKS",
    "SESSIONS",
    "caller_row",
    "event_row",
    "key_row",
    "lock_row",
    "session_facts",
    "session_row",
    "short_key",
    "signal_text",
]

_ANONYMOUS = "(anonymous)"
_DAY = timedelta(days=1)
_STATE_STYLES = {"ACTIVE": "green", "EXPIRED": "yellow", "REVOKED": "red"}
_EVENT_STYLES = {
    "SESSION_CREATED": "green",
    "SESSION_AUTHENTICATED": "bold green",
    "SESSION_RENEWED": "cyan",
    "SESSION_ROLLED": "cyan",
    "SESSION_REFRESHED": "cyan",
    "SESSION_EXPIRED": "yellow",
    "SESSION_REVOKED": "yellow",
    "HIJACK_SUSPECTED": "bold red",
    "GUESSING_SUSPECTED": "bold red",
    "SOURCE_LOCKED": "red",
    "SOURCE_UNLOCKED": "green",
    "CONCURRENCY_LIMIT_REACHED": "yellow",
    "POLICY_CHANGED": "yellow",
    "SESSION_LEVEL_LOWERED": "yellow",
    "OLD_TOKEN_PRESENTED": "yellow",
    "CALLER_CHANGED": "yellow",
    "KEY_RING_CHANGED": "yellow",
}

SESSIONS = (
    Column("SUBJECT", cut=True, least=16),
    Column("SESSION"),
    Column("STATE"),
    Column("LAST USE"),
    Column("ENDS"),
    Column("NOTES", cut=True, rank=1),
    Column("ADDRESS", cut=True, rank=2, least=15),
    Column("DEVICE", cut=True, rank=3, least=16),
    Column("LABELS", cut=True, rank=4),
    Column("OPENED", rank=5),
    Column("APPLICATION", cut=True, rank=6),
)
EVENTS = (
    Column("SUBJECT", cut=True, typical=14),
    Column("EVENT", typical=25),
    Column("TIME", typical=10, typical_wide=20),
    Column("SESSION", rank=1, typical=36),
    Column("APPLICATION", cut=True, rank=2, typical=12),
    Column("LABELS", cut=True, rank=3, typical=20),
    Column("REVISION", rank=4, typical=8),
    Column("DETAIL", cut=True, least=24, typical=100),
)
LOCKS = (
    Column("SOURCE"),
    Column("APPLICATION", cut=True),
    Column("LOCKED"),
    Column("ENDS"),
)

CALLERS = (
    Column("CALLER", cut=True),
    Column("ROLES", cut=True, least=48),
    Column("KEY"),
    Column("CERTIFICATES", cut=True, least=24, rank=2),
    Column("OLD KEYS", cut=True, least=22, rank=1),
    Column("ADDED", rank=3),
)


KEYS = (
    Column("KEY"),
    Column("STATE"),
    Column("SINCE"),
    Column("TOKENS"),
    Column("UNTIL"),
    Column("VALUES"),
    Column("MOVED", rank=2),
    Column("NOT HELD BY", cut=True, rank=1, least=12),
    Column("HELD BY", cut=True, rank=3, least=16),
)
_KEY_STYLES = {"SEALING": "green", "ADDED": "cyan", "RETIRING": "yellow"}
_SHORT_KEY = 8


def short_key(key: SealingKey) -> str:
    """The part of a key's fingerprint that is shown, and that is enough to name it."""
    return key.fingerprint[:_SHORT_KEY]


def key_row(key: SealingKey) -> Row:
    """The cells of a key of the key ring, as in `KEYS`."""
    return (
        (key.fingerprint if settings().wide else short_key(key), ""),
        (key.state.lower(), _KEY_STYLES.get(key.state, "")),
        (when(key.state_time), ""),
        (_live_tokens(key), ""),
        (_tokens_end(key), ""),
        (f"{key.sealed_values:,}", ""),
        (f"{key.moved_values:,}" if key.moved_values else "", ""),
        ("; ".join(key.lacking_replicas), "yellow"),
        ("; ".join(key.holding_replicas), ""),
    )


def _live_tokens(key: SealingKey) -> str:
    """How many sessions may have a token of the key; a plus sign: they were not all counted."""
    if key.live_tokens is None:
        return ""
    return f"{key.live_tokens:,}" + ("+" if key.tokens_partial else "")


def _tokens_end(key: SealingKey) -> str:
    """When the last of those sessions ends."""
    return when(key.tokens_end_time) if key.live_tokens else ""


def caller_row(caller: CallerInfo) -> Row:
    """The cells of a caller, as in `CALLERS`."""
    keys = [credential for credential in caller.credentials if not credential.certificate_name]
    newest, *others = [_key(credential) for credential in reversed(keys)] or [""]
    return (
        (caller.name, ""),
        (", ".join(map(_role, caller.grants)), ""),
        (newest, ""),
        (", ".join(one.certificate_name for one in caller.credentials if one.certificate_name), ""),
        (", ".join(others), ""),
        (when(caller.create_time), ""),
    )


def _role(grant: Grant) -> str:
    """A role as `callers add --role` takes it."""
    name = grant.role.lower()
    return name if grant.application == "*" else f"{name}:{grant.application}"


def _key(credential: CallerCredential) -> str:
    end = credential.expire_time
    if end is None:
        return credential.id
    return f"{credential.id} {'ends' if end > screen().now() else 'ended'} {when(end)}"


def session_row(session: Session) -> Row:
    """The cells of a session, as in `SESSIONS`."""
    device = session.last_device or session.device
    address = (session.last_client.ip_address if session.last_client else "") or session.client.ip_address
    return (
        (session.subject or _ANONYMOUS, "" if session.subject else "dim"),
        (session.session_id, ""),
        (str(session.state), _STATE_STYLES.get(session.state, "")),
        (when(session.last_active_time), ""),
        (when(_end(session)), ""),
        (", ".join(_notes(session)), "cyan"),
        (address, ""),
        (_device(device), ""),
        (labels_text(session.labels), "blue"),
        (when(session.create_time), ""),
        (session.application, ""),
    )


def _end(session: Session) -> datetime | None:
    """When it ended, or when it will without further activity; None: never."""
    if session.ending is not None:
        return session.ending.end_time
    ends = (session.idle_expire_time, session.absolute_expire_time, session.login_expire_time)
    return min((end for end in ends if end is not None), default=None)


def _notes(session: Session) -> list[str]:
    """What is unusual about a session."""
    notes = ["remembered"] if session.persistent else []
    if session.elevation_expire_time is not None:
        notes.append("elevated")
    if session.login_expire_time is not None:
        notes.append("login page")
    return notes


def session_facts(session: Session) -> list[tuple[str, str]]:
    """Everything that can be shown of a session."""
    facts = [
        ("subject", session.subject or _ANONYMOUS),
        ("session", session.session_id),
        ("application", session.application),
        ("state", str(session.state)),
    ]
    if session.ending is not None:
        facts += [("ended", when(session.ending.end_time)), ("ended because", _cause(session.ending.cause))]
    facts += [("opened", when(session.create_time)), ("last use", when(session.last_active_time))]
    if session.ending is None or settings().wide:
        facts += [
            ("idle timeout", when(session.idle_expire_time)),
            ("absolute timeout", when(session.absolute_expire_time)),
        ]
    if session.login_expire_time is not None:
        facts.append(("login timeout", f"{when(session.login_expire_time)}, unless the subject logs in"))
    facts += _limits(session)
    facts.append(("authenticated", _authentication(session.authentication)))
    if session.elevation_expire_time is not None:
        facts.append(("elevation ends", when(session.elevation_expire_time)))
    if session.persistent:
        facts.append(("remembered", "yes"))
    facts += [*_seen("", session.client, session.device), *_seen("last ", session.last_client, session.last_device)]
    facts += (("label", f"{key}={value}") for key, value in sorted(session.labels.items()))
    return [*facts, ("data version", str(session.data_version)), ("token generation", str(session.generation))]


def _limits(session: Session) -> list[tuple[str, str]]:
    """The timeouts that the session has of its own."""
    if session.lifetimes is None:
        return []
    own = (
        ("own idle limit", session.lifetimes.idle_timeout),
        ("own absolute limit", session.lifetimes.absolute_timeout),
    )
    return [(name, in_config_notation(limit)) for name, limit in own if limit is not None]


def _seen(prefix: str, client: ClientContext | None, device: Device | None) -> list[tuple[str, str]]:
    if client is None:
        return []
    return [
        (f"{prefix}ip address", client.ip_address or "unknown"),
        (f"{prefix}user agent", client.user_agent or "unknown"),
        (f"{prefix}device", _device(device) or "unknown"),
    ]


def _device(device: Device | None) -> str:
    """A device in words; empty if nothing is known about it."""
    if device is None:
        return ""
    kind = "" if device.type == "UNSPECIFIED" else device.type.lower()
    return f"{device.description} ({kind})" if device.description and kind else device.description or kind


def _authentication(authentication: Authentication | None) -> str:
    if authentication is None:
        return "no"
    methods = ", ".join(authentication.methods) or "methods unknown"
    return f"{when(authentication.authenticate_time)}, level {authentication.level} ({methods})"


def event_row(event: Event, *, live: bool = False) -> Row:
    """The cells of an event, as in `EVENTS`.

    `live`: it is a line of a stream, which stays on the screen. A relative time would soon be wrong there.
    """
    style = _EVENT_STYLES.get(event.type, "")
    return (
        (event.subject or (_ANONYMOUS if event.session_id else "-"), "" if event.subject else "dim"),
        (str(event.type), style),
        (_fixed_time(event.event_time) if live else when(event.event_time), ""),
        (event.session_id or "-", ""),
        (event.application, ""),
        (labels_text(event.labels), "blue"),
        (str(event.revision), "dim"),
        (_detail(event), style if event.signals or event.source else "dim"),
    )


def _fixed_time(moment: datetime) -> str:
    """The time of day in UTC, or the date if it is a day ago or more; the whole time if the output is `wide`."""
    text = rfc3339(moment)
    if settings().wide:
        return text
    return text.partition("T")[0 if screen().now() - moment >= _DAY else 2]


def _detail(event: Event) -> str:
    """What is specific to an event, the most important first, since the end may be cut."""
    parts = [signal_text(signal) for signal in event.signals]
    if event.source:
        parts.append(f"source {event.source}")
    if event.reaction != "UNSPECIFIED":
        parts.append(f"reaction {event.reaction}")
    cause = _cause(event.cause)
    return "; ".join([*parts, cause] if cause else parts) or "-"


def _cause(cause: Cause) -> str:
    """The reason in the caller's words, if there is one, and who caused it.

    Most events come from requests of a caller without a name, or from the authority: only `wide` says so each time.
    """
    everything = settings().wide
    kind = "" if cause.kind == "UNSPECIFIED" or (cause.kind == "REQUEST" and not everything) else str(cause.kind)
    actor = "" if cause.actor in ("caller", "authority") and not everything else cause.actor
    who = " ".join(part for part in (kind, f"by {actor}" if actor else "") if part)
    return f"{cause.reason} ({who})" if cause.reason and who else cause.reason or who


def signal_text(signal: Signal) -> str:
    """A signal with its evidence; a reported signal has no expected value."""
    if signal.type == "REPORTED":
        return f"REPORTED: {signal.seen}" if signal.seen else "REPORTED"
    return f"{signal.type}: expected {signal.expected or 'unknown'}, seen {signal.seen or 'unknown'}"


def lock_row(lock: SourceLock) -> Row:
    """The cells of a locked source, as in `LOCKS`."""
    return (
        (lock.source, "bold red"),
        (lock.application, ""),
        (when(lock.lock_time), ""),
        (when(lock.expire_time), ""),
    )
