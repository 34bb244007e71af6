"""The journal: group commit, units that fail alone, and what happens when the store breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sessiond.domain.errors import Unavailable
from sessiond.domain.event import EventType
from sessiond.domain.session import Activity, Session
from sessiond.domain.values import Instant, Millis, Revision
from sessiond.eventlog.journal import Bounds, Journal
from sessiond.eventlog.work import Done, Needs, Work
from sessiond.store.contract import Commit, StoreFailed, StoreUnavailable
from sessiond.store.sqlite.store import SqliteStore
from tests.contracts import samples
from tests.contracts.store import data_of, put
from tests.eventlog.memory import NO_MEMORY, Memory
from tests.store.faulty import FaultyStore, RepeatingStore
from tests.support.clock import START, ManualClock


class Refused(Exception):
    """What a unit raises to be refused."""


@dataclass
class Step:
    """A unit that does what the test says, between reading what it needs and its commit."""

    do: Callable[[Work], Any]
    sessions: tuple[Any, ...] = ()

    def needs(self) -> Needs:
        """The sessions that the test names."""
        return Needs(sessions=self.sessions, data=self.sessions)

    def apply(self, work: Work) -> Any:
        """What the test says."""
        return self.do(work)


def opens(session: Session) -> Step:
    """Opens a session, with its event."""
    return Step(lambda work: work.save(session, EventType.SESSION_CREATED, samples.REVOKED))


def writes_then_refuses(session: Session) -> Step:
    """Writes everything that a unit can write, and then refuses."""

    def do(work: Work) -> None:
        work.save_ended(session, Millis(1), EventType.SESSION_CREATED, samples.REVOKED)
        work.put_data(session.id, {"k": b"v"})
        work.put_activity(Activity(session.id, Instant(START + 9), None))
        work.keep_answer(samples.answer(START + 9))
        work.prune([session.id])
        work.forget_answers()
        work.move_horizon(Revision(1))
        raise Refused

    return Step(do)


@dataclass
class Bench:
    """A journal over a real store with doors, and what it told."""

    store: FaultyStore
    journal: Journal
    commits: list[Commit] = field(default_factory=list)
    failures: list[StoreFailed] = field(default_factory=list)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A journal over a real SQLite store whose faults the test sets."""
    sqlite = await SqliteStore.open(tmp_path / "sessiond.db")
    commits: list[Commit] = []
    failures: list[StoreFailed] = []
    store = FaultyStore(sqlite)
    journal = Journal(store, ManualClock(), NO_MEMORY, commits.append, failures.append)
    yield Bench(store, journal, commits, failures)
    store.may_commit.set()
    await journal.close()
    await sqlite.close()


async def hold(bench: Bench) -> asyncio.Task[Any]:
    """Have the writer stand before its commit, so that what is submitted now gathers in the next group."""
    bench.store.may_commit.clear()
    bench.store.at_door.clear()
    held = asyncio.create_task(bench.journal.submit(opens(samples.session())))
    await bench.store.at_door.wait()
    return held


async def submit_all(bench: Bench, *steps: Step) -> list[Any]:
    """Submit these in one group; the results and exceptions, in order."""
    held = await hold(bench)
    tasks = [asyncio.create_task(bench.journal.submit(step)) for step in steps]
    await asyncio.sleep(0)
    bench.store.may_commit.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await held
    return results


async def test_what_gathers_is_committed_together(bench: Bench) -> None:
    """Units that wait while a transaction is open share the next one."""
    results = await submit_all(bench, *(opens(samples.session()) for _ in range(20)))
    assert [done.revision for done in results] == list(range(2, 22))
    assert len(bench.store.groups) == 2
    assert len(bench.commits) == 2


async def test_a_group_is_bounded(tmp_path: Path) -> None:
    """More units than a group may hold go into several transactions, in order."""
    sqlite = await SqliteStore.open(tmp_path / "sessiond.db")
    store, commits = FaultyStore(sqlite), list[Commit]()
    journal = Journal(store, ManualClock(), NO_MEMORY, commits.append, lambda _: None, bounds=Bounds(group=4))
    done = await asyncio.gather(*(journal.submit(opens(samples.session())) for _ in range(10)))
    await journal.close()
    await sqlite.close()
    assert [one.revision for one in done] == list(range(1, 11))
    assert max(len(changes.events) for changes in store.groups) == 4


