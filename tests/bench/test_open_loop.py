"""The open-loop load: latencies count from the schedule, so a stall shows, and what cannot keep up is reported."""

from __future__ import annotations

import asyncio
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.open_loop import (
    Load,
    Measured,
    bucket_bound_us,
    bucket_of,
    histogram,
    offer,
    percentile,
    read_histogram,
    value_at,
)
from tests.bench.virtual import VirtualLoop, run

SERVICE = 0.001
LOAD = Load(100, 4.0)


class OneAtATime:
    """A side that serves one question after the other, each in a millisecond, and stalls once."""

    def __init__(self, *, stalls_at: float = 1.0, for_seconds: float = 0.5, service: float = SERVICE) -> None:
        self._stall = (stalls_at, stalls_at + for_seconds)
        self._service = service
        self._turn = asyncio.Lock()
        self.asked: list[int] = []

    async def ask(self, number: int) -> None:
        self.asked.append(number)
        async with self._turn:
            now = asyncio.get_running_loop().time()
            begun, ended = self._stall
            await asyncio.sleep((ended - now if begun <= now < ended else 0.0) + self._service)


async def closed_loop(side: OneAtATime, load: Load) -> list[float]:
    """The control: ask the next question after the last answer, and count from when it was asked."""
    loop, latencies = asyncio.get_running_loop(), []
    for number in range(load.count):
        begun = loop.time()
        await side.ask(number)
        latencies.append(loop.time() - begun)
        await asyncio.sleep(max(0.0, 1 / load.per_second - latencies[-1]))
    return latencies


def offered(load: Load, *, side: OneAtATime | None = None, first: int = 0) -> Measured:
    async def measure() -> Measured:
        return await offer((side or OneAtATime()).ask, load, first)

    return run(measure())


def test_every_question_that_a_stall_delays_is_counted() -> None:
    """A stall of half a second at 100 questions a second delays 50 questions, and the 90th percentile shows it."""
    measured = offered(LOAD)
    assert len(measured.latencies) == 400
    assert sum(latency > 10 * SERVICE for latency in measured.latencies) == pytest.approx(54, abs=4)
    assert percentile(measured.latencies, 0.5) == pytest.approx(SERVICE)
    assert percentile(measured.latencies, 0.9) > 0.05
    assert percentile(measured.latencies, 0.99) > 0.4
    assert not measured.saturated


def test_a_closed_loop_hides_the_stall() -> None:
    """The same side in a closed loop shows one slow answer of 400, so that its 99th percentile is a quiet one."""

    async def measure() -> list[float]:
        return await closed_loop(OneAtATime(), LOAD)

    latencies = run(measure())
    assert sum(latency > 10 * SERVICE for latency in latencies) == 1
    assert percentile(latencies, 0.99) == pytest.approx(SERVICE)


def test_a_client_that_is_too_busy_to_ask_is_counted_too() -> None:
    """If the client's own loop is blocked, the questions that fall due meanwhile count from their scheduled times."""

    async def ask(number: int) -> None:
        loop = asyncio.get_running_loop()
        if number == 100:
            assert isinstance(loop, VirtualLoop)
            loop.block(0.5)

    async def measure() -> Measured:
        return await offer(ask, LOAD)

    measured = run(measure())
    assert sum(latency > 0.005 for latency in measured.latencies) == pytest.approx(50, abs=1)
    assert percentile(measured.late, 0.99) > 0.4
    assert max(measured.latencies) == pytest.approx(0.5)


def test_each_question_is_asked_once_in_order() -> None:
    """The questions are `first` and those that follow it, as many as the load has."""

    async def measure() -> list[int]:
        side = OneAtATime()
        await offer(side.ask, Load(100, 0.5), 7)
        return side.asked

    assert run(measure()) == list(range(7, 57))


def test_a_side_that_keeps_up_is_not_saturated() -> None:
    """A side with capacity to spare answers all questions at the offered rate."""
    measured = offered(LOAD, side=OneAtATime(for_seconds=0.0))
    assert (measured.saturated, measured.unanswered) == (False, 0)
    assert measured.answered_per_second == pytest.approx(100, rel=0.01)
    assert max(measured.latencies) == pytest.approx(SERVICE)


