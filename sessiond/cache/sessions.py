"""The session cache: the newest revision of each session wins, whatever the order of arrival."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sessiond.cache.activity import UnsavedActivity
from sessiond.domain.lifecycle import with_activity
from sessiond.domain.session import Session, activity_of
from sessiond.domain.values import NO_REVISION, Instant, SessionId
from sessiond.store.contract import Commit
from sessiond.system.lru import Lru
from sessiond.system.ongoing import note
from sessiond_client.following import Fence

__all__ = ["Entry", "SessionCache"]


class Entry:
    """One cached session, as it was committed or read, and `saved`, the last activity that the store has.

    Later activity is kept in `UnsavedActivity` and not in `session`. So the `session` object is replaced only when the
    session changes, and values derived from it can be cached under it.
    """

    __slots__ = ("saved", "session")

    def __init__(self, session: Session, saved: Instant) -> None:
        self.session = session
        self.saved = saved


class SessionCache:
    """The most recently used sessions, at most `capacity`, updated by every commit.

    The result of a read is discarded if a commit changed the session since the read began. Concurrent misses of a
    session share one read. A session that is not cached is added from a commit only if it is newer than every revision
    cached so far, so that an older state than an evicted one cannot return. `activity` holds the activity that is not
    saved yet. While `is_open` returns False (None: it is always open), other processes may have changed
    sessions without notice: then nothing is answered from the cache, and each call reads the store itself.
    """

    def __init__(
        self,
        load: Callable[[SessionId], Awaitable[Session | None]],
        activity: UnsavedActivity,
        capacity: int,
        is_open: Callable[[], bool] | None = None,
    ) -> None:
        self._load = load
        self._is_open = is_open or _always
        self._activity = activity
        self._entries: Lru[SessionId, Entry] = Lru(capacity)
        self._fills: dict[SessionId, asyncio.Task[Entry | None]] = {}
        self._fence: Fence[SessionId] = Fence()
        self._newest = NO_REVISION
        self.reads = 0
        """How many sessions were read from the store, because memory did not have them or might have been outdated."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_open(self) -> bool:
        """Whether memory is true: no other process can have changed anything without notice."""
        return self._is_open()

    def get(self, session_id: SessionId) -> Entry | None:
        """Return the entry, if it is cached and the cache is open."""
        return self._entries.get(session_id) if self._is_open() else None

    async def fetch(self, session_id: SessionId) -> Entry | None:
        """Return the entry, read from the store if it is not cached; None if the session does not exist."""
        if not self._is_open():
            return await self.reload(session_id)
        if (entry := self._entries.get(session_id)) is not None:
            return entry
        fill = self._fills.get(session_id)
        if fill is None:
            fill = self._fills[session_id] = asyncio.create_task(self._fill(session_id))
        # Shielded: cancelling one caller must not cancel the read for the others.
        entry = await asyncio.shield(fill)
        # The shared read may have begun before this call; that matters only if commits could have gone unnoticed.
        return entry if self._is_open() else await self.reload(session_id)

    async def reload(self, session_id: SessionId) -> Entry | None:
        """Return the entry as the store has it now, or newer; None if the session does not exist."""
        session = await self._read(session_id)
        # No await from here to the return, so no commit can be applied in between.
        if session is None:
            self._entries.pop(session_id)
            return None
        self._drop_saved_activity(session)
        return self._put(session)

    def clear(self) -> None:
        """Forget everything. Reads in progress are repeated."""
        self._fence.note_all()
        self._entries.clear()
        self._newest = NO_REVISION

    def apply(self, commit: Commit) -> None:
        """Apply a commit. Must be called before callers and subscribers learn of the commit."""
        for session_id in commit.outdated:
            self._fence.note(session_id)
            self._entries.pop(session_id)
        if commit.outdated:
            # An own commit from before these changes may still be applied: it must not bring an earlier state back.
            self._newest = max(self._newest, commit.revision)
        newest = self._newest
        for session in commit.sessions.values():
            self._fence.note(session.id)
            if session.revision > newest or session.id in self._entries:
                self._put(session)
            self._drop_saved_activity(session)
        for session_id, activity in commit.activity.items():
            self._fence.note(session_id)
            entry = self._entries.peek(session_id)
            if entry is not None and entry.session.ending is None:
                entry.saved = max(entry.saved, activity.at)
                entry.session = with_activity(entry.session, activity)
            self._activity.saved(session_id, activity.at)
        for session_id in commit.pruned:
            self._fence.note(session_id)
            self._entries.pop(session_id)
            self._activity.drop(session_id)

    async def _fill(self, session_id: SessionId) -> Entry | None:
        try:
            session = await self._read(session_id)
            # No await from here to the return, so no commit can be applied in between.
            if (entry := self._entries.get(session_id)) is not None:
                return entry
            if session is None:
                return None
            self._drop_saved_activity(session)
            return self._put(session)
        finally:
            del self._fills[session_id]

    async def _read(self, session_id: SessionId) -> Session | None:
        """Read a session, again if a commit has changed it in the meantime."""
        while True:
            mark = self._fence.begin()
            try:
                self.reads += 1
                note(session_from="store")
                session = await self._load(session_id)
                if self._fence.holds(mark, session_id):
                    return session
            finally:
                self._fence.end()

    def _put(self, session: Session) -> Entry:
        """Cache a session, unless a newer revision of it is cached already."""
        entry = self._entries.get(session.id)
        if entry is None:
            entry = Entry(session, session.last_active)
            self._entries.put(session.id, entry)
        elif entry.session.revision <= session.revision:
            # The session may have been read before activity that was saved since: keep the later activity.
            saved = max(entry.saved, session.last_active) if session.ending is None else session.last_active
            entry.session, entry.saved = _latest(session, entry.session), saved
        self._newest = max(self._newest, session.revision)
        return entry

    def _drop_saved_activity(self, session: Session) -> None:
        """Forget the unsaved activity that a committed state includes; all of it if the session has ended."""
        if session.ending is not None:
            self._activity.drop(session.id)
        else:
            self._activity.saved(session.id, session.last_active)


def _always() -> bool:
    return True


def _latest(session: Session, before: Session) -> Session:
    """Return the session with the activity of its earlier state, if that activity is later."""
    if before.ending is not None:
        return session
    return with_activity(session, activity_of(before))
