"""Counts committed events, for metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sessiond.domain.event import Event, EventType
from sessiond.domain.signals import Reaction, SignalType

__all__ = ["EventCounts"]


class EventCounts:
    """How many events this process has applied, since its start. Replicas apply the events of each other too."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, EventType]] = Counter()
        """By application and type."""
        self.signals: Counter[tuple[str, SignalType, Reaction | None]] = Counter()
        """Signals of suspicious use that were reported, by application, type and what was done about them."""

    def apply(self, events: Iterable[Event]) -> None:
        """Count committed events."""
        for event in events:
            self.events[event.application, event.type] += 1
            for signal in event.signals:
                self.signals[event.application, signal.type, event.reaction] += 1
