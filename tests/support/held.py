"""A store that is held: its operations queue up in order until the test releases it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sessiond.app import App
from tests.support.server import sqlite_of

__all__ = ["held", "until"]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds. The event loop turns, but no time passes."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the condition is inside the authority, and nothing signals it
            await asyncio.sleep(0)


@asynccontextmanager
async def held(app: App) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Hold the store of an authority in this process. Return a function that waits until so many operations queue."""
    turn = sqlite_of(app)._connection_lock

    async def waiting(count: int) -> None:
        await until(lambda: len(turn._waiters or ()) == count)

    async with turn:
        yield waiting