async def test_a_unit_that_refuses_fails_alone(bench: Bench) -> None:
    """A refused unit leaves nothing, and the others of its group are carried out."""
    good, bad, also_good = samples.session(), samples.session(), samples.session()
    results = await submit_all(bench, opens(good), writes_then_refuses(bad), opens(also_good))
    assert isinstance(results[1], Refused)
    assert await bench.store.session(good.id) == results[0].result
    assert await bench.store.session(bad.id) is None
    assert await data_of(bench.store, bad.id) == {}
    assert await bench.store.session(also_good.id) == results[2].result
    assert set(bench.commits[-1].sessions) == {good.id, also_good.id}
    assert bench.commits[-1].activity == {}
    assert bench.commits[-1].pruned == []
    assert bench.commits[-1].horizon == 0
    written = bench.store.groups[-1]
    assert (written.retention, written.data, written.answers, written.forget) == ({}, {}, [], None)


async def test_revisions_have_no_gap_over_refused_units(bench: Bench) -> None:
    """Refused units consume no revision."""
    steps = [step for _ in range(3) for step in (opens(samples.session()), writes_then_refuses(samples.session()))]
    results = await submit_all(bench, *steps)
    assert [done.revision for done in results[::2]] == [2, 3, 4]
    events = await bench.store.events(Revision(0), 10)
    assert [event.revision for event in events] == [1, 2, 3, 4]


async def test_units_see_what_earlier_ones_left(bench: Bench) -> None:
    """A unit decides against the state that the earlier units of its group leave, data included."""
    session = samples.session()
    await bench.journal.submit(opens(session))

    def count(work: Work) -> tuple[int, dict[str, bytes]]:
        current = work.session(session.id)
        assert current is not None
        data = work.data(session.id)
        changed = replace(current, data_version=current.data_version + 1)
        work.save(changed, EventType.SESSION_DATA_CHANGED, samples.REVOKED)
        work.put_data(session.id, {"n": b"x" * (len(data.get("n", b"")) + 1)})
        return current.data_version, data

    results = await submit_all(bench, *(Step(count, (session.id,)) for _ in range(3)))
    assert [done.result for done in results] == [(0, {}), (1, {"n": b"x"}), (2, {"n": b"xx"})]
    assert await data_of(bench.store, session.id) == {"n": b"xxx"}


async def test_activity_of_a_group_never_moves_backwards(bench: Bench) -> None:
    """Of two activities in one group the later counts, whichever unit brought it and in whatever order."""
    session = samples.session(idle_deadline=START + 10)
    await bench.journal.submit(opens(session))

    def active(at: int) -> Step:
        activity = Activity(session.id, Instant(START + at), Instant(START + at + 10))
        return Step(lambda work: work.put_activity(activity))

    await submit_all(bench, active(5), active(8), active(3))
    stored = await bench.store.session(session.id)
    assert (stored.last_active, stored.idle_deadline) == (START + 8, START + 18)
    activity = bench.commits[-1].activity[session.id]
    assert (activity.at, activity.idle_deadline) == (START + 8, START + 18)


async def test_the_published_horizon_never_moves_back(bench: Bench) -> None:
    """A commit is published with the horizon that the store has: a smaller one than before is not taken over."""
    await submit_all(bench, *(opens(samples.session()) for _ in range(4)))
    for horizon, published in ((2, 2), (1, 2), (3, 3)):
        await bench.journal.submit(Step(lambda work, horizon=horizon: work.move_horizon(Revision(horizon))))  # type: ignore[misc]
        assert (await bench.store.head()).horizon == published
        assert bench.commits[-1].horizon == published
    await bench.journal.submit(opens(samples.session()))
    assert bench.commits[-1].horizon == 3


async def test_nobody_is_answered_before_the_commit(bench: Bench) -> None:
    """While the transaction has not been left nobody has an answer and nothing is published."""
    held = await hold(bench)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(held), 0.05)
    assert bench.commits == []
    bench.store.may_commit.set()
    assert (await held).revision == 1
    assert [commit.revision for commit in bench.commits] == [1]


async def test_a_refusal_waits_for_the_commit_too(bench: Bench) -> None:
    """A unit that refuses is answered after the commit of its group: what it decided on might else never be true."""
    held = await hold(bench)
    bench.store.at_door.clear()
    refused = asyncio.create_task(bench.journal.submit(writes_then_refuses(samples.session())))
    await asyncio.sleep(0)
    bench.store.may_commit.set()
    await held
    bench.store.may_commit.clear()
    await bench.store.at_door.wait()
    await asyncio.sleep(0)
    assert not refused.done()
    bench.store.may_commit.set()
    with pytest.raises(Refused):
        await refused


