"""An open-loop load: each question has its own scheduled time, and its latency counts from that time.

A closed loop asks the next question after the last answer. If the server stalls, it asks nothing meanwhile, so the
stall appears as one slow answer (coordinated omission). Users do not wait for each other. Here a stall delays every
question that is due during it, and all of these delays are counted: those of the server, and those of the client that
was too busy to ask in time.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

__all__ = [
    "Load",
    "Measured",
    "bucket_bound_us",
    "bucket_of",
    "histogram",
    "offer",
    "percentile",
    "read_histogram",
    "value_at",
]

_KEEPS_UP = 0.95
_PER_OCTAVE = 16
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Load:
    """What is offered: evenly spaced questions, `per_second` of them, for so many `seconds`.

    `grace` is how many seconds to wait for the last answers. It also bounds how many questions may be under way: those
    of so many seconds. When either is exceeded, the measurement ends.
    """

    per_second: float
    seconds: float
    grace: float = 2.0

    @property
    def count(self) -> int:
        """How many questions are asked."""
        return max(1, round(self.per_second * self.seconds))

    @property
    def most_under_way(self) -> int:
        """How many questions may be unanswered at once."""
        return max(1, round(self.per_second * self.grace))


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load showed.

    latencies   seconds from the scheduled time of each question to its answer. For a question without an answer: to
                the end of the measurement, so its real latency is longer
    late        seconds from the scheduled time of each question to the time at which it was asked
    unanswered  questions that were due and got no answer
    answered_per_second   from the first scheduled time to the last answer
    saturated   whether the side could not keep up: questions stayed without an answer, or answers came at less than
                95 % of the offered rate. Its percentiles then depend on how long the load is offered
    """

    latencies: list[float]
    late: list[float]
    unanswered: int
    answered_per_second: float
    saturated: bool


async def offer(ask: Callable[[int], Awaitable[None]], load: Load, first: int = 0) -> Measured:
    """Offer the load: `ask(first)`, `ask(first + 1)`, and so on. Raises what `ask` raises.

    Time is that of the event loop.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    answered: dict[int, float] = {}
    late: list[float] = []
    under_way: set[asyncio.Task[None]] = set()
    failure: list[BaseException] = []

    def done(task: asyncio.Task[None]) -> None:
        under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            failure.append(error)

    def due(number: int) -> float:
        return begun + number / load.per_second

    async def one(number: int) -> None:
        await ask(first + number)
        answered[number] = loop.time()

    for number in range(load.count):
        if (wait := due(number) - loop.time()) > 0:
            await asyncio.sleep(wait)
        if failure or len(under_way) >= load.most_under_way:
            break
        late.append(max(0.0, loop.time() - due(number)))
        task = loop.create_task(one(number))
        under_way.add(task)
        task.add_done_callback(done)
    end_of_grace = loop.time() + load.grace
    while under_way and not failure and loop.time() < end_of_grace:
        await asyncio.wait(tuple(under_way), timeout=end_of_grace - loop.time(), return_when=asyncio.FIRST_EXCEPTION)
    ended = loop.time()
    failed, left = tuple(failure), tuple(under_way)
    for task in left:
        task.cancel()
    # What a cancelled question raises does not matter: gRPC's raise an error of their own.
    await asyncio.gather(*left, return_exceptions=True)
    if failed:
        raise failed[0]
    return _measured(load, begun, ended, answered, late)


def _measured(load: Load, begun: float, ended: float, answered: dict[int, float], late: list[float]) -> Measured:
    latencies = []
    for number in range(load.count):
        due = begun + number / load.per_second
        until = answered.get(number, ended)
        # Some loops wake up a fraction of a millisecond early: an answer counts even if its question was not yet due.
        if number in answered or until >= due:
            latencies.append(max(until - due, _LEAST))
    # The last question is due one interval before the end of the load.
    taken = max(answered.values(), default=ended) - begun + 1 / load.per_second
    rate = len(answered) / taken
    unanswered = len(latencies) - len(answered)
    saturated = unanswered > 0 or len(answered) < load.count or rate < _KEEPS_UP * load.per_second
    return Measured(latencies, late, unanswered, rate, saturated)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value such that at least `share` of all values are at most that (nearest rank)."""
    if not values or not 0 < share <= 1:
        raise ValueError(f"a percentile needs values, and a share above 0 and at most 1; not {share} of {len(values)}")
    # Rounded first: 0.999 * 1000 is a little more than 999.
    return sorted(values)[math.ceil(round(share * len(values), 9)) - 1]


def bucket_of(seconds: float) -> int:
    """Return the bucket of a latency. There are 16 in each octave, so a bucket is 4.4 % wide."""
    return max(0, math.ceil(math.log2(max(seconds * 1e6, 1.0)) * _PER_OCTAVE))


def bucket_bound_us(bucket: int) -> float:
    """Return the largest latency in a bucket, in microseconds."""
    return float(2 ** (bucket / _PER_OCTAVE))


def histogram(latencies: Sequence[float]) -> str:
    """Return how many latencies are in each bucket, as one line: `bucket:count`, in order, separated by spaces."""
    counts = Counter(bucket_of(latency) for latency in latencies)
    return " ".join(f"{bucket}:{counts[bucket]}" for bucket in sorted(counts))


def read_histogram(*lines: str) -> Counter[int]:
    """Return the counts by bucket of one or more histograms together. Raises `ValueError` for any other text."""
    counts: Counter[int] = Counter()
    for line in lines:
        for pair in line.split():
            bucket, separator, count = pair.partition(":")
            if not separator or not bucket.isdecimal() or not count.isdecimal():
                raise ValueError(f"a histogram has pairs like 96:12, separated by spaces; found {pair!r}")
            counts[int(bucket)] += int(count)
    return counts


def value_at(counts: Counter[int], share: float) -> float:
    """Return the percentile of a histogram in microseconds: the bound of its bucket. See `percentile`."""
    rank, seen = math.ceil(round(share * counts.total(), 9)), 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= max(rank, 1):
            return bucket_bound_us(bucket)
    raise ValueError("a percentile needs at least one value")
