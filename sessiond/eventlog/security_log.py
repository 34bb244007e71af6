"""Writes security events to the server's log, for operators who monitor logs and not the event stream."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import structlog

from sessiond.domain.event import Event, EventType
from sessiond.domain.values import CauseKind

__all__ = ["NOT_LOGGED", "SecurityLog"]

_MAX_LINES = 60
_WINDOW = 60.0
"""Seconds. At most 60 lines a minute for each type of event keep the log under 300 MB a day, even during a flood."""
_MAX_TEXT = 256
"""Maximum characters of one text in a line. Texts from clients, such as user agents, may be longer."""

_LEVELS = {
    EventType.HIJACK_SUSPECTED: logging.WARNING,
    EventType.GUESSING_SUSPECTED: logging.WARNING,
    EventType.SOURCE_LOCKED: logging.WARNING,
    EventType.SOURCE_UNLOCKED: logging.INFO,
    EventType.CONCURRENCY_LIMIT_REACHED: logging.INFO,
    EventType.SESSION_REVOKED: logging.WARNING,
    EventType.CALLER_CHANGED: logging.INFO,
    EventType.KEY_RING_CHANGED: logging.INFO,
}
NOT_LOGGED = frozenset(
    {
        # Normal operation.
        EventType.SESSION_CREATED,
        EventType.SESSION_AUTHENTICATED,
        EventType.SESSION_RENEWED,
        EventType.SESSION_ROLLED,
        EventType.SESSION_REFRESHED,
        EventType.SESSION_DATA_CHANGED,
        EventType.SESSION_EXPIRED,
        EventType.SESSION_LEVEL_LOWERED,
        # Usually the response with the new token was lost. If it is an attack, HIJACK_SUSPECTED follows.
        EventType.OLD_TOKEN_PRESENTED,
        # The reload that changes policies logs each change itself.
        EventType.POLICY_CHANGED,
    }
)
"""The types of events that are not logged here, with the reasons. `SESSION_REVOKED` is logged if a signal caused it."""

_log = structlog.get_logger(__name__)


class SecurityLog:
    """Writes one log line for each committed security event, up to a limit.

    For each type of event at most `max_lines` lines are written in a window of one minute. A last line states how many
    events had no line. `call_later` schedules a function after a number of seconds, like `call_later` of an event loop.
    It is called only when there are events.
    """

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object], max_lines: int = _MAX_LINES) -> None:
        self._call_later = call_later
        self._max_lines = max_lines
        self._seen: Counter[EventType] = Counter()

    def apply(self, events: Iterable[Event]) -> None:
        """Log committed events. Never raises: a failure to write the log must not stop the journal."""
        for event in events:
            level = _level(event)
            if level is None:
                continue
            if not self._seen:
                self._call_later(_WINDOW, self.end_window)
            self._seen[event.type] += 1
            if self._seen[event.type] <= self._max_lines:
                _write(level, _name(event.type), _facts(event))

    def end_window(self) -> None:
        """Log how many events had no line, and start a new window."""
        for kind, count in self._seen.items():
            if count > self._max_lines:
                not_logged = count - self._max_lines
                _write(_LEVELS[kind], f"{_name(kind)}: more", {"not_logged": not_logged, "seconds": _WINDOW})
        self._seen.clear()


def _level(event: Event) -> int | None:
    if event.type is EventType.SESSION_REVOKED and event.cause.kind is not CauseKind.SIGNAL:
        return None
    return _LEVELS.get(event.type)


def _name(kind: EventType) -> str:
    return kind.replace("_", " ")


def _facts(event: Event) -> dict[str, Any]:
    """Return the fields of a log line. They hold no token, because no event does."""
    facts: dict[str, Any] = {
        "application": event.application,
        "subject": event.subject,
        "session_id": str(event.session_id or ""),
        "source": event.source,
        "ip_address": event.client.ip_address,
        "signals": [
            {"type": signal.type.value, "expected": signal.expected[:_MAX_TEXT], "seen": signal.seen[:_MAX_TEXT]}
            for signal in event.signals
        ],
        "reaction": event.reaction.value if event.reaction is not None else "",
        "actor": event.cause.actor,
        "reason": event.cause.reason[:_MAX_TEXT],
        "revision": event.revision,
    }
    return {name: value for name, value in facts.items() if value}


def _write(level: int, what: str, facts: Mapping[str, Any]) -> None:
    with suppress(OSError, ValueError):  # standard error is gone, or its disk is full
        _log.log(level, what, **facts)
