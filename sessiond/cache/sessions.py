"""The cache of sessions: the newest revision of each wins, whatever the order in which they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sessiond.cache.activity import UnsavedActivity
from sessiond.domain.lifecycle import with_activity
from sessiond.domain.session import Session, activity_of
from sessiond.domain.values import NO_REVISION, Instant, SessionId
from sessiond.store.contract import Commit
from sessiond.system.lru import Lru

__all__ = ["Entry", "SessionCache"]


class Entry:
    """One cached session: as it was committed or read, and the last activity that the store has.

    Later activity is not in `session` but in `UnsavedActivity`: a session's value changes only when something about it
    does, so that what is derived from it can be kept with it.
    """

    __slots__ = ("saved", "session")

    def __init__(self, session: Session, saved: Instant) -> None:
        self.session = session
        self.saved = saved


class SessionCache:
    """The most recently used sessions, kept true by every commit.

    An entry is filled only from a read that nothing was applied to since it began; concurrent misses of a session
    share one read. A session that is not here is taken from a commit only if it is newer than everything seen so far:
    an older state than one that was evicted must not come back. `activity` holds what the store does not have yet.
    """

    def __init__(
        self, load: Callable[[SessionId], Awaitable[Session | None]], activity: UnsavedActivity, capacity: int
    ) -> None:
        self._load = load
        self._activity = activity
        self._entries: Lru[SessionId, Entry] = Lru(capacity)
        self._fills: dict[SessionId, _Fill] = {}
        self._newest = NO_REVISION

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, session_id: SessionId) -> Entry | None:
        """The entry, if it is there."""
        return self._entries.get(session_id)

    async def fetch(self, session_id: SessionId) -> Entry | None:
        """The entry, from the store if need be; None if no such session is known."""
        if (entry := self._entries.get(session_id)) is not None:
            return entry
        fill = self._fills.get(session_id)
        if fill is None:
            fill = self._fills[session_id] = _Fill()
            fill.task = asyncio.create_task(self._fill(session_id, fill))
        # Shielded: one caller that gives up does not take the read from the others.
        return await asyncio.shield(fill.task)

    def apply(self, commit: Commit) -> None:
        """Take in a commit. Called before anybody is told of it."""
        newest = self._newest
        for session in commit.sessions.values():
            self._overtake(session.id)
            if session.revision > newest or session.id in self._entries:
                self._keep(session)
            self._settle(session)
        for session_id, activity in commit.activity.items():
            self._overtake(session_id)
            entry = self._entries.peek(session_id)
            if entry is not None and entry.session.ending is None:
                entry.saved = max(entry.saved, activity.at)
                entry.session = with_activity(entry.session, activity)
            self._activity.saved(session_id, activity.at)
        for session_id in commit.pruned:
            self._overtake(session_id)
            self._entries.pop(session_id)
            self._activity.drop(session_id)

    async def _fill(self, session_id: SessionId, fill: _Fill) -> Entry | None:
        try:
            while True:
                fill.overtaken = False
                session = await self._load(session_id)
                # From here to the return nothing waits, so nothing can be applied in between.
                if (entry := self.get(session_id)) is not None:
                    return entry
                if fill.overtaken:
                    continue
                if session is None:
                    return None
                self._settle(session)
                return self._keep(session)
        finally:
            del self._fills[session_id]

    def _keep(self, session: Session) -> Entry:
        """Keep a session, unless a newer revision of it is there already."""
        entry = self._entries.get(session.id)
        if entry is None:
            entry = Entry(session, session.last_active)
            self._entries.put(session.id, entry)
        elif entry.session.revision <= session.revision:
            # A write may have been decided before activity that was saved since; that is not lost again.
            saved = max(entry.saved, session.last_active) if session.ending is None else session.last_active
            entry.session, entry.saved = _latest(session, entry.session), saved
        self._newest = max(self._newest, session.revision)
        return entry

    def _settle(self, session: Session) -> None:
        """Forget the activity that a committed state has, all of it if the session has ended."""
        if session.ending is not None:
            self._activity.drop(session.id)
        else:
            self._activity.saved(session.id, session.last_active)

    def _overtake(self, session_id: SessionId) -> None:
        if (fill := self._fills.get(session_id)) is not None:
            fill.overtaken = True


def _latest(session: Session, before: Session) -> Session:
    """The session, with the activity of its earlier state if that is later."""
    if before.ending is not None:
        return session
    return with_activity(session, activity_of(before))


class _Fill:
    """A read on its way, and whether something was applied to its session meanwhile."""

    __slots__ = ("overtaken", "task")

    task: asyncio.Task[Entry | None]

    def __init__(self) -> None:
        self.overtaken = False
