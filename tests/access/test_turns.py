"""Turns of callers that have many calls under way: who waits, who is next, and what is refused."""

from __future__ import annotations

import asyncio
import math

import pytest

from sessiond.access.turns import CHANGE, READ, Lane, Pace, Turns, Work, watched
from sessiond.domain.errors import Overloaded

NO_PAUSES = Pace(in_a_row=1_000_000)


class Seconds:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Return the time it was set to."""
        return self.now


def crowded() -> Lane:
    """A caller that has had many calls waiting."""
    lane = Lane()
    lane.crowded_until = math.inf
    return lane


def shared(turns: Turns) -> tuple[Lane, Lane]:
    """Two callers, each of which has called once and is crowded."""
    lanes = crowded(), crowded()
    for lane in lanes:
        assert turns.begin(lane, READ) is None
        turns.end(lane, READ)
    return lanes


def somebody_calls(turns: Turns) -> None:
    """A caller with few calls makes one, which is answered."""
    lane = Lane()
    assert turns.begin(lane, READ) is None
    turns.end(lane, READ)


def begin(turns: Turns, lane: Lane, count: int, weight: int = READ) -> list[asyncio.Future[None]]:
    """Begin so many calls, and return those that wait."""
    return [turn for _ in range(count) if (turn := turns.begin(lane, weight)) is not None]


async def passes(count: int = 40) -> None:
    """Let the event loop run some passes."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_caller_that_is_alone_never_waits() -> None:
    """As long as no other caller has called, all calls of a caller are in work at once."""
    assert begin(Turns(), Lane(), 1_500) == []


async def test_after_a_long_time_a_caller_is_alone_again() -> None:
    """If only one caller has called for ten minutes, its calls do not wait."""
    clock = Seconds()
    turns = Turns(clock=clock)
    _, other = shared(turns)
    assert len(begin(turns, other, 10)) == 8
    assert len(begin(turns, crowded(), 10)) == 8
    lane = crowded()
    begin(turns, lane, 2)
    clock.now += 600
    assert begin(turns, lane, 10) == []


async def test_others_do_not_wait_for_a_flood() -> None:
    """However many calls of one caller wait, a call of another one is in work at once."""
    turns = Turns()
    flooding, honest = shared(turns)
    assert len(begin(turns, flooding, 1_000)) == 998
    assert begin(turns, honest, 1) == []


async def test_many_changes_are_in_work_at_once() -> None:
    """A caller may have 32 changes in work, which share their writes, but two reads."""
    turns = Turns()
    one, two = shared(turns)
    assert len(begin(turns, one, 40, CHANGE)) == 8
    assert len(begin(turns, two, 40, READ)) == 38


async def test_callers_that_wait_take_turns() -> None:
    """Callers with waiting calls get one turn after the other, however many each of them has."""
    turns = Turns(pace=NO_PAUSES)
    many, few = shared(turns)
    somebody_calls(turns)
    order: list[str] = []

    async def call(name: str, lane: Lane, turn: asyncio.Future[None]) -> None:
        await turns.wait(turn, lane, READ)
        order.append(name)
        turns.end(lane, READ)

    calls = [
        asyncio.create_task(call(name, lane, turn))
        for name, lane, count in (("many", many, 12), ("few", few, 5))
        for turn in begin(turns, lane, count)
    ]
    for lane in (many, many, few, few):
        turns.end(lane, READ)
    await asyncio.gather(*calls)
    assert order == ["many", "few"] * 3 + ["many"] * 7
    assert (many.in_work, few.in_work) == (0, 0)


async def test_one_turn_in_each_pass_of_the_loop() -> None:
    """Calls get their turn one by one, so that others are served in between."""
    turns = Turns(pace=NO_PAUSES)
    lane, _ = shared(turns)
    somebody_calls(turns)
    waiting = begin(turns, lane, 12, CHANGE * 8)
    for _ in range(4):
        turns.end(lane, CHANGE * 8)
    done = []
    for _ in range(6):
        await passes(1)
        done.append(sum(turn.done() for turn in waiting))
    assert done == [1, 2, 3, 4, 4, 4]


