"""The server's log of security events, for whoever watches logs and not the event stream."""

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

_MOST = 60
_WINDOW = 60.0
"""Seconds. At most 60 lines a minute of each type of event: under 300 MB a day, whatever the flood."""
_LONGEST = 256
"""Characters of one text in a line. Client texts such as user agents may be longer."""

_LEVELS = {
    EventType.HIJACK_SUSPECTED: logging.WARNING,
    EventType.GUESSING_SUSPECTED: logging.WARNING,
    EventType.SOURCE_LOCKED: logging.WARNING,
    EventType.SOURCE_UNLOCKED: logging.INFO,
    EventType.CONCURRENCY_LIMIT_REACHED: logging.INFO,
    EventType.SESSION_REVOKED: logging.WARNING,
}
NOT_LOGGED = frozenset(
    {
        # Ordinary life.
        EventType.SESSION_CREATED,
        EventType.SESSION_AUTHENTICATED,
        EventType.SESSION_RENEWED,
        EventType.SESSION_ROLLED,
        EventType.SESSION_REFRESHED,
        EventType.SESSION_DATA_CHANGED,
        EventType.SESSION_EXPIRED,
        EventType.SESSION_LEVEL_LOWERED,
        # A lost answer. If it is more than that, HIJACK_SUSPECTED follows.
        EventType.OLD_TOKEN_PRESENTED,
        # Logged by the reload that makes the change, every one of them.
        EventType.POLICY_CHANGED,
    }
)
"""The types that have no line here, each for a reason; `SESSION_REVOKED` has one if a signal caused it."""

_log = structlog.get_logger(__name__)


class SecurityLog:
    """Writes a line for each security event that was committed, as long as there are not too many.

    Of each type at most `most` lines are written in a window of one minute, and then one that counts the others.
    `later` calls a function after so many seconds, as an event loop's `call_later` does. Without events it is not used.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], object], most: int = _MOST) -> None:
        self._later = later
        self._most = most
        self._seen: Counter[EventType] = Counter()

    def apply(self, events: Iterable[Event]) -> None:
        """Log what was committed. Never raises: a log that cannot be written must not stop the server's writer."""
        for event in events:
            level = _level(event)
            if level is None:
                continue
            if not self._seen:
                self._later(_WINDOW, self.end_window)
            self._seen[event.type] += 1
            if self._seen[event.type] <= self._most:
                _write(level, _name(event.type), _facts(event))

    def end_window(self) -> None:
        """Say how many events had no line, and begin again."""
        for kind, count in self._seen.items():
            if count > self._most:
                _write(_LEVELS[kind], f"{_name(kind)}: more", {"not_logged": count - self._most, "seconds": _WINDOW})
        self._seen.clear()


def _level(event: Event) -> int | None:
    if event.type is EventType.SESSION_REVOKED and event.cause.kind is not CauseKind.SIGNAL:
        return None
    return _LEVELS.get(event.type)


def _name(kind: EventType) -> str:
    return kind.replace("_", " ")


def _facts(event: Event) -> dict[str, Any]:
    """What a line says. No event holds a token."""
    facts: dict[str, Any] = {
        "application": event.application,
        "subject": event.subject,
        "session_id": str(event.session_id or ""),
        "source": event.source,
        "ip_address": event.client.ip_address,
        "signals": [
            {"type": signal.type.value, "expected": signal.expected[:_LONGEST], "seen": signal.seen[:_LONGEST]}
            for signal in event.signals
        ],
        "reaction": event.reaction.value if event.reaction is not None else "",
        "actor": event.cause.actor,
        "reason": event.cause.reason[:_LONGEST],
        "revision": event.revision,
    }
    return {name: value for name, value in facts.items() if value}


def _write(level: int, what: str, facts: Mapping[str, Any]) -> None:
    with suppress(OSError, ValueError):  # standard error is gone, or its disk is full
        _log.log(level, what, **facts)
