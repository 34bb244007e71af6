"""The cache: shared misses, fills that commits overtake, and activity that survives eviction."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sessiond.cache.sessions import SessionCache
from sessiond.domain.session import Session, with_activity
from sessiond.domain.values import Instant, Revision, SessionId
from sessiond.store.contract import Commit
from tests.contracts import samples
from tests.support.clock import START


class Shelf:
    """What the cache reads from: rows that a test sets, handed out when the test opens the door."""

    def __init__(self, *sessions: Session) -> None:
        self.rows = {session.id: session for session in sessions}
        self.reads: list[SessionId] = []
        self.door = asyncio.Event()
        self.door.set()
        self.fault: Exception | None = None

    async def load(self, session_id: SessionId) -> Session | None:
        """The row as it was when the read began."""
        self.reads.append(session_id)
        row = self.rows.get(session_id)
        await asyncio.sleep(0)
        await self.door.wait()
        if self.fault is not None:
            raise self.fault
        return row


def commit(
    *sessions: Session, activity: dict[SessionId, Any] | None = None, pruned: tuple[SessionId, ...] = ()
) -> Commit:
    """A commit of these."""
    return Commit({s.id: s for s in sessions}, activity or {}, pruned, (), Revision(0), Revision(0))


def active(session: Session, at: int) -> Session:
    """The session with activity at so many milliseconds after its opening."""
    return with_activity(session, Instant(START + at), Instant(START + at + 100))


async def test_concurrent_misses_share_a_read() -> None:
    """However many ask for a session that is not cached, it is read once."""
    session = samples.session()
    shelf = Shelf(session)
    cache = SessionCache(shelf.load, 10)
    entries = await asyncio.gather(*(cache.fetch(session.id) for _ in range(50)))
    assert shelf.reads == [session.id]
    assert all(entry is entries[0] for entry in entries)
    assert entries[0] is not None
    assert entries[0].session == session


async def test_a_hit_reads_nothing() -> None:
    """A cached session is not read again."""
    session = samples.session()
    shelf = Shelf(session)
    cache = SessionCache(shelf.load, 10)
    await cache.fetch(session.id)
    await cache.fetch(session.id)
    assert len(shelf.reads) == 1


async def test_what_is_not_there_is_asked_again() -> None:
    """An unknown session is None, and not remembered as such."""
    session = samples.session()
    shelf = Shelf()
    cache = SessionCache(shelf.load, 10)
    assert await cache.fetch(session.id) is None
    shelf.rows[session.id] = session
    assert await cache.fetch(session.id) is not None


@pytest.mark.parametrize("capacity", [10, 1])
async def test_an_overtaken_fill_is_not_kept(capacity: int) -> None:
    """A read that a commit overtook gives the committed state, even where that has been evicted meanwhile."""
    session, other = samples.session(), samples.session()
    ended = replace(session, ending=samples.ending(START))
    shelf = Shelf(session)
    cache = SessionCache(shelf.load, capacity)
    shelf.door.clear()
    reading = asyncio.create_task(cache.fetch(session.id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shelf.reads == [session.id]
    shelf.rows[session.id] = ended
    cache.apply(commit(ended))
    cache.apply(commit(other))  # with room for one this evicts the other
    shelf.door.set()
    entry = await reading
    assert entry is not None
    assert entry.session == ended
    again = await cache.fetch(session.id)
    assert again is not None
    assert again.session == ended


async def test_a_fill_overtaken_by_pruning_is_not_kept() -> None:
    """A read that pruning overtook gives None."""
    session = samples.session(ending=samples.ending(START))
    shelf = Shelf(session)
    cache = SessionCache(shelf.load, 10)
    shelf.door.clear()
    reading = asyncio.create_task(cache.fetch(session.id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del shelf.rows[session.id]
    cache.apply(commit(pruned=(session.id,)))
    shelf.door.set()
    assert await reading is None
    assert cache.get(session.id) is None


async def test_a_failed_read_is_not_remembered() -> None:
    """A read that fails fails for all who share it; the next one asks again."""
    session = samples.session()
    shelf = Shelf(session)
    shelf.fault = OSError("injected")
    cache = SessionCache(shelf.load, 10)
    results = await asyncio.gather(*(cache.fetch(session.id) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    shelf.fault = None
    assert await cache.fetch(session.id) is not None


async def test_one_that_gives_up_does_not_take_the_read_along() -> None:
    """A caller that is cancelled leaves the shared read to the others."""
    session = samples.session()
    shelf = Shelf(session)
    cache = SessionCache(shelf.load, 10)
    shelf.door.clear()
    first, second = (asyncio.create_task(cache.fetch(session.id)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    shelf.door.set()
    assert await second is not None
    assert shelf.reads == [session.id]


async def test_a_commit_is_seen_at_once() -> None:
    """What was committed is what the next look finds, without a read."""
    session = samples.session()
    shelf = Shelf(session)
    cache = SessionCache(shelf.load, 10)
    await cache.fetch(session.id)
    ended = replace(session, ending=samples.ending(START))
    cache.apply(commit(ended))
    entry = cache.get(session.id)
    assert entry is not None
    assert entry.session == ended
    assert len(shelf.reads) == 1


async def test_the_capacity_holds() -> None:
    """There are never more entries than the capacity, and the least recently used go first."""
    sessions = [samples.session() for _ in range(5)]
    cache = SessionCache(Shelf(*sessions).load, 3)
    for session in sessions[:3]:
        await cache.fetch(session.id)
    cache.get(sessions[0].id)
    for session in sessions[3:]:
        await cache.fetch(session.id)
        assert len(cache) == 3
    assert [cache.get(session.id) is not None for session in sessions] == [True, False, False, True, True]
    cache.apply(commit(*(samples.session() for _ in range(10))))
    assert len(cache) == 3


def note(cache: SessionCache, session: Session) -> None:
    touched = active(session, 5)
    cache.note_activity(session, touched.last_active, touched.idle_deadline)


async def test_eviction_loses_no_activity() -> None:
    """Activity that the store does not have outlives the entry: the next read of the session has it."""
    session, other = samples.session(), samples.session()
    cache = SessionCache(Shelf(session, other).load, 1)
    entry = await cache.fetch(session.id)
    assert entry is not None
    touched = active(session, 5)
    cache.note_activity(session, touched.last_active, touched.idle_deadline)
    await cache.fetch(other.id)
    assert cache.get(session.id) is None
    assert [(kept.session_id, kept.at) for kept in cache.unsaved()] == [(session.id, touched.last_active)]
    again = await cache.fetch(session.id)
    assert again is not None
    assert cache.with_activity(again.session) == touched
    assert again.saved == START


async def test_saved_activity_is_forgotten() -> None:
    """Activity is unsaved until a commit has it, and stays so where the commit has only older activity."""
    session = samples.session()
    cache = SessionCache(Shelf(session).load, 10)
    entry = await cache.fetch(session.id)
    assert entry is not None
    note(cache, session)
    cache.apply(commit(activity={session.id: (Instant(START + 4), Instant(START + 104))}))
    assert [unsaved.at for unsaved in cache.unsaved()] == [START + 5]
    assert (cache.with_activity(entry.session).last_active, entry.saved) == (START + 5, START + 4)
    cache.apply(commit(activity={session.id: (Instant(START + 5), Instant(START + 105))}))
    assert cache.unsaved() == []
    assert (entry.session.last_active, entry.saved) == (START + 5, START + 5)


async def test_a_commit_keeps_later_activity() -> None:
    """A commit of the session's other fields does not take back activity that came after it was decided."""
    session = samples.session()
    cache = SessionCache(Shelf(session).load, 10)
    entry = await cache.fetch(session.id)
    assert entry is not None
    note(cache, session)
    cache.apply(commit(replace(session, data_version=1)))
    now = cache.get(session.id)
    assert now is not None
    assert cache.with_activity(now.session) == replace(active(session, 5), data_version=1)
    assert now.saved == START


async def test_an_ending_forgets_activity() -> None:
    """The ending of a session ends its unsaved activity, and later activity changes nothing of it."""
    session = samples.session()
    cache = SessionCache(Shelf(session).load, 10)
    entry = await cache.fetch(session.id)
    assert entry is not None
    note(cache, session)
    ended = replace(session, ending=samples.ending(START + 6))
    cache.apply(commit(ended))
    cache.apply(commit(activity={session.id: (Instant(START + 9), Instant(START + 109))}))
    assert cache.unsaved() == []
    now = cache.get(session.id)
    assert now is not None
    assert now.session == ended
    assert cache.with_activity(ended) == ended


async def test_pruning_forgets_the_session() -> None:
    """A pruned session is in the cache no more."""
    ended = samples.session(ending=samples.ending(START))
    shelf = Shelf(ended)
    cache = SessionCache(shelf.load, 10)
    await cache.fetch(ended.id)
    shelf.rows.clear()
    cache.apply(commit(pruned=(ended.id,)))
    assert await cache.fetch(ended.id) is None