def test_a_side_that_is_a_little_too_slow_is_saturated() -> None:
    """A side that serves 90 questions a second is saturated by 100, even though it answers all of them in the end."""
    measured = offered(LOAD, side=OneAtATime(for_seconds=0.0, service=1 / 90))
    assert (measured.saturated, measured.unanswered) == (True, 0)
    assert measured.answered_per_second == pytest.approx(90, rel=0.01)


def test_a_side_that_never_answers_ends_the_measurement() -> None:
    """A side that stops answering is reported as saturated within the grace, and what it left counts as slow."""

    async def measure() -> tuple[Measured, float]:
        load = Load(100, 60.0, grace=2.0)
        measured = await offer(OneAtATime(stalls_at=0.5, for_seconds=10**6).ask, load)
        return measured, asyncio.get_running_loop().time()

    measured, ended = run(measure())
    assert ended == pytest.approx(0.5 + 2 + 2, abs=0.1)
    assert measured.saturated
    assert measured.unanswered == pytest.approx(400, abs=5)
    assert percentile(measured.latencies, 0.99) > 3.9


def test_a_question_that_fails_ends_the_measurement() -> None:
    """What a question raises ends the measurement, and the questions under way are cancelled."""
    cancelled: list[int] = []

    async def ask(number: int) -> None:
        if number == 5:
            raise RuntimeError("no answer")
        try:
            await asyncio.sleep(0.5 if number else 1_000)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    async def measure() -> None:
        with pytest.raises(RuntimeError, match="no answer"):
            await offer(ask, LOAD)

    run(measure())
    assert 0 in cancelled


def test_a_question_that_fails_when_it_is_cancelled_does_not_matter() -> None:
    """The questions that a saturated side left are cancelled, and an error that this causes is not one of the side."""

    async def ask(_: int) -> None:
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            raise RuntimeError("the call was cancelled") from None

    async def measure() -> Measured:
        return await offer(ask, Load(100, 0.1))

    measured = run(measure())
    assert measured.saturated
    assert measured.unanswered == 10


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.5, 500), (0.99, 990), (0.999, 999), (0.9991, 1000), (1.0, 1000), (0.0001, 1)]
)
def test_percentiles_are_values_that_occurred(share: float, wanted: float) -> None:
    """A percentile is the smallest value such that the share of all values is at most that."""
    assert percentile(list(range(1000, 0, -1)), share) == wanted


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_a_percentile_without_a_meaning_is_refused(values: list[float], share: float) -> None:
    """No values, and shares outside of 0 to 1, have no percentile."""
    with pytest.raises(ValueError, match="a percentile needs"):
        percentile(values, share)


@given(st.lists(st.floats(1e-6, 100.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_a_histogram_keeps_percentiles(latencies: list[float], share: float) -> None:
    """A percentile of the histogram is at least the exact one, and larger by less than 4.5 %."""
    counts = read_histogram(histogram(latencies))
    assert counts.total() == len(latencies)
    exact = percentile(latencies, share) * 1e6
    assert exact <= value_at(counts, share) * (1 + 1e-9)
    assert value_at(counts, share) < exact * 1.045


def test_histograms_can_be_added() -> None:
    """The histogram of several runs together has the counts of each."""
    counts = read_histogram(histogram([0.001, 0.001, 0.1]), histogram([0.001]))
    assert counts == {bucket_of(0.001): 3, bucket_of(0.1): 1}
    assert bucket_bound_us(bucket_of(0.001)) == pytest.approx(1000, rel=0.045)


@pytest.mark.parametrize("line", ["12", "a:1", "1:b", "1:2,3:4", "-1:2"])
def test_a_damaged_histogram_is_refused(line: str) -> None:
    """A text that is no histogram is refused, and the error shows which part."""
    with pytest.raises(ValueError, match="a histogram has pairs"):
        read_histogram(line)


def test_a_histogram_without_counts_has_no_percentile() -> None:
    """An empty histogram has no percentile."""
    with pytest.raises(ValueError, match="at least one value"):
        value_at(read_histogram(""), 0.5)


def test_without_a_stall_both_loops_agree() -> None:
    """Without its stall, both loops see only the service time, so what they differ in above is the stall."""

    async def measure() -> tuple[list[float], list[float]]:
        calm = OneAtATime(for_seconds=0.0)
        return (await offer(calm.ask, LOAD)).latencies, await closed_loop(calm, LOAD)

    for latencies in run(measure()):
        assert statistics.fmean(latencies) == pytest.approx(SERVICE)
