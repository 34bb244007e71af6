"""Events: durable, immutable facts of the session lifecycle."""

from __future__ import annotations

from enum import StrEnum

from sessiond.domain.immutable import immutable
from sessiond.domain.signals import Reaction, Signal
from sessiond.domain.values import Authentication, Cause, ClientContext, Instant, Labels, Revision, SessionId

__all__ = ["Event", "EventFilter", "EventType"]


class EventType(StrEnum):
    """The types of lifecycle events."""

    SESSION_CREATED = "session_created"
    SESSION_AUTHENTICATED = "session_authenticated"
    SESSION_RENEWED = "session_renewed"
    SESSION_ROLLED = "session_rolled"
    SESSION_REFRESHED = "session_refreshed"
    SESSION_DATA_CHANGED = "session_data_changed"
    SESSION_EXPIRED = "session_expired"
    SESSION_REVOKED = "session_revoked"
    HIJACK_SUSPECTED = "hijack_suspected"
    GUESSING_SUSPECTED = "guessing_suspected"
    SOURCE_LOCKED = "source_locked"
    SOURCE_UNLOCKED = "source_unlocked"
    CONCURRENCY_LIMIT_REACHED = "concurrency_limit_reached"
    POLICY_CHANGED = "policy_changed"
    SESSION_LEVEL_LOWERED = "session_level_lowered"
    OLD_TOKEN_PRESENTED = "old_token_presented"  # noqa: S105 - a kind of event, not a secret
    CALLER_CHANGED = "caller_changed"
    KEY_RING_CHANGED = "key_ring_changed"


@immutable
class Event:
    """One fact: what happened to which session, when, who caused it and why. It never holds a token or session data."""

    revision: Revision
    type: EventType
    at: Instant
    application: str
    subject: str
    session_id: SessionId | None
    cause: Cause
    client: ClientContext
    generation: int = 0
    authentication: Authentication | None = None
    signals: tuple[Signal, ...] = ()
    reaction: Reaction | None = None
    source: str = ""
    labels: Labels = ()


@immutable
class EventFilter:
    """Selects events. An empty set is no condition. An event must meet all conditions and have all of the labels.

    everywhere  types that are selected whatever the application
    """

    applications: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    types: frozenset[EventType] = frozenset()
    labels: frozenset[tuple[str, str]] = frozenset()
    everywhere: frozenset[EventType] = frozenset()

    def matches(self, event: Event) -> bool:
        """Return whether the filter selects the event."""
        return (
            (not self.applications or event.application in self.applications or event.type in self.everywhere)
            and (not self.subjects or event.subject in self.subjects)
            and (not self.types or event.type in self.types)
            and (not self.labels or self.labels.issubset(event.labels))
        )
