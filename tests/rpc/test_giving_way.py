"""Long work gives way to the unary calls that are under way."""

from __future__ import annotations

import asyncio

import pytest

from sessiond.rpc.giving_way import UnaryCalls

_STEPS = 40
"""Turns of the loop that a call needs."""


class Ticking:
    """A clock that shows 50 microseconds more whenever it is read, as long as a turn of the loop may take."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.00005
        return self.now


async def slices_during(calls: UnaryCalls, clock: Ticking, *, counted: bool, seconds: float = 0.002) -> int:
    """Return how many slices of long work, each of so many seconds, run during a call."""
    slices, ended = 0, asyncio.Event()

    async def call() -> None:
        if counted:
            calls.begin()
        for _ in range(_STEPS):
            await asyncio.sleep(0)
        if counted:
            calls.end()
        ended.set()

    async def work() -> None:
        nonlocal slices
        while not ended.is_set():
            begun = clock()
            clock.now += seconds
            slices += 1
            await calls.give_way(begun)

    await asyncio.gather(call(), work())
    return slices


async def test_a_call_does_not_wait_at_each_step() -> None:
    """A call of 40 steps waits for one slice of long work, and for many if nobody counts it."""
    clock = Ticking()
    assert await slices_during(UnaryCalls(clock), clock, counted=True) == 1
    assert await slices_during(UnaryCalls(clock), clock, counted=False) >= 10


async def test_long_work_keeps_a_third_of_the_time() -> None:
    """While there is always a call under way, a pause is at most twice as long as the slice before it."""
    clock = Ticking()
    calls = UnaryCalls(clock)
    calls.begin()
    for _ in range(20):
        calls.begin()  # another one, so that there is always a recent call
        begun = clock()
        clock.now += 0.002
        worked = clock()
        await calls.give_way(begun)
        assert clock.now - worked == pytest.approx(0.004, abs=0.0003)
        calls.end()


async def test_a_call_that_waits_long_holds_up_nothing() -> None:
    """Calls that all began 20 ms ago, such as revocations that wait for replicas, cause no pause."""
    clock = Ticking()
    calls = UnaryCalls(clock)
    calls.begin()
    clock.now += 0.021
    begun = clock()
    clock.now += 0.002
    worked = clock()
    await calls.give_way(begun)
    assert clock.now - worked < 0.0003