async def test_pauses_until_nothing_arrives() -> None:
    """After four turns the next one waits until no call has arrived for half a millisecond, or for 40 at most."""
    clock = Seconds()
    turns = Turns(clock=clock)
    lane, _ = shared(turns)
    somebody_calls(turns)
    waiting = begin(turns, lane, 100, CHANGE)
    for _ in range(32):
        turns.end(lane, CHANGE)
    await passes()
    assert sum(turn.done() for turn in waiting) == 4
    clock.now += 0.2  # the calls of the other one are long ago
    await passes()
    assert sum(turn.done() for turn in waiting) == 8
    clock.now += 0.00049
    waiting += begin(turns, lane, 1, CHANGE)
    clock.now += 0.00049
    await passes()
    assert sum(turn.done() for turn in waiting) == 8
    clock.now += 0.00002
    await passes()
    assert sum(turn.done() for turn in waiting) == 12
    for _ in range(100):
        clock.now += 0.0004
        waiting += begin(turns, lane, 1, CHANGE)
        await passes(2)
    await passes()
    assert sum(turn.done() for turn in waiting) == 16


async def test_pauses_are_longer_beside_others() -> None:
    """If a caller that does not wait has called within a tenth of a second, a pause takes three milliseconds."""
    clock = Seconds()
    turns = Turns(clock=clock)
    lane, _ = shared(turns)
    waiting = begin(turns, lane, 100, CHANGE)
    somebody_calls(turns)
    for _ in range(32):
        turns.end(lane, CHANGE)
    await passes()
    clock.now += 0.0029
    await passes()
    assert sum(turn.done() for turn in waiting) == 4
    clock.now += 0.0002
    await passes()
    assert sum(turn.done() for turn in waiting) == 8


async def test_turns_are_fast_if_only_crowded_callers_call() -> None:
    """A second after the last call of a caller that does not wait, there are eight times as many turns in a row."""
    clock = Seconds()
    turns = Turns(clock=clock)
    lane, other = shared(turns)
    waiting = begin(turns, lane, 232, CHANGE)

    async def given() -> int:
        for _ in range(32 - lane.in_work):
            lane.in_work += CHANGE
        for _ in range(32):
            turns.end(lane, CHANGE)
        await passes()
        return sum(turn.done() for turn in waiting)

    assert await given() == 4
    assert begin(turns, other, 1) == [], "a crowded caller is nobody to give way to"
    turns.end(other, READ)
    clock.now += 0.0006
    assert await given() == 4 + 32
    somebody_calls(turns)
    clock.now += 0.0031
    assert await given() == 36 + 4, "somebody else has called"
    clock.now += 1.0
    assert await given() == 40 + 32


async def test_a_fast_run_ends_after_three_milliseconds() -> None:
    """If turns take long, there are not many of them in a row."""
    clock = Seconds()
    turns = Turns(clock=clock)
    lane, _ = shared(turns)
    waiting = begin(turns, lane, 132, CHANGE)
    for _ in range(32):
        turns.end(lane, CHANGE)
    await passes()
    clock.now += 0.0006  # the pause is over
    runs = [0]
    for _ in range(30):
        before = sum(turn.done() for turn in waiting)
        await passes(1)
        clock.now += 0.0004  # as long as a turn takes
        runs[-1] += 1 if (is_given := sum(turn.done() for turn in waiting) > before) else 0
        runs += [] if is_given or not runs[-1] else [0]
    assert 4 < max(runs) <= 9
    assert len(runs) >= 3


async def test_turns_are_rare_beside_a_call_of_others() -> None:
    """While a call of a caller that does not wait is in work, a turn is given in each ninth pass of the loop."""
    turns = Turns(pace=NO_PAUSES)
    lane, _ = shared(turns)
    other = Lane()
    waiting = begin(turns, lane, 32 + 20, CHANGE)
    assert begin(turns, other, 1) == []
    for _ in range(32):
        turns.end(lane, CHANGE)
    await passes(36)
    assert 3 <= sum(turn.done() for turn in waiting) <= 5
    turns.end(other, READ)
    await passes(20)
    assert sum(turn.done() for turn in waiting) >= 18


