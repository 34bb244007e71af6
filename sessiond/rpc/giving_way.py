"""Giving way: long work on the event loop leaves time for the calls that are under way.

A unary call takes several turns of the event loop. If each of them has to wait for a slice of long work, such as the
questions of a large batch, the call takes as long as many slices. So long work pauses after each slice while unary
calls are under way, and keeps a third of the time at least.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

__all__ = ["UnaryCalls"]

_ARRIVAL = 3
"""Turns of the event loop that grpcio needs from the arrival of a call to the start of its handler."""
_PAUSE = 2
"""The longest pause, as a multiple of the time that the slice took. Its answers are written during the pause."""
_RECENT = 0.02
"""Seconds. No pause is made for calls that all began longer ago: they wait for something, such as other replicas."""


class UnaryCalls:
    """Counts the unary calls that are under way. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.clock = clock
        self._count = 0
        self._last_begin = 0.0

    def begin(self) -> None:
        """Note that a call has begun."""
        self._count += 1
        self._last_begin = self.clock()

    def end(self) -> None:
        """Note that a call has ended."""
        self._count -= 1

    async def give_way(self, since: float, beside: int = 0) -> None:
        """Pause after a slice that began at that time of the clock, as long as calls are under way.

        `beside`: how many of these are the work itself.

        The pause consists of turns of the loop, because the loop's timers have a resolution of a millisecond only.
        """
        now = self.clock()
        end = now + _PAUSE * (now - since)
        for _ in range(_ARRIVAL):
            await asyncio.sleep(0)
        while self._count > beside and self.clock() < min(end, self._last_begin + _RECENT):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0)
