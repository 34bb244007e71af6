"""The cache against a model: commits that arrive in any order, reads that were overtaken, little room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sessiond.cache.activity import UnsavedActivity
from sessiond.cache.sessions import Entry, SessionCache
from sessiond.domain.lifecycle import with_activity
from sessiond.domain.session import Activity, Session
from sessiond.domain.values import Instant, Revision, SessionId
from sessiond.store.contract import Commit
from sessiond_client.following import Fence
from tests.contracts import samples
from tests.support.clock import START

SESSIONS = 3


class Step(StrEnum):
    """What may happen next; `pick` says to which session, commit or read."""

    WRITE = "the store commits a change of one session, or of two"
    END = "the store commits an ending"
    TOUCH = "the store commits activity"
    APPLY = "the cache hears of any commit that it has not heard of"
    BEGIN = "somebody fetches a session"
    FINISH = "any read of the store comes back, with what it found when it began"


STORIES = st.lists(st.tuples(st.sampled_from(Step), st.integers(0, 11)), max_size=60)


def at_rest(session: Session) -> Session:
    """The session without its activity: that is no part of what a revision says."""
    return replace(session, last_active=session.created, idle_deadline=None)


class World:
    """A store with a few sessions, a cache that hears of its commits in any order, and what must hold."""

    def __init__(self, make: Callable[..., SessionCache], capacity: int) -> None:
        self.cache = make(self.load, UnsavedActivity(), capacity)
        self.rows = [samples.session() for _ in range(SESSIONS)]
        self.ids = [row.id for row in self.rows]
        self.states = {(row.id, row.revision): row for row in self.rows}
        self.revision, self.now = 0, START
        self.unheard: list[Commit] = []
        self.reads: list[tuple[asyncio.Future[Session], Session]] = []
        self.fetches: list[asyncio.Task[Entry | None]] = []
        self.newest = dict.fromkeys(self.ids, Revision(0))
        self.last: dict[SessionId, tuple[Entry, Instant]] = {}

    async def load(self, session_id: SessionId) -> Session | None:
        """What the store has now, when the story says so."""
        coming: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self.reads.append((coming, self.rows[self.ids.index(session_id)]))
        return await coming

    # Steps

    async def take(self, step: Step, pick: int) -> None:
        """One step of the story, and a look at what came of it."""
        match step:
            case Step.WRITE | Step.END:
                self.write({pick % SESSIONS, pick // SESSIONS % SESSIONS}, ends=step is Step.END)
            case Step.TOUCH:
                self.touch(pick % SESSIONS)
            case Step.APPLY if self.unheard:
                self.apply(self.unheard.pop(pick % len(self.unheard)))
            case Step.BEGIN:
                self.fetches.append(asyncio.create_task(self.cache.fetch(self.ids[pick % SESSIONS])))
            case Step.FINISH if self.reads:
                coming, found = self.reads.pop(pick % len(self.reads))
                coming.set_result(found)
        await self.settle()

    def write(self, numbers: set[int], *, ends: bool) -> None:
        """The store changes sessions that live."""
        changed: dict[SessionId, Session] = {}
        for number in numbers:
            row = self.rows[number]
            if row.ending is not None:
                continue
            self.revision += 1
            row = replace(row, revision=Revision(self.revision), data_version=self.revision)
            row = replace(row, ending=samples.ending(self.now)) if ends else row
            self.rows[number] = changed[row.id] = self.states[row.id, row.revision] = row
        if changed:
            self.unheard.append(Commit(changed, {}, (), (), Revision(self.revision), Revision(0)))

    def touch(self, number: int) -> None:
        """The store takes in activity, of an ended session too: it leaves that alone."""
        self.now = Instant(self.now + 1)
        activity = Activity(self.ids[number], self.now, Instant(self.now + 1000))
        self.rows[number] = with_activity(self.rows[number], activity)
        commit = Commit({}, {activity.session_id: activity}, (), (), Revision(self.revision), Revision(0))
        self.unheard.append(commit)

    def apply(self, commit: Commit) -> None:
        """The cache hears of a commit."""
        self.cache.apply(commit)
        for session in commit.sessions.values():
            self.newest[session.id] = max(self.newest[session.id], session.revision)

    # What must hold

    async def settle(self) -> None:
        """Let fetches that can go on do so, and look at what they gave and at what is cached."""
        for _ in range(6):
            await asyncio.sleep(0)
        for fetch in [fetch for fetch in self.fetches if fetch.done()]:
            self.fetches.remove(fetch)
            entry = fetch.result()
            assert entry is not None
            self.check(entry)
        for session_id in self.ids:
            if (entry := self.cache._entries.peek(session_id)) is not None:
                self.check(entry)
        assert len(self.cache) <= SESSIONS

    def check(self, entry: Entry) -> None:
        """The newest state that was ever heard of or read, whole; and activity that never goes back."""
        session = entry.session
        assert session.revision >= self.newest[session.id], "an older state came back"
        assert at_rest(session) == at_rest(self.states[session.id, session.revision])
        self.newest[session.id] = session.revision
        before, last_active = self.last.get(session.id, (entry, session.last_active))
        assert before is not entry or session.ending is not None or session.last_active >= last_active
        assert entry.saved <= self.now
        self.last[session.id] = (entry, session.last_active)

    async def end(self) -> None:
        """Everything is heard and read in the end, and then everything is known as it is."""
        while self.unheard or self.reads or self.fetches:
            await self.take(Step.APPLY, 0)
            await self.take(Step.FINISH, 0)
        for number, session_id in enumerate(self.ids):
            await self.take(Step.BEGIN, number)
            await self.take(Step.FINISH, 0)
            entry = self.cache.get(session_id)
            assert entry is not None
            assert at_rest(entry.session) == at_rest(self.rows[number])


async def play(story: list[tuple[Step, int]], make: Callable[..., SessionCache], capacity: int) -> None:
    """Live through a story, and look after each step."""
    world = World(make, capacity)
    for step, pick in story:
        await world.take(step, pick)
    await world.end()


@settings(max_examples=400, deadline=None)
@given(story=STORIES, capacity=st.integers(1, SESSIONS))
def test_the_newest_state_is_cached(story: list[tuple[Step, int]], capacity: int) -> None:
    """Whatever order commits and reads come in, a cached session is the newest heard of; an ended one stays ended."""
    asyncio.run(play(story, SessionCache, capacity))


class LastComesFirst(SessionCache):
    """Protection off: the state that arrives last is kept, whatever its revision."""

    def _put(self, session: Session) -> Entry:
        entry = Entry(session, session.last_active)
        self._entries.put(session.id, entry)
        return entry


class Forgetful(SessionCache):
    """Protection off: the revisions of evicted sessions are not remembered."""

    def apply(self, commit: Commit) -> None:
        self._newest = Revision(-1)
        super().apply(commit)


class NoFence(Fence[SessionId]):
    """A fence that every read passes."""

    def holds(self, mark: int, key: SessionId) -> bool:
        """Let every read pass."""
        return True


class Hasty(SessionCache):
    """Protection off: a read is kept although a commit has changed its session in the meantime."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._fence = NoFence()


@pytest.mark.parametrize("careless", [LastComesFirst, Forgetful, Hasty])
def test_a_careless_cache_is_noticed(careless: type[SessionCache]) -> None:
    """Without any one of the three protections the model's test fails."""

    @settings(
        max_examples=2000, deadline=None, derandomize=True, database=None, phases=[Phase.generate], print_blob=False
    )
    @given(story=STORIES)
    def compare(story: list[tuple[Step, int]]) -> None:
        asyncio.run(play(story, careless, 1))

    with pytest.raises(AssertionError, match="an older state came back"):
        compare()
