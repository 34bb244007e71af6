"""Virtual time: actors sleep, and a driver moves the clock to the next one that wakes.

The authority's store works in a thread of its own, so the event loop's clock cannot be virtual. Instead the driver
counts the actors that are awake, and moves the clock only when none is.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any

from tests.support.clock import ManualClock

__all__ = ["SLOT", "Wheel"]

SLOT = 20
"""Actors wake at multiples of this, in milliseconds, so that many act at the same instant and really race."""


class _Group:
    def __init__(self, left: int) -> None:
        self.left = left


class Wheel:
    """Runs actors in virtual time. Those that wake at one instant run concurrently, in the order they went to sleep."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._number = 0
        self._awake = 0
        self._idle = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: BaseException | None = None

    @property
    def now(self) -> int:
        """The virtual time."""
        return self._clock.now()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start a new actor."""
        self._go(work, None).add_done_callback(self._ended)

    async def sleep(self, millis: float) -> None:
        """Sleep for that much virtual time."""
        wake = asyncio.get_running_loop().create_future()
        self._number += 1
        at = -int(-(self.now + max(millis, 1)) // SLOT) * SLOT
        heapq.heappush(self._sleepers, (at, self._number, wake))
        self._leave()
        await wake

    async def sleep_until(self, at: int) -> None:
        """Sleep until a point of virtual time; return at once if it has passed."""
        if at > self.now:
            await self.sleep(at - self.now)

    async def all(self, *works: Coroutine[Any, Any, Any]) -> None:
        """Run all of these concurrently, and wait for them."""
        if works:
            group = _Group(len(works))
            tasks = [self._go(work, group) for work in works]
            self._leave()
            await asyncio.gather(*tasks)  # the last of them passed its place among the awake actors on to this one

    async def run(self, until: int) -> None:
        """Move the clock from one waking actor to the next, up to that time. Raise what an actor raised."""
        while True:
            await self._idle.wait()
            if self._failure is not None:
                raise self._failure
            if not self._sleepers or self._sleepers[0][0] > until:
                break
            at = self._sleepers[0][0]
            self._clock.advance(at - self.now)
            wakes = []
            while self._sleepers and self._sleepers[0][0] == at:
                wakes.append(heapq.heappop(self._sleepers)[2])
            self._awake = len(wakes)
            self._idle.clear()
            for wake in wakes:
                wake.set_result(None)
        self._clock.advance(max(0, until - self.now))

    async def close(self) -> None:
        """End every actor."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _go(self, work: Coroutine[Any, Any, Any], group: _Group | None) -> asyncio.Task[Any]:
        self._awake += 1
        self._idle.clear()
        task = asyncio.create_task(self._act(work, group))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # otherwise left open if its task is cancelled early
        return task

    async def _act(self, work: Coroutine[Any, Any, Any], group: _Group | None) -> None:
        try:
            await work
        finally:
            if group is not None:
                group.left -= 1
            if group is None or group.left:
                self._leave()

    def _leave(self) -> None:
        self._awake -= 1
        if self._awake == 0:
            self._idle.set()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
            self._idle.set()
