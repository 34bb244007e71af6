"""What `top` knows: the sum of what the server has said, from which frames are taken."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from sessiond_client.enums import EventType  # without gRPC, so help is still fast

if TYPE_CHECKING:
    from sessiond_client import Authority, Event, SourceLock

__all__ = ["ALARMS", "KEPT_ALARMS", "Activity", "Frame", "State"]

ALARMS = frozenset({EventType.HIJACK_SUSPECTED, EventType.GUESSING_SUSPECTED, EventType.SOURCE_LOCKED})
"""The events that are shown one by one."""
KEPT_ALARMS = 50
_ENDS = (EventType.SESSION_EXPIRED, EventType.SESSION_REVOKED)
_MOST_TRACKED = 100_000
"""The live sessions of an application whose ids are remembered, so that events keep their number right."""


@dataclass(frozen=True, slots=True)
class Activity:
    """One application in one frame."""

    application: str
    live: int | None
    """How many sessions are live; None: not counted yet, or not permitted."""
    is_complete: bool
    """Whether all of them were counted; otherwise there are more."""
    rates: Mapping[str, float] | None
    """Events a second since the previous frame, by type, without those that are 0; None: not known."""
    totals: Mapping[str, int]
    """Events since the command started."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What is shown at one moment."""

    time: datetime
    authority: Authority | None
    unreachable_since: datetime | None
    """Since when the server does not answer; None: it does."""
    reason: str
    """Why it does not answer."""
    restart_time: datetime | None
    """When the last new incarnation of the log was noticed; None: there was none since the command started."""
    seconds: float | None
    """The time since the previous frame; None: this is the first."""
    changes_per_second: float | None
    applications: tuple[Activity, ...]
    alarms: tuple[Event, ...]
    """Since the command started, the newest first."""
    locks: tuple[SourceLock, ...]
    notes: tuple[str, ...]
    """What is missing, and why."""

    def only(self, application: str) -> Frame:
        """The same about one application; empty: all of them."""
        if not application:
            return self
        return replace(
            self,
            applications=tuple(one for one in self.applications if one.application == application),
            alarms=tuple(one for one in self.alarms if one.application == application),
            locks=tuple(one for one in self.locks if one.application == application),
        )


@dataclass(slots=True)
class _Live:
    """The live sessions of one application."""

    ids: set[str] | None = None
    """None: only the number is known."""
    number: int | None = None
    is_complete: bool = True
    counting: bool = False
    created: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    """The sessions that were created, and that ended, while the others were counted."""

    def apply(self, event: Event) -> None:
        """Follow an event."""
        created = event.type is EventType.SESSION_CREATED
        if not created and event.type not in _ENDS:
            return
        if self.counting:
            (self.created if created else self.ended).add(event.session_id)
        if self.ids is not None:
            (self.ids.add if created else self.ids.discard)(event.session_id)
            self._settle(self.ids)

    def finish(self, ids: set[str], *, is_complete: bool) -> None:
        """The count has ended. Sessions that changed meanwhile may or may not be among `ids`."""
        found = (ids | self.created) - self.ended
        self.is_complete = is_complete
        self.counting, self.created, self.ended = False, set(), set()
        self._settle(found)

    def _settle(self, ids: set[str]) -> None:
        self.number = len(ids)
        self.is_complete = self.is_complete and self.number <= _MOST_TRACKED
        self.ids = ids if self.is_complete else None  # a part of the ids is of no use, and must not grow for ever


class State:
    """Several threads report what they hear, and one takes frames. Each method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._authority: Authority | None = None
        self._unreachable: tuple[datetime, str] | None = None
        self._restarted: datetime | None = None
        self._live: dict[str, _Live] = {}
        self._recent: Counter[tuple[str, str]] = Counter()
        self._totals: Counter[tuple[str, str]] = Counter()
        self._alarms: deque[Event] = deque(maxlen=KEPT_ALARMS)
        self._locks: tuple[SourceLock, ...] = ()
        self._notes: dict[str, str] = {}
        self._follows = False
        self._previous: tuple[float, int] | None = None

    def answered(self, authority: Authority, at: datetime) -> None:
        """The server answered at this time."""
        with self._lock:
            before, self._authority, self._unreachable = self._authority, authority, None
            if before is not None and before.incarnation != authority.incarnation:
                self._restarted = at

    def failed(self, reason: str, at: datetime) -> None:
        """The server did not answer, and why. The first failure decides since when."""
        with self._lock:
            since = at if self._unreachable is None else self._unreachable[0]
            self._unreachable = since, reason

    def happened(self, event: Event) -> None:
        """The stream delivered an event."""
        with self._lock:
            key = event.application, str(event.type)
            self._recent[key] += 1
            self._totals[key] += 1
            if event.type in ALARMS:
                self._alarms.appendleft(event)
            self._live.setdefault(event.application, _Live()).apply(event)

    def follows(self) -> None:
        """The stream of events is open, so that rates are known from now on."""
        with self._lock:
            if not self._follows:
                self._recent.clear()
            self._follows = True
            self._notes.pop("events", None)

    def begin_count(self, application: str) -> None:
        """The live sessions of an application will be counted from a state that is later than this call."""
        with self._lock:
            live = self._live.setdefault(application, _Live())
            live.counting, live.created, live.ended = True, set(), set()

    def counted(self, application: str, ids: Iterable[str], *, is_complete: bool) -> None:
        """The live sessions that were found since `begin_count`."""
        with self._lock:
            self._live[application].finish(set(ids), is_complete=is_complete)

    def locked(self, locks: Iterable[SourceLock]) -> None:
        """The locks in force."""
        with self._lock:
            self._locks = tuple(locks)
            self._notes.pop("locks", None)

    def lacks(self, what: str, reason: str) -> None:
        """Something cannot be had; the reason is shown."""
        with self._lock:
            self._notes[what] = f"{what}: {reason}"

    def has(self, what: str) -> None:
        """It can be had again."""
        with self._lock:
            self._notes.pop(what, None)

    def frame(self, time: datetime, clock: float) -> Frame:
        """The present state. `clock` counts seconds and never goes back. Rates are those since the previous call."""
        with self._lock:
            revision = 0 if self._authority is None else self._authority.revision
            seconds = changes = None
            if self._previous is not None and clock > self._previous[0]:
                seconds = clock - self._previous[0]
                changes = round(max(0, revision - self._previous[1]) / seconds, 3)
            self._previous = clock, revision
            names = () if self._authority is None else tuple(one.name for one in self._authority.applications)
            frame = Frame(
                time=time,
                authority=self._authority,
                unreachable_since=None if self._unreachable is None else self._unreachable[0],
                reason="" if self._unreachable is None else self._unreachable[1],
                restart_time=self._restarted,
                seconds=seconds,
                changes_per_second=changes,
                applications=tuple(self._activity(name, seconds) for name in names),
                alarms=tuple(self._alarms),
                locks=tuple(one for one in self._locks if one.expire_time > time),
                notes=tuple(self._notes.values()),
            )
            self._recent.clear()
            return frame

    def _activity(self, name: str, seconds: float | None) -> Activity:
        live = self._live.get(name, _Live())
        known = self._follows and seconds is not None
        rates = {
            kind: round(count / (seconds or 1), 3) for (owner, kind), count in self._recent.items() if owner == name
        }
        totals = {kind: count for (owner, kind), count in self._totals.items() if owner == name}
        return Activity(name, live.number, live.is_complete, rates if known else None, totals)
