"""The cache: shared misses, fills that commits overtake, and activity that survives eviction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sessiond.cache.activity import UnsavedActivity
from sessiond.cache.sessions import Entry, SessionCache
from sessiond.domain.lifecycle import with_activity
from sessiond.domain.session import Activity, Session
from sessiond.domain.values import ClientContext, Instant, Revision, SessionId
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


def commit(*sessions: Session, activity: Sequence[Activity] = (), pruned: tuple[SessionId, ...] = ()) -> Commit:
    """A commit of these."""
    revision = max((session.revision for session in sessions), default=Revision(0))
    moved = {one.session_id: one for one in activity}
    return Commit({s.id: s for s in sessions}, moved, pruned, (), revision, Revision(0))


def activity_of(session: Session, at: int, client: ClientContext | None = None) -> Activity:
    """Activity at so many milliseconds after the session's opening."""
    return Activity(session.id, Instant(START + at), Instant(START + at + 100), client)


def active(session: Session, at: int) -> Session:
    """The session with that activity."""
    return with_activity(session, activity_of(session, at))


def changed(session: Session, revision: int, **fields: Any) -> Session:
    """The session as an event with that revision leaves it."""
    return replace(session, revision=Revision(revision), **fields)


def cache_of(shelf: Shelf, capacity: int) -> SessionCache:
    """A cache that reads from the shelf."""
    return SessionCache(shelf.load, UnsavedActivity(), capacity)


async def test_concurrent_misses_share_a_read() -> None:
    """However many ask for a session that is not cached, it is read once."""
    session = samples.session()
    shelf = Shelf(session)
    cache = cache_of(shelf, 10)
    entries = await asyncio.gather(*(cache.fetch(session.id) for _ in range(50)))
    assert shelf.reads == [session.id]
    assert all(entry is entries[0] for entry in entries)
    assert entries[0] is not None
    assert entries[0].session == session


async def test_a_hit_reads_nothing() -> None:
    """A cached session is not read again."""
    session = samples.session()
    shelf = Shelf(session)
    cache = cache_of(shelf, 10)
    await cache.fetch(session.id)
    await cache.fetch(session.id)
    assert len(shelf.reads) == 1


async def test_what_is_not_there_is_asked_again() -> None:
    """An unknown session is None, and not remembered as such."""
    session = samples.session()
    shelf = Shelf()
    cache = cache_of(shelf, 10)
    assert await cache.fetch(session.id) is None
    shelf.rows[session.id] = session
    assert await cache.fetch(session.id) is not None


