"""The sweeper: all that is due in one round, and a next round whatever happened in this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from structlog.testing import capture_logs

from sessiond.app import App
from sessiond.authority.authority import Authority
from sessiond.authority.sweeper import Sweeper
from sessiond.domain.errors import Overloaded, Unavailable
from sessiond.domain.session import Session
from sessiond.domain.values import NOBODY, Millis, Revision, SessionId
from sessiond.store.contract import StoreFailed, StoreUnavailable
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    HOUR,
    MINUTE,
    SECOND,
    VICTIM,
    create,
    kinds,
    login,
    loose,
    policy,
    story_of,
    validate,
)
from tests.contracts import samples
from tests.contracts.store import put
from tests.rpc.refusals import revision_of, session_of
from tests.support.assembly import WatchedStore, assembled
from tests.support.clock import START, ManualClock
from tests.support.server import AsyncStub
from tests.support.work import types_of

DAY = 24 * HOUR
READS = ("due", "prunable", "horizon_for")
MANY = 501  # more than one batch
PATIENCE = 30.0  # seconds, for a sweeper that does not end as it should


@pytest.fixture
async def app(app: App) -> App:
    """An authority whose sweeper works only when it is told to."""
    app._sweeping.cancel()
    with suppress(asyncio.CancelledError):
        await app._sweeping
    return app


# All that is due


async def test_more_than_a_batch_is_due(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """One round ends every session that is due, and one drops every history whose time is over, however many."""
    await asyncio.gather(*(create(stub, f"user {number}") for number in range(MANY)))
    clock.advance(30 * MINUTE)
    assert await app.sweeper.sweep() == MANY
    assert kinds(await story_of(stub)).count("SESSION_EXPIRED") == MANY
    assert await app.sweeper.sweep() == 0
    clock.advance(30 * DAY - 1)
    assert await app.sweeper.prune() == 0
    clock.advance(1)
    assert await app.sweeper.prune() == MANY
    assert await app.sweeper.prune() == 0


@pytest.mark.parametrize(("sessions", "transactions"), [(499, 1), (500, 1), (501, 2)])
async def test_how_much_is_done_at_once(tmp_path: Path, clock: ManualClock, sessions: int, transactions: int) -> None:
    """Five hundred sessions end, or have their history dropped, in a transaction: others need not wait long for it."""
    async with assembled(tmp_path, clock) as (authority, store, stub, _):
        sweeper, any_store = Round(authority, store, stub).sweeper(), cast("Any", store)
        await put(any_store, *(samples.session(idle_deadline=START) for _ in range(sessions)))
        before = store.writes
        assert await sweeper.sweep() == sessions
        assert store.writes - before == transactions
        clock.advance(30 * DAY)
        before = store.writes
        assert await sweeper.prune() == sessions
        assert store.writes - before == 2 * transactions  # the sessions, and their events


@pytest.mark.parametrize(("sessions", "transactions"), [(500, 1), (501, 2)])
async def test_how_much_activity_is_written_at_once(
    tmp_path: Path, clock: ManualClock, sessions: int, transactions: int
) -> None:
    """The activity of five hundred sessions is written in a transaction."""
    async with assembled(tmp_path, clock) as (authority, store, stub, _):
        active = [samples.session() for _ in range(sessions)]
        await put(cast("Any", store), *active)
        clock.advance(SECOND)
        for session in active:
            authority.parts.activity.note(session, clock.now(), None, NOBODY)
        before = store.writes
        assert await Round(authority, store, stub).sweeper().save_activity(everything=True) == sessions
        assert store.writes - before == transactions


async def test_how_often_the_sweeper_works(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweeper waits for a second before each round, the first included."""
    waits: list[float] = []
    failures: list[StoreFailed] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise asyncio.CancelledError

    sweeper = Sweeper(app.authority.parts, Millis(HOUR), failures.append)
    monkeypatch.setattr("sessiond.authority.sweeper.asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(asyncio.CancelledError):
        await sweeper.run()
    assert (waits, failures) == ([1.0] * 3, [])


async def test_more_than_a_batch_of_the_log(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """One round drops every event whose retention is over, however many, and no other."""
    await asyncio.gather(*(create(stub, f"user {number}") for number in range(MANY)))
    clock.advance(1)
    await create(stub)
    clock.advance(30 * DAY)
    await app.sweeper.prune()
    state = await stub.GetAuthority(pb.GetAuthorityRequest())
    assert (state.revision, state.horizon) == (MANY + 1, MANY)


async def test_nothing_is_dropped_while_the_clocks_disagree(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """While wall clock and monotonic clock disagree neither history nor log is dropped, however old they are."""
    await create(stub)
    clock.advance(30 * MINUTE)
    assert await app.sweeper.sweep() == 1
    clock.advance(31 * DAY)
    clock.steady = False
    before = await stub.GetAuthority(pb.GetAuthorityRequest())
    assert await app.sweeper.prune() == 0
    assert (await stub.GetAuthority(pb.GetAuthorityRequest())).horizon == before.horizon == 0
    clock.steady = True
    assert await app.sweeper.prune() == 1
    assert (await stub.GetAuthority(pb.GetAuthorityRequest())).horizon == 2


async def stored(app: App, session_id: str) -> Session:
    """The session as the store has it."""
    session = await app.authority.parts.store.session(SessionId.parse(session_id))
    assert session is not None
    return session


async def active(stub: AsyncStub, clock: ManualClock, **fields: Any) -> str:
    """A session that was used a second after its opening, which only memory knows; its id."""
    mine = await create(stub, **fields)
    clock.advance(SECOND)
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
    return mine.session.session_id


async def test_activity_is_written_behind(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """Activity of a session that has gone quiet is written when the granularity is over, once, and not before."""
    session_id = await active(stub, clock)
    clock.advance(MINUTE - 1)
    assert await app.sweeper.save_activity() == 0
    assert (await stored(app, session_id)).last_active == START
    clock.advance(1)
    assert await app.sweeper.save_activity() == 1
    saved = await stored(app, session_id)
    assert (saved.last_active, saved.idle_deadline) == (START + SECOND, START + SECOND + 30 * MINUTE)
    assert await app.sweeper.save_activity() == 0


async def test_activity_of_a_session_with_its_own_timeout(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A session with a shorter idle timeout has its activity written sooner: after a twentieth of that."""
    session_id = await active(stub, clock, lifetimes={"idle_timeout": {"seconds": 60}})
    clock.advance(3 * SECOND - 1)
    assert await app.sweeper.save_activity() == 0
    clock.advance(1)
    assert await app.sweeper.save_activity() == 1
    assert (await stored(app, session_id)).idle_deadline == START + 61 * SECOND


async def test_activity_of_an_application_that_is_gone(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """Activity of a session whose application is configured no more is written behind all the same."""
    session_id = await active(stub, clock)
    await app.authority.change_policies({"shop": policy()}, {})
    clock.advance(MINUTE - 1)
    assert await app.sweeper.save_activity() == 0
    clock.advance(1)
    assert await app.sweeper.save_activity() == 1
    assert (await stored(app, session_id)).last_active == START + SECOND


async def test_all_activity_at_once(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """At the end all activity is written, quiet or not, however much there is."""
    opened = await asyncio.gather(*(create(stub) for _ in range(MANY)))
    clock.advance(SECOND)
    await asyncio.gather(*(validate(stub, mine.token) for mine in opened))
    assert await app.sweeper.save_activity() == 0
    assert await app.sweeper.save_activity(everything=True) == MANY
    assert await app.sweeper.save_activity(everything=True) == 0
    found = [(await stored(app, mine.session.session_id)).last_active for mine in opened]
    assert found == [START + SECOND] * MANY


async def test_activity_never_revives(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """Activity of a session that has ended since is not written."""
    session_id = await active(stub, clock)
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"session_id": session_id}))
    assert await app.sweeper.save_activity(everything=True) == 0
    ended = await stored(app, session_id)
    assert (ended.ending is not None, ended.last_active) == (True, START + SECOND)


# A round that fails


@dataclass
class Round:
    """A sweeper over a store that a test breaks, and what it reported."""

    authority: Authority
    store: WatchedStore
    stub: AsyncStub
    failures: list[StoreFailed] = field(default_factory=list)

    def sweeper(self) -> Sweeper:
        """A sweeper without a pause between its rounds."""
        return Sweeper(self.authority.parts, Millis(HOUR), self.failures.append, interval=0.0)

    async def run(self, enough: asyncio.Event) -> None:
        """Let the sweeper work until that is set, and then cancel it. Raises AssertionError if it ends before."""
        running = asyncio.create_task(self.sweeper().run())
        waiting = asyncio.create_task(enough.wait())
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    def break_once(self, step: str, fault: Exception, rounds: int = 3) -> asyncio.Event:
        """Have one step fail the first time it is taken; set when so many rounds have begun."""
        begun, broken, enough = [0], [False], asyncio.Event()

        def before(name: str) -> None:
            if name == "due":
                begun[0] += 1
                if begun[0] == rounds:
                    enough.set()
            if name == step and not broken[0]:
                broken[0] = True
                raise fault

        self.store.before = before
        return enough


@pytest.fixture
async def round_(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Round]:
    """A round of the sweeper."""
    async with assembled(tmp_path, clock) as (authority, store, stub, _):
        yield Round(authority, store, stub)


@pytest.mark.parametrize("step", [*READS, "write"])
@pytest.mark.parametrize(
    "fault",
    [StoreUnavailable("injected: no connection"), Unavailable("injected"), ZeroDivisionError("injected")],
    ids=["store unavailable", "unavailable", "a fault of ours"],
)
async def test_a_round_that_fails_is_not_the_last(
    round_: Round, clock: ManualClock, step: str, fault: Exception
) -> None:
    """Whatever step of a round fails, the next rounds do what is due, and nobody is told of a fatal failure."""
    mine = await create(round_.stub)
    clock.advance(30 * MINUTE)
    enough = round_.break_once(step, fault)
    await round_.run(enough)
    round_.store.before = lambda _: None
    assert kinds(await story_of(round_.stub, mine.token)) == ["SESSION_CREATED", "SESSION_EXPIRED"]
    assert round_.failures == []


@pytest.mark.parametrize(
    ("fault", "level", "event"),
    [
        (Unavailable("injected"), "warning", "sweep postponed"),
        (Overloaded("injected"), "warning", "sweep postponed"),
        (StoreUnavailable("injected: no connection"), "warning", "sweep postponed"),
        (ZeroDivisionError("injected"), "error", "sweep failed"),
    ],
    ids=["unavailable", "overloaded", "store unavailable", "a fault of ours"],
)
async def test_a_round_that_fails_is_logged(round_: Round, fault: Exception, level: str, event: str) -> None:
    """A round that fails leaves one line with the error: a warning if the next may do better, else a traceback."""
    enough = round_.break_once("due", fault)
    structlog.reset_defaults()
    with capture_logs() as lines:
        await round_.run(enough)
    (line,) = lines
    assert (line["log_level"], line["event"]) == (level, event)
    assert line.get("error") == (str(fault) if level == "warning" else None)
    assert line.get("exc_info", False) is (level == "error")


async def test_a_round_that_did_something_is_logged(round_: Round, clock: ManualClock) -> None:
    """A round that ended sessions or dropped their history logs how many; one that did neither logs nothing."""
    await create(round_.stub)
    structlog.reset_defaults()
    with capture_logs() as lines:
        for wait in (0, 30 * MINUTE, 31 * DAY):
            clock.advance(wait)
            await round_.run(round_.break_once("nothing", ZeroDivisionError()))
    assert [(line["event"], line["expired"], line["pruned"]) for line in lines] == [("swept", 1, 0), ("swept", 0, 1)]


@pytest.mark.parametrize("step", READS)
async def test_a_failed_store_is_the_end(round_: Round, clock: ManualClock, step: str) -> None:
    """A store that fails under a read of the sweeper's ends it, and is reported once."""
    failure = StoreFailed("injected: disk I/O error")
    round_.break_once(step, failure)
    async with asyncio.timeout(PATIENCE):
        await round_.sweeper().run()
    assert round_.failures == [failure]


async def test_a_failed_commit_is_the_end(tmp_path: Path, clock: ManualClock) -> None:
    """A store that fails at a commit ends the sweeper in the round after, which finds the store failed."""
    async with assembled(tmp_path, clock) as (authority, store, stub, told):
        await create(stub)
        clock.advance(30 * MINUTE)
        failure = StoreFailed("injected: disk I/O error")
        broken = [False]

        def before(name: str) -> None:
            broken[0] = broken[0] or name == "write"
            if broken[0]:
                raise failure

        store.before = before
        failures: list[StoreFailed] = []
        async with asyncio.timeout(PATIENCE):
            await Sweeper(authority.parts, Millis(HOUR), failures.append, interval=0.0).run()
        assert failures == told == [failure]


async def test_a_sweep_that_is_cancelled(round_: Round) -> None:
    """The sweeper goes on until it is cancelled, and then leaves at once."""
    await round_.run(round_.break_once("nothing", ZeroDivisionError()))
    assert round_.failures == []


async def test_a_round_does_all_of_it(tmp_path: Path, clock: ManualClock) -> None:
    """One round ends what is due, writes activity behind, drops history and answers, and unlocks sources."""
    async with assembled(tmp_path, clock) as (authority, store, stub, failures):
        guest = await create(stub, "")
        assert (await login(stub, guest.token)).verdict == pb.VERDICT_VALID
        for _ in range(100):
            await validate(stub, "x", pb.ClientContext(ip_address="203.0.113.66"))
        # Listing waits for a lock that is being recorded.
        assert len((await stub.ListSourceLocks(pb.ListSourceLocksRequest())).source_locks) == 1
        assert await store.kept_answers() == 1
        clock.advance(31 * DAY)
        mine = await create(stub, "bob")
        clock.advance(SECOND)
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
        clock.advance(MINUTE)
        everything = Round(authority, store, stub)
        await everything.run(everything.break_once("nothing", ZeroDivisionError()))
        saved = await authority.parts.store.session(SessionId.parse(mine.session.session_id))
        assert saved is not None
        assert saved.last_active == START + 31 * DAY + SECOND
        state = await stub.GetAuthority(pb.GetAuthorityRequest())
        assert state.horizon > 0
        left = await authority.parts.store.events(Revision(state.horizon), 100)
        assert types_of(left) == ["session_created", "session_expired", "source_unlocked"]
        assert await authority.parts.store.session(SessionId.parse(guest.session.session_id)) is None
        assert await store.kept_answers() == 0
        assert failures == []


# Activity that the store does not know

PHONE = pb.ClientContext(ip_address="198.51.100.7", user_agent=VICTIM.user_agent)


async def test_a_sweep_keeps_who_was_seen_last(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A session that is due as far as the store knows, and was used from elsewhere since, keeps that client."""
    mine = await create(stub)
    clock.advance(59 * SECOND)  # less than the granularity: only memory knows
    assert (await validate(stub, mine.token, PHONE)).verdict == pb.VERDICT_VALID
    clock.advance(30 * MINUTE - 59 * SECOND)
    assert await app.sweeper.sweep() == 0
    assert (await session_of(stub, mine.session.session_id)).last_client == PHONE
    assert (await stored(app, mine.session.session_id)).last_client.ip_address == PHONE.ip_address


async def test_nothing_is_due_twice(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A session whose activity was written by a sweep is no longer due, and nothing was recorded of it."""
    mine = await create(stub)
    clock.advance(59 * SECOND)
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
    clock.advance(30 * MINUTE - 59 * SECOND)
    before = await revision_of(stub)
    assert await app.authority.parts.store.due(clock.now(), 10) == [SessionId.parse(mine.session.session_id)]
    assert await app.sweeper.sweep() == 0
    assert await app.authority.parts.store.due(clock.now(), 10) == []
    assert await revision_of(stub) == before
