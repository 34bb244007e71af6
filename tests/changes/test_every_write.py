"""No silent change: whatever units are carried out, each session that is written has an event that says so."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiond.changes.login import Authenticate, Create, Roll
from sessiond.changes.maintenance import Expire
from sessiond.changes.use import Use
from sessiond.domain.event import EventType
from sessiond.domain.session import Session
from sessiond.domain.values import Revision
from sessiond.eventlog import work
from sessiond.eventlog.work import Needs, Work
from sessiond.store.contract import Changes, Head
from sessiond.store.sqlite.store import SqliteStore
from tests.changes.world import DRIVERS, World, faults_of, units_of_the_server
from tests.contracts import samples
from tests.contracts.store import put

OFTEN = (Create, Create, Authenticate, Authenticate, Use, Use, Use, Roll, Expire)
KINDS = [*DRIVERS, *OFTEN]
STORIES = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2**32)), min_size=20, max_size=60)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    yield store
    await store.close()


@pytest.fixture
async def world(store: SqliteStore) -> AsyncIterator[World]:
    world = World(store)
    yield world
    await world.close()


def test_every_unit_is_driven() -> None:
    """The stories below have every unit of work that the server has."""
    assert set(DRIVERS) == units_of_the_server()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=STORIES)
async def test_every_write_of_a_session_has_its_event(store: SqliteStore, story: list[tuple[type, int]]) -> None:
    """Whatever is carried out, in whatever order: a session that is written has an event with its id and revision."""
    world = World(store)
    try:
        for driver, seed in story:
            await world.take(driver, seed)
    finally:
        await world.close()


async def test_the_stories_reach_everything(world: World) -> None:
    """A long story carries out every unit, writes many sessions, and meets every event of a session's life."""
    dice = random.Random(8)
    other = {EventType.GUESSING_SUSPECTED}  # recorded by the token gate, about no session
    for step in range(10_000):
        await world.take(dice.choice(KINDS), dice.randrange(2**32))
        met = {event.type for event in world.events.values()}
        if step > 1200 and met >= set(EventType) - other and world.done >= set(DRIVERS):
            break
    assert met == set(EventType) - other
    assert world.done == set(DRIVERS)
    assert world.store.written > 300


@dataclass
class Silent:
    """A unit that changes a session and records nothing of it."""

    session: Session

    def needs(self) -> Needs:
        """The session."""
        return Needs(sessions=[self.session.id])

    def apply(self, work: Work) -> None:
        """Past the only door that there is."""
        work._draft.sessions[self.session.id] = replace(self.session, must_authenticate=True)


async def test_a_silent_change_is_refused(world: World, store: SqliteStore) -> None:
    """A unit that changes a session without an event is refused, and nothing of it is written or published."""
    session = samples.session()
    await put(store, session)
    with pytest.raises(AssertionError, match="without an event"):
        await world.replica.journal.submit(Silent(session))
    assert await store.session(session.id) == session
    assert world.store.written == 0
    assert [commit.sessions for commit in world.replica.commits] == [{}]


async def test_a_silent_change_would_be_noticed(
    world: World, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If such a unit were not refused, the watch that the stories rely on would report it."""
    monkeypatch.setattr(work, "_check_recorded", lambda draft, before: None)
    session = samples.session()
    await put(store, session)
    await world.replica.journal.submit(Silent(session))
    assert any(str(session.id) in fault for fault in world.store.faults)


def test_each_kind_of_silence_is_reported() -> None:
    """A row without its event, data without its row, a gap, and a write after the end are each reported."""
    head = Head(Revision(4), Revision(0))
    session = samples.session(revision=Revision(5))
    told = samples.event(5, session_id=session.id)
    sound = Changes(sessions={session.id: session}, events=[told], data={session.id: {"k": b"v"}})
    assert list(faults_of(head, {}, sound)) == []
    ended = {session.id: replace(session, ending=samples.ending(0))}
    for changes, before in (
        (replace(sound, events=[samples.event(5)]), {}),
        (replace(sound, sessions={session.id: replace(session, revision=Revision(4))}), {}),
        (replace(sound, events=[samples.event(6, session_id=session.id)]), {}),
        (replace(sound, sessions={}), {}),
        (sound, ended),
    ):
        assert list(faults_of(head, before, changes)) != []