async def test_an_answer_is_made_during_the_commit_and_given_after_it(bench: Bench) -> None:
    """The answer is there before the commit, which the loop has time for; nobody has it before."""
    made: list[Revision] = []

    def answer_of(done: Done[Any]) -> str:
        made.append(done.revision)
        return "told"

    bench.store.may_commit.clear()
    waiting = asyncio.create_task(bench.journal.carry_out(opens(samples.session()), answer_of))
    await bench.store.at_door.wait()
    await asyncio.sleep(0)
    assert (made, waiting.done()) == ([1], False)
    bench.store.may_commit.set()
    assert (await waiting, made) == ("told", [1])


async def test_the_answer_is_made_of_the_run_that_counts(tmp_path: Path) -> None:
    """A store that repeats a conflict has decided twice: the answer is that of the last run."""
    sqlite = await SqliteStore.open(tmp_path / "sessiond.db")
    store, runs = RepeatingStore(sqlite, lambda: asyncio.sleep(0)), iter(range(10))
    journal = Journal(store, ManualClock(), NO_MEMORY, lambda _: None, lambda _: None)
    try:
        answer = await journal.carry_out(Step(lambda _: next(runs)), lambda done: f"run {done.result}")
    finally:
        await journal.close()
        await sqlite.close()
    assert (answer, store.thrown_away) == ("run 1", 1)


