"""A store that waits: what is asked of it queues up, in order, until the test lets go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sessiond.app import App

__all__ = ["held", "until"]


async def until(condition: Callable[[], bool]) -> None:
    """Return once that is so. Turns of the loop pass, no time."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for is inside the authority, and tells nobody
            await asyncio.sleep(0)


@asynccontextmanager
async def held(app: App) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Hold the store of an authority in this process; gives what waits until so many operations wait for it."""
    turn = app._store._connection_lock

    async def waiting(count: int) -> None:
        await until(lambda: len(turn._waiters or ()) == count)

    async with turn:
        yield waiting