async def test_who_hangs_up_gives_its_turn_to_the_next() -> None:
    """A call that was cancelled while it waited is skipped, and nothing of it stays counted."""
    turns = Turns(pace=NO_PAUSES)
    lane, _ = shared(turns)
    first, second, third = begin(turns, lane, 5)
    waits = [asyncio.create_task(turns.wait(turn, lane, READ)) for turn in (first, second, third)]
    await passes()
    waits[0].cancel()
    await passes()
    turns.end(lane, READ)
    await passes()
    assert (second.done(), third.done()) == (True, False)
    turns.end(lane, READ)
    turns._give_turns()
    waits[2].cancel()  # at the same moment as its turn
    await asyncio.gather(*waits, return_exceptions=True)
    turns.end(lane, READ)
    await passes()
    assert (lane.in_work, len(lane.waiting), turns._waiting) == (0, 0, 0)


async def test_the_caller_with_the_most_waiting_is_refused_first() -> None:
    """If too many calls wait, the latest one of the caller with the most makes room for the call of another one."""
    turns = Turns(most_waiting=100)
    flooding, honest = shared(turns)
    flood = begin(turns, flooding, 102)
    assert len(flood) == 100
    with pytest.raises(Overloaded, match="too many calls are waiting, most of them from this caller"):
        turns.begin(flooding, READ)
    others = begin(turns, honest, 7)
    assert len(others) == 5
    assert [number for number, turn in enumerate(flood) if turn.done()] == [95, 96, 97, 98, 99]
    for turn in flood[95:]:
        with pytest.raises(Overloaded):
            await turns.wait(turn, flooding, READ)
    assert turns._waiting == 100
    assert flooding.in_work == 2 * READ


async def test_waiting_calls_have_a_limit() -> None:
    """However many callers flood, no more calls wait than the limit allows."""
    turns = Turns(most_waiting=50)
    shared(turns)
    refused = 0
    for _ in range(40):
        lane = crowded()
        for _ in range(10):
            try:
                turns.begin(lane, READ)
            except Overloaded:
                refused += 1
    assert turns._waiting == 50
    assert sum(len(lane.waiting) for lane in turns._queue) == 50
    assert refused > 0


async def test_a_call_that_waits_leaves_work_to_others() -> None:
    """While a read waits for something, its caller may have as many in work as changes; after a long wait, any."""
    turns = Turns(pace=NO_PAUSES)
    lane, _ = shared(turns)
    something = asyncio.get_running_loop().create_future()
    (third,) = begin(turns, lane, 3)
    work = Work(turns, lane, READ)
    serving = asyncio.ensure_future(watched(wait_for(something), work))
    await passes()
    assert third.done()
    assert lane.in_work == 2 * READ + CHANGE
    async with asyncio.timeout(20):
        while lane.in_work > 2 * READ:  # noqa: ASYNC110 - a timer of the event loop changes it
            await asyncio.sleep(0.001)
    something.set_result("found")
    assert await serving == "found"
    work.end()
    assert lane.in_work == 2 * READ


async def wait_for(something: asyncio.Future[str]) -> str:
    """Work, pause, and wait."""
    await asyncio.sleep(0)
    return await something


async def test_a_pause_is_work() -> None:
    """A call that only gives way to others stays in work until its end."""
    turns = Turns()
    lane, _ = shared(turns)
    assert turns.begin(lane, READ) is None
    work = Work(turns, lane, READ)

    async def pauses() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            assert lane.in_work == READ

    await watched(pauses(), work)
    work.end()
    assert lane.in_work == 0


async def test_a_watched_call_is_cancelled_as_any_other() -> None:
    """A cancellation reaches the call itself, which may handle it, and its result or exception is that of the call."""
    turns = Turns()
    lane, _ = shared(turns)
    work = Work(turns, lane, CHANGE)

    async def stubborn() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return "cleaned up"
        raise AssertionError

    async def fails() -> str:
        await asyncio.sleep(0)
        raise ValueError("why")

    serving = asyncio.ensure_future(watched(stubborn(), work))
    await passes()
    serving.cancel()
    assert await serving == "cleaned up"
    with pytest.raises(ValueError, match="why"):
        await watched(fails(), work)


