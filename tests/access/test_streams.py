"""Open streams end when their caller changes, and only then for that reason."""

from __future__ import annotations

import asyncio

import pytest

from sessiond.access.streams import OpenStreams
from sessiond.domain.call import Caller
from sessiond.domain.errors import Unauthenticated

SHOP, OPS = Caller("shop"), Caller("ops")


async def opened(streams: OpenStreams, caller: Caller) -> asyncio.Task[None]:
    """The task of a stream that is being served, until it is ended."""
    began = asyncio.Event()

    async def serving() -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(streams.serve(caller, serving()))
    await began.wait()
    return task


async def test_the_streams_of_a_caller_end() -> None:
    """All streams of a caller that changed end with UNAUTHENTICATED, and those of others go on."""
    streams = OpenStreams()
    mine = [await opened(streams, SHOP) for _ in range(3)]
    other = await opened(streams, OPS)
    streams.end({"shop", "unknown"})
    for task in mine:
        with pytest.raises(Unauthenticated, match="this caller was changed"):
            await task
    assert not other.done()
    streams.end({"ops"})
    with pytest.raises(Unauthenticated):
        await other


async def test_a_cancelled_stream_is_not_unauthenticated() -> None:
    """A stream that the transport cancels is cancelled, and not turned into UNAUTHENTICATED."""
    streams = OpenStreams()
    task = await opened(streams, SHOP)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_task_is_not_cancelled_any_more_after_its_end(times: int) -> None:
    """After its end a stream's task is no longer being cancelled, even if its caller changed twice at once."""
    streams = OpenStreams()
    after: list[int] = []

    async def serving() -> None:
        try:
            await streams.serve(SHOP, asyncio.Event().wait())  # type: ignore[arg-type]  # what it returns does not matter
        except Unauthenticated:
            task = asyncio.current_task()
            assert task is not None
            after.append(task.cancelling())
            await asyncio.sleep(0)
            after.append(1_000)

    task = asyncio.create_task(serving())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(times):
        streams.end({"shop"})
    await task
    assert after == [0, 1_000]
    assert streams._ended == set()


async def test_streams_are_forgotten_when_they_are_over() -> None:
    """A stream that has returned, failed or was cancelled is not kept, and the end of its caller reaches nothing."""
    streams = OpenStreams()

    async def returning() -> None:
        await asyncio.sleep(0)

    async def failing() -> None:
        raise ValueError("bad")

    await streams.serve(SHOP, returning())
    with pytest.raises(ValueError, match="bad"):
        await streams.serve(SHOP, failing())
    (await opened(streams, SHOP)).cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert streams._tasks == {}
    streams.end({"shop"})
    await asyncio.sleep(0)  # a cancellation of this task would be raised here
