"""Memory that the C library keeps after a burst: it is returned to the system.

gRPC allocates in many threads. After a burst of connections or messages, glibc keeps what was freed: some 30 MB after
2,000 connections, more after larger bursts. The system cannot give this memory to others.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["EVERY", "MemoryReturn", "resident_bytes", "trim"]

EVERY = 10.0
"""Seconds between two looks at the resident memory."""
_GROWTH = 1.05
_SLACK = 4_000_000
_LONGEST_PAUSE = 59
_RECENT_GENERATIONS = 1
"""Not the oldest one, which has the sessions in memory: that would stop everything for as long as it takes."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 if the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except OSError:
        return 0


def trim() -> None:
    """Return free memory to the system, if the C library can. Takes milliseconds; call it in a thread.

    Before that, reference cycles of recent calls are collected, which the server otherwise does rarely.
    """
    gc.collect(_RECENT_GENERATIONS)
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return  # not glibc
    malloc_trim(0)


class MemoryReturn:
    """Returns memory when the resident memory is 5 % and 4 MB above the least that it was, and grows no more.

    What has grown may still be in use, so it is tried again later: after one look, three, seven and so on, at most
    after ten minutes. A process that grows for good is trimmed rarely.
    """

    def __init__(self, resident: Callable[[], int] = resident_bytes, give_back: Callable[[], None] = trim) -> None:
        self._resident = resident
        self._give_back = give_back
        self._least = self._before = resident()
        self._pause = self._pausing = 0

    async def look(self) -> None:
        """Look at the resident memory, and return what is free if there is a reason."""
        now = self._resident()
        grows, self._before = now > self._before + _SLACK, now
        self._least = min(self._least, now)
        if grows or now <= self._least * _GROWTH + _SLACK:
            self._pause = self._pausing = 0
            return
        if self._pausing:
            self._pausing -= 1
            return
        await asyncio.to_thread(self._give_back)
        self._before = self._resident()
        returned = self._before < now - _SLACK
        self._pause = self._pausing = 0 if returned else min(2 * self._pause + 1, _LONGEST_PAUSE)

    async def run(self) -> None:
        """Look again and again, until the task is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            await self.look()
