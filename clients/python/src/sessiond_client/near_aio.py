"""Feeds the near cache of an `AsyncClient`: a task that follows the authority."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from sessiond_client.connection import Channels
from sessiond_client.errors import SessiondError, from_rpc
from sessiond_client.following import StreamBroken
from sessiond_client.near_stream import RENEW_EVERY, Conversation
from sessiond_client.subscription import ENDED

__all__ = ["FollowingTask"]

_GOODBYE = 0.5
"""Seconds to wait for the stream to end when the client is closed."""


class FollowingTask:
    """Follows the authority in a task, from `start` to `close`. Does not refer to the client."""

    def __init__(self, channels: Channels, conversation: Conversation) -> None:
        self._channels = channels
        self._conversation = conversation
        self._outbox: asyncio.Queue[Any] = asyncio.Queue()
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to follow, if this was not begun yet."""
        if self._task is None and not self._closed.is_set():
            self._conversation.prepare()
            self._loop = asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run(), name="sessiond near cache")

    async def close(self) -> None:
        """Close the cache, tell the authority, and end the stream."""
        self._say_goodbye()
        if self._task is not None:
            try:
                await asyncio.wait({self._task}, timeout=_GOODBYE)
            finally:
                self._task.cancel()
        self._channels.forget(self)

    def release(self) -> None:
        """As `close`, without waiting for the stream to end."""
        self._say_goodbye()
        if self._task is not None and self._loop is not None:
            self._loop.call_later(_GOODBYE, self._task.cancel)
        self._channels.forget(self)

    def abandon(self) -> None:
        """Close the cache. The loop is closed, so the stream has ended."""
        self._conversation.release()

    def release_from_any_thread(self) -> None:
        """As `release`, from the garbage collector, which may run in any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so is the task
                self._loop.call_soon_threadsafe(self.release)

    def _say_goodbye(self) -> None:
        if not self._closed.is_set():
            self._closed.set()
            for message in self._conversation.release():
                self._outbox.put_nowait(message)
            self._outbox.put_nowait(None)

    async def _run(self) -> None:
        while not self._closed.is_set():
            pause = self._conversation.broken(await self._follow())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closed.wait()

    async def _follow(self) -> SessiondError | None:
        """Follow until the stream ends. Returns what it ended in."""
        outbox: asyncio.Queue[Any] = asyncio.Queue()
        self._outbox = outbox
        if self._closed.is_set():
            return None
        for message in self._conversation.begin():
            outbox.put_nowait(message)
        call: Any = None
        try:
            call = self._channels.for_stream(self).Follow(_requests(outbox, self._conversation))
            async for message in call:
                if self._closed.is_set():
                    continue  # until the authority ends the stream
                for reply in self._conversation.received(message):
                    outbox.put_nowait(reply)
        except grpc.aio.AioRpcError as error:
            return from_rpc(error)
        except SessiondError as error:
            return error
        except (StreamBroken, grpc.aio.UsageError):
            return ENDED
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            return ENDED  # the channel was closed
        finally:
            outbox.put_nowait(None)
            if call is not None:
                call.cancel()
        return ENDED


async def _requests(outbox: asyncio.Queue[Any], conversation: Conversation) -> AsyncIterator[Any]:
    """What to send: what is put into the outbox until None, and renewals in time."""
    loop = asyncio.get_running_loop()
    due = loop.time() + RENEW_EVERY
    while True:
        if loop.time() >= due:  # checked first: under constant news the outbox may never be empty
            due = loop.time() + RENEW_EVERY
            for request in conversation.due():
                yield request
            continue
        try:
            async with asyncio.timeout_at(due):
                message = await outbox.get()
        except TimeoutError:
            continue
        if message is None:
            return
        yield message


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