async def test_a_caller_with_few_calls_does_not_take_turns() -> None:
    """A caller with eight calls under way all the time waits only while it is looked at, and then all go on."""
    clock = Seconds()
    turns = Turns(clock=clock)
    shared(turns)
    lane = Lane()
    waited = 0
    for _ in range(200):
        calls = [turns.begin(lane, READ) for _ in range(8)]
        waiting = [turn for turn in calls if turn is not None]
        if waiting:
            waited += 1
            await passes()
            assert not any(turn.done() for turn in waiting)
            clock.now += 0.003 if waited == 1 else 0.0006
            await passes()
        assert all(turn.done() for turn in waiting)
        for _ in range(8):
            turns.end(lane, READ)
        clock.now += 0.001
    assert (lane.in_work, turns._waiting) == (0, 0)
    assert 2 <= waited <= 7  # 1,600 calls


async def test_a_caller_with_many_calls_is_found_out() -> None:
    """If more than 16 calls arrive while a caller is looked at, it takes turns, until it has had few for a second."""
    clock = Seconds()
    turns = Turns(pace=NO_PAUSES, clock=clock)
    shared(turns)
    lane = Lane()
    waiting = begin(turns, lane, 2 + 17)
    assert len(waiting) == 17
    await passes()
    assert not any(turn.done() for turn in waiting)
    turns.end(lane, READ)
    await passes()
    assert sum(turn.done() for turn in waiting) == 1
    clock.now += 1.1
    await passes()
    turns.end(lane, READ)
    await passes()
    assert all(turn.done() for turn in waiting)


async def test_calls_that_the_transport_holds_back_are_found_out() -> None:
    """A flood whose calls arrive one by one, each after the last one has ended, is looked at too."""
    clock = Seconds()
    turns = Turns(pace=NO_PAUSES, clock=clock)
    shared(turns)
    lane = Lane()
    for _ in range(600):
        waiting = begin(turns, lane, 1)
        if waiting:
            break
        turns.end(lane, READ)
    assert waiting
    waiting += begin(turns, lane, 16)  # held back so far
    clock.now += 0.004
    await passes()
    assert lane.crowded_until > clock.now
    assert len(begin(turns, lane, 10)) == 10


async def looks(apart: float, calls: int = 1_200) -> tuple[Turns, Lane, Seconds]:
    """Return the turns while they look at a caller whose calls are so many seconds apart, and its lane."""
    clock = Seconds()
    turns = Turns(pace=NO_PAUSES, clock=clock)
    shared(turns)
    lane = Lane()
    for _ in range(calls):
        waiting = begin(turns, lane, 1)
        if waiting and lane.looked:
            return turns, lane, clock
        if waiting:
            clock.now += 0.003
            await passes()
        turns.end(lane, READ)
        clock.now += apart
    raise AssertionError("the caller was not looked at")


async def test_a_caller_with_slow_calls_is_not_looked_at() -> None:
    """A caller whose calls are ten milliseconds apart waits once, when it is new, and never again."""
    with pytest.raises(AssertionError, match="not looked at"):
        await looks(0.01)


async def test_a_look_takes_three_times_as_long_as_a_call() -> None:
    """If calls take 0.8 milliseconds each, no call for 2 milliseconds does not mean yet that there are no more."""
    _, lane, clock = await looks(0.0008)
    clock.now += 0.002
    await passes()
    assert lane.waiting
    clock.now += 0.0005
    await passes()
    assert not lane.waiting


async def test_nothing_is_known_while_the_loop_does_not_run() -> None:
    """Time alone ends no look: on a busy machine the loop may not have run, and so no call could arrive."""
    _, lane, clock = await looks(0.0001)
    clock.now += 1
    await passes(20)
    assert lane.waiting
    await passes(20)
    assert not lane.waiting


async def test_a_refused_call_that_hangs_up_was_never_in_work() -> None:
    """A waiting call that is refused, and whose caller hangs up in the same moment, does not count as having been in
    work: its caller would have more in work than others from then on.
    """
    turns = Turns(pace=NO_PAUSES)
    lane, _ = shared(turns)
    begin(turns, lane, 2)
    before = lane.in_work
    (turn,) = begin(turns, lane, 1)
    waiting = asyncio.ensure_future(turns.wait(turn, lane, READ))
    await asyncio.sleep(0)
    turn.set_exception(Overloaded("refused"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert lane.in_work == before
