"""A TCP proxy on loopback that delays, drops and black-holes the connections that pass through it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import cycle

__all__ = ["Proxy"]

_CHUNK = 64 * 1024


class Proxy:
    """Passes connections on to its targets, `(host, port)` each, by turns.

    request_delay, answer_delay  seconds that each piece of data waits, towards the target and back
    """

    def __init__(self, *targets: tuple[str, int]) -> None:
        self._targets = cycle(targets)
        self._open: set[_Link] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.request_delay = 0.0
        self.answer_delay = 0.0

    async def start(self) -> None:
        """Listen on a free port, which is in `port` then."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Drop all connections, and accept no more."""
        if self._server is not None:
            self._server.close()
        self.drop()
        while self._open:  # noqa: ASYNC110 - they end in the next turns of the loop
            await asyncio.sleep(0)

    def black_hole(self) -> None:
        """Let nothing pass: connections stay open, new ones are accepted, and no byte arrives until `heal`."""
        self._flows.clear()

    def drop(self) -> None:
        """Reset every connection."""
        for link in self._open:
            link.drop()

    def heal(self) -> None:
        """Let everything pass without a delay, what waits first."""
        self.request_delay = self.answer_delay = 0.0
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(task, [writer])
        self._open.add(link)
        try:
            their_reader, their_writer = await asyncio.open_connection(*next(self._targets))
            link.writers.append(their_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, their_writer, towards_target=True))
                group.create_task(self._pump(their_reader, writer, towards_target=False))
        except* (OSError, _Ended):
            pass
        except* asyncio.CancelledError:
            pass  # by `drop`
        finally:
            for open_writer in link.writers:
                open_writer.transport.abort()
            self._open.discard(link)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, towards_target: bool) -> None:
        """Pass data on in one direction, each piece after its delay, until either side ends."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            while True:
                data = await reader.read(_CHUNK)
                delay = self.request_delay if towards_target else self.answer_delay
                await waiting.put((loop.time() + delay, data))
                if not data:
                    return

        reading = asyncio.create_task(read())
        try:
            while True:
                due, data = await waiting.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._flows.wait()
                if not data or writer.transport.is_closing():
                    raise _Ended
                writer.write(data)
                with suppress(ConnectionError):
                    await writer.drain()
        finally:
            reading.cancel()


class _Ended(Exception):
    """One side has closed the connection."""


class _Link:
    """One connection."""

    def __init__(self, task: asyncio.Task[None], writers: list[asyncio.StreamWriter]) -> None:
        self._task = task
        self.writers = writers

    def drop(self) -> None:
        """Reset both sides."""
        self._task.cancel()
