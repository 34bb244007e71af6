"""Free memory is returned to the system after a burst, and not all the time."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress

from sessiond.system.memory import MemoryReturn, resident_bytes, trim

MB = 1_000_000


class Machine:
    """A process whose resident memory is set by the test. `free` is the part that `trim` can return."""

    def __init__(self, used: int = 100 * MB) -> None:
        self.used, self.free, self.trims = used, 0, 0
        self.returning = MemoryReturn(lambda: self.used + self.free, self.trim)

    def trim(self) -> None:
        """Return the free part."""
        self.trims += 1
        self.free = 0


async def test_after_a_burst_memory_is_returned() -> None:
    """Memory that has grown is returned at the second look, when it grows no more."""
    machine = Machine()
    machine.free = 50 * MB
    await machine.returning.look()
    assert machine.trims == 0
    await machine.returning.look()
    assert (machine.trims, machine.free) == (1, 0)


async def test_small_growth_is_left_alone() -> None:
    """Growth within 5 % and 4 MB is not looked after."""
    machine = Machine()
    machine.free = 8 * MB
    for _ in range(10):
        await machine.returning.look()
    assert machine.trims == 0


async def test_memory_in_use_is_tried_again() -> None:
    """Memory that is in use is tried at growing distances, and returned once it is free."""
    machine, looks = Machine(), []
    machine.used = 300 * MB
    for number in range(1, 301):
        trims = machine.trims
        await machine.returning.look()
        if machine.trims > trims:
            looks.append(number)
    assert looks == [2, 4, 8, 16, 32, 64, 124, 184, 244]
    machine.used, machine.free = 100 * MB, 200 * MB
    for _ in range(60):
        await machine.returning.look()
    assert machine.free == 0


async def test_while_memory_grows_nothing_is_done() -> None:
    """During a burst nothing is returned that would be needed again at once."""
    machine = Machine()
    for _ in range(10):
        machine.free += 20 * MB
        await machine.returning.look()
    assert machine.trims == 0


async def test_a_smaller_process_is_a_new_measure() -> None:
    """After memory has become less, growth is counted from there."""
    machine = Machine(used=200 * MB)
    machine.used = 100 * MB
    await machine.returning.look()
    machine.free = 60 * MB
    await machine.returning.look()
    await machine.returning.look()
    assert machine.trims == 1


def test_this_process_can_be_measured_and_trimmed() -> None:
    """On this system the resident memory is known, and returning memory raises nothing."""
    assert resident_bytes() > MB
    trim()


def test_cycles_are_freed_first() -> None:
    """Reference cycles of recent calls are collected, so that their memory is free."""

    class Kept:
        """Something that refers to itself."""

    kept = Kept()
    kept.itself = kept  # type: ignore[attr-defined]
    gone = weakref.ref(kept)
    gc.disable()
    try:
        del kept
        assert gone() is not None
        trim()
        assert gone() is None
    finally:
        gc.enable()


async def test_it_goes_on_until_it_is_cancelled() -> None:
    """The task waits before its first look, and ends when it is cancelled."""
    looks = 0

    def resident() -> int:
        nonlocal looks
        looks += 1
        return MB

    task = asyncio.create_task(MemoryReturn(resident).run())
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert looks == 1  # when it was constructed
