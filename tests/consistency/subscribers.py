"""Subscribers: they follow the log with various filters, move between replicas, and keep what they receive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from random import Random
from typing import Literal

from sessiond_client import AsyncClient, Checkpoint, Event, EventType, SessiondError
from tests.consistency.cluster import Cluster
from tests.consistency.history import Delivery, LogEvent, Stream

__all__ = ["Subscriber"]

_CHECKPOINTS = 0.5
_STAY = (0.5, 10.0)
"""Seconds that a subscriber stays with one replica before it resumes at another, at least and at most."""


class Subscriber:
    """One subscriber. It keeps its position when it moves to another replica."""

    def __init__(
        self,
        name: str,
        cluster: Cluster,
        dice: Random,
        start: Literal["now", "earliest"] = "earliest",
        subjects: Iterable[str] = (),
        types: Iterable[EventType] = (),
    ) -> None:
        self.name = name
        self.reached = 0
        self._cluster = cluster
        self._dice = dice
        self._from: Literal["now", "earliest"] = start
        self._subjects = tuple(subjects)
        self._types = tuple(types)
        self._replica = dice.randrange(len(cluster.replicas))
        self._cursor: str | None = None
        self._start: int | None = None
        self._deliveries: list[Delivery] = []
        self._error = ""

    async def run(self) -> None:
        """Follow until cancelled."""
        while not self._error:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._dice.uniform(*_STAY)):
                    await self._follow(self._cluster.client(self._replica))
            self._replica = self._dice.randrange(len(self._cluster.replicas))

    def stream(self) -> Stream:
        """Return what it received."""
        return Stream(
            name=self.name,
            start=self._start,
            subjects=frozenset(self._subjects),
            types=frozenset(kind.value for kind in self._types),
            deliveries=tuple(self._deliveries),
            reached=self.reached,
            error=self._error,
        )

    async def _follow(self, client: AsyncClient) -> None:
        events = client.events(
            after=self._cursor,
            start=self._from,
            applications=(),
            subjects=self._subjects,
            types=self._types,
            checkpoint_interval=_CHECKPOINTS,
            include_checkpoints=True,
        )
        async with events:
            try:
                async for item in events:
                    self._take(item)
            except SessiondError as error:
                self._error = f"{error.status}: {error}"

    def _take(self, item: Event | Checkpoint) -> None:
        self._cursor = item.cursor
        if self._start is None:
            assert isinstance(item, Checkpoint)
            self._start = item.revision
        if isinstance(item, Event):
            self._deliveries.append(Delivery(time.monotonic(), _log_event(item), self._replica))
        self.reached = max(self.reached, item.revision)


def _log_event(event: Event) -> LogEvent:
    said = event.cause.reason.removeprefix("operation ")
    if event.type is EventType.SESSION_CREATED:
        said = event.labels.get("operation", "")
    return LogEvent(
        revision=event.revision,
        type=event.type.value,
        application=event.application,
        subject=event.subject,
        session=event.session_id,
        generation=event.generation,
        operation=int(said) if said.isdigit() else None,
    )
