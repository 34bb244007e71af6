"""The cache of sessions, and the activity that the store does not have yet."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sessiond.domain.session import Session, with_activity
from sessiond.domain.values import Instant, SessionId
from sessiond.store.contract import Commit

__all__ = ["Activity", "Entry", "SessionCache"]


class Activity(NamedTuple):
    """The last activity of a session, and the idle deadline that follows from it."""

    session_id: SessionId
    application: str
    at: Instant
    idle_deadline: Instant | None


class Entry:
    """One cached session: as it was committed or read, and the last activity that the store has.

    Later activity is not in `session` but in the cache: a session's value changes only when something about it does,
    so that what is derived from it can be kept with it. `SessionCache.with_activity` brings both together.
    """

    __slots__ = ("saved", "session")

    def __init__(self, session: Session, saved: Instant) -> None:
        self.session = session
        self.saved = saved


class SessionCache:
    """The most recently used sessions, kept true by every commit.

    An entry is filled only from a read that nothing was applied to since it began; concurrent misses of a session
    share one read. Activity is known at once and kept until a commit has it, whether or not the entry stays.
    """

    def __init__(self, load: Callable[[SessionId], Awaitable[Session | None]], capacity: int) -> None:
        self._load = load
        self._capacity = capacity
        self._entries: OrderedDict[SessionId, Entry] = OrderedDict()
        self._unsaved: dict[SessionId, Activity] = {}
        self._fills: dict[SessionId, _Fill] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, session_id: SessionId) -> Entry | None:
        """The entry, if it is there."""
        entry = self._entries.get(session_id)
        if entry is not None:
            self._entries.move_to_end(session_id)
        return entry

    async def fetch(self, session_id: SessionId) -> Entry | None:
        """The entry, from the store if need be; None where no such session is known."""
        if (entry := self.get(session_id)) is not None:
            return entry
        fill = self._fills.get(session_id)
        if fill is None:
            fill = self._fills[session_id] = _Fill()
            fill.task = asyncio.create_task(self._fill(session_id, fill))
        # Shielded: one caller that gives up does not take the read from the others.
        return await asyncio.shield(fill.task)

    def note_activity(self, session: Session, at: Instant, idle_deadline: Instant | None) -> None:
        """Take in activity that is not committed yet. It never moves backwards."""
        known = self._unsaved.get(session.id)
        if at > (session.last_active if known is None else known.at):
            self._unsaved[session.id] = Activity(session.id, session.application, at, idle_deadline)

    def apply(self, commit: Commit) -> None:
        """Take in a commit. Called before anybody is told of it."""
        for session in commit.sessions.values():
            self._overtake(session.id)
            self._keep(session)
        for session_id, (at, idle_deadline) in commit.activity.items():
            self._overtake(session_id)
            entry = self._entries.get(session_id)
            if entry is not None and entry.session.ending is None:
                entry.saved = max(entry.saved, at)
                if at > entry.session.last_active:
                    entry.session = with_activity(entry.session, at, idle_deadline)
            self._forget_saved(session_id, at)
        for session_id in commit.pruned:
            self._overtake(session_id)
            self._entries.pop(session_id, None)
            self._unsaved.pop(session_id, None)

    def unsaved(self) -> list[Activity]:
        """The activity that the store does not have."""
        return list(self._unsaved.values())

    def with_activity(self, session: Session) -> Session:
        """A session with the activity that only this process knows of; itself where there is none."""
        unsaved = self._unsaved.get(session.id)
        if unsaved is None or session.ending is not None or unsaved.at <= session.last_active:
            return session
        return with_activity(session, unsaved.at, unsaved.idle_deadline)

    async def _fill(self, session_id: SessionId, fill: _Fill) -> Entry | None:
        try:
            while True:
                fill.overtaken = False
                session = await self._load(session_id)
                # From here to the return nothing waits, so nothing can be applied in between.
                if (entry := self.get(session_id)) is not None:
                    return entry
                if not fill.overtaken:
                    return None if session is None else self._keep(session)
        finally:
            del self._fills[session_id]

    def _keep(self, session: Session) -> Entry:
        saved = session.last_active
        if session.ending is not None:
            self._unsaved.pop(session.id, None)
        else:
            self._forget_saved(session.id, saved)
        entry = self._entries.get(session.id)
        if entry is None:
            entry = self._entries[session.id] = Entry(session, saved)
            if len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        else:
            entry.session, entry.saved = session, saved
            self._entries.move_to_end(session.id)
        return entry

    def _forget_saved(self, session_id: SessionId, at: Instant) -> None:
        unsaved = self._unsaved.get(session_id)
        if unsaved is not None and unsaved.at <= at:
            del self._unsaved[session_id]

    def _overtake(self, session_id: SessionId) -> None:
        if (fill := self._fills.get(session_id)) is not None:
            fill.overtaken = True


class _Fill:
    """A read on its way, and whether something was applied to its session meanwhile."""

    __slots__ = ("overtaken", "task")

    task: asyncio.Task[Entry | None]

    def __init__(self) -> None:
        self.overtaken = False