async def test_an_answer_that_cannot_be_made_fails_its_caller_alone(bench: Bench) -> None:
    """The change is committed, the caller hears of the fault, and the others of the group have their answers."""
    held = await hold(bench)
    broken = asyncio.create_task(bench.journal.carry_out(opens(samples.session()), lambda _: 1 // 0))
    whole = asyncio.create_task(bench.journal.carry_out(opens(samples.session()), lambda done: done.revision))
    await asyncio.sleep(0)
    bench.store.may_commit.set()
    with pytest.raises(ZeroDivisionError):
        await broken
    assert (await held).revision == 1
    assert await whole == 3


async def test_an_answer_that_was_made_is_not_given_if_the_commit_fails(bench: Bench) -> None:
    """What was prepared for a commit that did not come is thrown away."""
    bench.store.break_once = True
    with pytest.raises(StoreUnavailable):
        await bench.journal.carry_out(opens(samples.session()), lambda _: "told")


async def test_publication_comes_before_the_answer(bench: Bench) -> None:
    """Who has an answer finds it published already."""
    done = await bench.journal.submit(opens(samples.session()))
    assert bench.commits[-1].revision == done.revision


async def test_a_cancelled_callers_unit_is_never_half(bench: Bench) -> None:
    """A caller that gives up leaves its unit whole: session and event are both there, and the writer goes on."""
    held = await hold(bench)
    session = samples.session()
    waiting = asyncio.create_task(bench.journal.submit(opens(session)))
    await asyncio.sleep(0)
    waiting.cancel()
    held.cancel()
    bench.store.may_commit.set()
    after = await bench.journal.submit(opens(samples.session()))
    assert waiting.cancelled()
    assert held.cancelled()
    events = await bench.store.events(Revision(0), 10)
    stored = await bench.store.session(session.id)
    assert (stored is not None) == (session.id in [event.session_id for event in events])
    assert [event.revision for event in events] == list(range(1, after.revision + 1))


async def test_a_store_that_fails_is_the_end(bench: Bench) -> None:
    """After a failed commit everybody who waits, and everybody who comes, is Unavailable; it is told once."""
    held = await hold(bench)
    bench.store.break_commit = True
    waiting = [asyncio.create_task(bench.journal.submit(opens(samples.session()))) for _ in range(3)]
    await asyncio.sleep(0)
    bench.store.may_commit.set()
    for task in (held, *waiting):
        with pytest.raises(Unavailable):
            await task
    with pytest.raises(Unavailable):
        await bench.journal.submit(opens(samples.session()))
    assert [str(failure) for failure in bench.failures] == ["injected: disk I/O error"]
    assert bench.commits == []
    assert (await bench.store.head()).revision == 0


async def test_a_store_that_does_not_answer_fails_its_group_alone(bench: Bench) -> None:
    """If the store is unavailable the units of that group fail with Unavailable, refusals too; later ones go on."""
    held = await hold(bench)
    lost, kept = samples.session(), samples.session()
    bench.store.may_commit.set()
    await held
    bench.store.break_once = True
    group = [opens(lost), writes_then_refuses(samples.session()), opens(samples.session())]
    failures = await asyncio.gather(*map(bench.journal.submit, group), return_exceptions=True)
    assert [type(failure) for failure in failures] == [StoreUnavailable] * 3
    assert all(isinstance(failure, Unavailable) for failure in failures)
    assert [commit.revision for commit in bench.commits] == [1]
    done = await bench.journal.submit(opens(kept))
    assert done.revision == 2
    assert await bench.store.session(lost.id) is None
    assert await bench.store.session(kept.id) == done.result
    assert bench.failures == []


async def test_what_waits_behind_an_unavailable_group_is_carried_out(bench: Bench) -> None:
    """Units that gathered while a group failed for want of an answer are a group of their own, and succeed."""
    held = await hold(bench)
    bench.store.break_once = True
    waiting = [asyncio.create_task(bench.journal.submit(opens(samples.session()))) for _ in range(3)]
    await asyncio.sleep(0)
    bench.store.may_commit.set()
    with pytest.raises(Unavailable):
        await held
    assert [done.revision for done in await asyncio.gather(*waiting)] == [1, 2, 3]


async def test_a_lost_acknowledgement_is_unavailable(bench: Bench) -> None:
    """A commit that was carried out, but whose answer was lost, is answered Unavailable: nobody can know."""
    bench.store.lose_answer = True
    session = samples.session()
    with pytest.raises(Unavailable):
        await bench.journal.submit(opens(session))
    assert bench.commits == []
    assert await bench.store.session(session.id) is not None


def test_what_is_said_of_a_failing_store_names_no_place() -> None:
    """The public text of either kind of failure says what it means for the call, and nothing of the store itself."""
    for kind in (StoreFailed, StoreUnavailable):
        failure = kind("/var/lib/secret/sessiond.db: disk I/O error")
        assert "sessiond.db" not in failure.public
        assert "store" in failure.public


async def test_a_commit_that_cannot_be_made_known_is_the_end(tmp_path: Path) -> None:
    """Where caches or feed cannot take in a commit, nobody waits for ever and nobody is answered from an old state."""
    failures: list[StoreFailed] = []

    def publish(_: Commit) -> None:
        raise ZeroDivisionError("injected")

    store = await SqliteStore.open(tmp_path / "sessiond.db")
    journal = Journal(store, ManualClock(), NO_MEMORY, publish, failures.append)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await journal.submit(opens(samples.session()))
    assert len(failures) == 1
    await journal.close()
    await store.close()


async def test_a_refusal_of_a_failed_group_is_unavailable(bench: Bench) -> None:
    """A unit that refused in a transaction that did not commit is answered Unavailable, not with its refusal."""
    bench.store.break_commit = True
    with pytest.raises(Unavailable):
        await bench.journal.submit(writes_then_refuses(samples.session()))


async def test_a_fault_of_ours_leaves_the_writer_alive(bench: Bench) -> None:
    """An exception that is no store failure is handed to its group, which leaves nothing; later units go on."""
    lost, kept = samples.session(), samples.session()
    bench.store.break_write = ZeroDivisionError("injected")
    with pytest.raises(ZeroDivisionError):
        await bench.journal.submit(opens(lost))
    done = await bench.journal.submit(opens(kept))
    assert done.revision == 1
    assert await bench.store.session(lost.id) is None
    assert bench.failures == []


async def test_close_carries_out_what_waits(bench: Bench) -> None:
    """Closing commits what was handed in before it, and refuses what comes after."""
    held = await hold(bench)
    session = samples.session()
    waiting = asyncio.create_task(bench.journal.submit(opens(session)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(bench.journal.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await bench.journal.submit(opens(samples.session()))
    assert not closing.done()
    bench.store.may_commit.set()
    await closing
    assert (await held).revision == 1
    done = await waiting
    assert done.revision == 2
    assert await bench.store.session(session.id) == done.result


async def test_a_unit_sees_activity_that_only_memory_has(tmp_path: Path) -> None:
    """A stored session has, for a unit, the activity that memory adds to it."""
    sqlite = await SqliteStore.open(tmp_path / "sessiond.db")
    session = samples.session(idle_deadline=START + 10)
    await put(sqlite, session)
    active = replace(session, last_active=Instant(START + 7))
    journal = Journal(sqlite, ManualClock(), Memory(active), lambda _: None, lambda _: None)
    done = await journal.submit(Step(lambda work: work.session(session.id), (session.id,)))
    await journal.close()
    await sqlite.close()
    assert done.result.last_active == START + 7