@pytest.mark.parametrize("capacity", [10, 1])
async def test_an_overtaken_fill_is_not_kept(capacity: int) -> None:
    """A read that a commit overtook gives the committed state, even where that has been evicted meanwhile."""
    session, other = samples.session(), samples.session()
    ended = changed(session, 1, ending=samples.ending(START))
    shelf = Shelf(session)
    cache = cache_of(shelf, capacity)
    shelf.door.clear()
    reading = asyncio.create_task(cache.fetch(session.id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shelf.reads == [session.id]
    shelf.rows[session.id] = ended
    cache.apply(commit(ended))
    cache.apply(commit(changed(other, 2)))  # with room for one this evicts the other
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
    cache = cache_of(shelf, 10)
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
    cache = cache_of(shelf, 10)
    results = await asyncio.gather(*(cache.fetch(session.id) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    shelf.fault = None
    assert await cache.fetch(session.id) is not None


async def test_one_that_gives_up_does_not_take_the_read_along() -> None:
    """A caller that is cancelled leaves the shared read to the others."""
    session = samples.session()
    shelf = Shelf(session)
    cache = cache_of(shelf, 10)
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
    cache = cache_of(shelf, 10)
    await cache.fetch(session.id)
    ended = changed(session, 1, ending=samples.ending(START))
    cache.apply(commit(ended))
    entry = cache.get(session.id)
    assert entry is not None
    assert entry.session == ended
    assert len(shelf.reads) == 1


async def test_the_capacity_holds() -> None:
    """There are never more entries than the capacity, and the least recently used go first."""
    sessions = [samples.session() for _ in range(5)]
    cache = cache_of(Shelf(*sessions), 3)
    for session in sessions[:3]:
        await cache.fetch(session.id)
    cache.get(sessions[0].id)
    for session in sessions[3:]:
        await cache.fetch(session.id)
        assert len(cache) == 3
    assert [cache.get(session.id) is not None for session in sessions] == [True, False, False, True, True]
    cache.apply(commit(*(samples.session(revision=Revision(number)) for number in range(1, 11))))
    assert len(cache) == 3


@dataclass
class Kept:
    """A cache of one session, its entry, and the activity that is not saved."""

    session: Session
    cache: SessionCache
    entry: Entry
    unsaved: UnsavedActivity

    @property
    def now(self) -> Session:
        """The session as the cache has it now, with unsaved activity."""
        entry = self.cache.get(self.session.id)
        assert entry is not None
        return self.unsaved.apply_to(entry.session)

    def note(self, at: int, client: ClientContext | None = None) -> None:
        """Take in activity."""
        activity = activity_of(self.session, at, client)
        self.unsaved.note(self.entry.session, activity.at, activity.idle_deadline, activity.client)


async def kept(capacity: int = 10, *others: Session) -> Kept:
    """A session in a cache."""
    session, unsaved = samples.session(), UnsavedActivity()
    cache = SessionCache(Shelf(session, *others).load, unsaved, capacity)
    entry = await cache.fetch(session.id)
    assert entry is not None
    return Kept(session, cache, entry, unsaved)


async def test_eviction_loses_no_activity() -> None:
    """Activity that the store does not have outlives the entry: the next read of the session has it."""
    other = samples.session()
    case = await kept(1, other)
    case.note(5)
    await case.cache.fetch(other.id)
    assert case.cache.get(case.session.id) is None
    assert [unsaved.activity for unsaved in case.unsaved.all()] == [activity_of(case.session, 5)]
    again = await case.cache.fetch(case.session.id)
    assert again is not None
    assert case.now == active(case.session, 5)
    assert again.saved == START


async def test_saved_activity_is_forgotten() -> None:
    """Activity is unsaved until a commit has it, and stays so where the commit has only older activity."""
    case = await kept()
    case.note(5)
    case.cache.apply(commit(activity=[activity_of(case.session, 4)]))
    assert [unsaved.activity.at for unsaved in case.unsaved.all()] == [START + 5]
    assert (case.now.last_active, case.entry.saved) == (START + 5, START + 4)
    case.cache.apply(commit(activity=[activity_of(case.session, 5)]))
    assert case.unsaved.all() == []
    assert (case.entry.session.last_active, case.entry.saved) == (START + 5, START + 5)


async def test_activity_never_moves_backwards() -> None:
    """Activity that is not later than what is known changes nothing, saved or not."""
    case = await kept()
    case.note(0)
    assert case.unsaved.all() == []
    for at in (5, 4, 5):
        case.note(at)
    assert case.now == active(case.session, 5)
    case.cache.apply(commit(activity=[activity_of(case.session, 9)]))
    case.cache.apply(commit(activity=[activity_of(case.session, 8)]))
    assert (case.now.last_active, case.entry.saved) == (START + 9, START + 9)


async def test_a_commit_keeps_later_activity() -> None:
    """A commit of the session's other fields does not take back activity that came after it was decided."""
    case = await kept()
    case.note(5)
    case.cache.apply(commit(changed(case.session, 1, data_version=1)))
    assert case.now == changed(active(case.session, 5), 1, data_version=1)
    assert case.entry.saved == START


async def test_a_commit_keeps_later_activity_that_is_saved() -> None:
    """A commit that was decided before saved activity does not take that back either."""
    case = await kept()
    seen = ClientContext("192.0.2.1", "Firefox")
    case.cache.apply(commit(activity=[activity_of(case.session, 5, seen)]))
    case.cache.apply(commit(changed(case.session, 1, data_version=1)))
    assert case.now == changed(active(case.session, 5), 1, data_version=1, last_client=seen)
    assert case.entry.saved == START + 5


async def test_the_newest_revision_wins() -> None:
    """Of two states of a session the one with the greater revision is cached, whichever is applied last."""
    case = await kept()
    newer, older = changed(case.session, 7, data_version=2), changed(case.session, 5, data_version=1)
    case.cache.apply(commit(newer))
    case.cache.apply(commit(older))
    assert case.now == newer


@pytest.mark.parametrize("capacity", [10, 1])
async def test_an_older_state_does_not_come_back_after_eviction(capacity: int) -> None:
    """A state that arrives late is not cached, even where the newer one has been evicted: the next look reads."""
    other = samples.session()
    case = await kept(capacity, other)
    ended = changed(case.session, 7, ending=samples.ending(START))
    case.cache.apply(commit(ended))
    await case.cache.fetch(other.id)
    case.cache.apply(commit(changed(case.session, 5, data_version=1)))
    entry = case.cache.get(case.session.id)
    assert entry is None or entry.session == ended


async def test_an_older_state_does_not_come_back_after_a_read() -> None:
    """A state that arrives after a newer one was read, and evicted, is not cached either."""
    session, other = samples.session(revision=Revision(7)), samples.session()
    cache = cache_of(Shelf(session, other), 1)
    await cache.fetch(session.id)
    await cache.fetch(other.id)
    cache.apply(commit(changed(session, 5, data_version=1)))
    assert cache.get(session.id) is None


async def test_an_ending_forgets_activity() -> None:
    """The ending of a session ends its unsaved activity, and later activity changes nothing of it."""
    case = await kept()
    case.note(5)
    ended = changed(case.session, 1, ending=samples.ending(START + 6))
    case.cache.apply(commit(ended))
    case.cache.apply(commit(activity=[activity_of(case.session, 9)]))
    assert case.unsaved.all() == []
    assert case.now == ended


async def test_the_last_client_outlives_activity_without_one() -> None:
    """Activity of an unknown client leaves the last known one, in memory as in the store."""
    case = await kept()
    seen = ClientContext("192.0.2.1", "Firefox")
    case.note(5, seen)
    case.note(6)
    assert case.now.last_client == seen
    [unsaved] = case.unsaved.all()
    assert unsaved.activity == activity_of(case.session, 6, seen)


async def test_pruning_forgets_the_session() -> None:
    """A pruned session is in the cache no more."""
    ended = samples.session(ending=samples.ending(START))
    shelf = Shelf(ended)
    cache = cache_of(shelf, 10)
    await cache.fetch(ended.id)
    shelf.rows.clear()
    cache.apply(commit(pruned=(ended.id,)))
    assert await cache.fetch(ended.id) is None


async def test_pruning_forgets_activity() -> None:
    """What was noted of a pruned session is forgotten with it."""
    case = await kept()
    case.note(5)
    case.cache.apply(commit(pruned=(case.session.id,)))
    assert case.cache.get(case.session.id) is None
    assert case.unsaved.all() == []


async def test_a_change_of_another_process_outlasts_an_earlier_commit() -> None:
    """A commit that is applied after a later change of another process does not bring the earlier state back."""
    session = samples.session()
    shelf = Shelf(changed(session, 11, subject="later"))
    cache = cache_of(shelf, 10)
    cache.apply(Commit({}, {}, (), (), Revision(11), Revision(0), outdated=(session.id,)))
    cache.apply(commit(changed(session, 10)))
    entry = await cache.fetch(session.id)
    assert entry is not None
    assert entry.session.subject == "later"
