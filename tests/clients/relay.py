"""A relay between a client and its authority that misbehaves as networks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ["Counting", "Cutting", "Dropping", "Holding", "Losing", "Relay", "Swallowing"]

_PREFACE = 24
_FRAME_HEADER = 9
_HEADERS = 1
"""HTTP/2 (RFC 9113): bytes of a client's preface and of a frame's header; type of a frame that begins a call, or its
answer."""


class Relay:
    """Passes connections on. A subclass says when one breaks off."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._upstream = (host, int(port))
        self.breaks = 0
        self.connections = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Run it; where."""
        async with await asyncio.start_server(self._relay, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            yield f"{host}:{port}"

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream, to_upstream = await asyncio.open_connection(*self._upstream)
        ways = {
            asyncio.create_task(self.upwards(reader, to_upstream)),
            asyncio.create_task(self.downwards(upstream, writer)),
        }
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        writer.transport.abort()  # a reset, not a goodbye
        to_upstream.transport.abort()
        await asyncio.wait(ways)

    async def upwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the client; the connection breaks when this returns."""
        with suppress(ConnectionError):
            while some := await reader.read(65_536):
                writer.write(some)
                await writer.drain()

    downwards = upwards


class Cutting(Relay):
    """Breaks each connection off after so many bytes towards the client, wherever that falls."""

    def __init__(self, target: str, after: int) -> None:
        super().__init__(target)
        self._after = after

    async def downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._after
        with suppress(ConnectionError):
            while left and (some := await reader.read(left)):
                writer.write(some)
                await writer.drain()
                left -= len(some)
        self.breaks += not left


class Swallowing(Relay):
    """Breaks the first connections off as they carry their first call, which never arrives."""

    def __init__(self, target: str, connections: int) -> None:
        super().__init__(target)
        self._connections = connections

    async def upwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(await reader.readexactly(_PREFACE))
            while True:
                header = await reader.readexactly(_FRAME_HEADER)
                frame = header + await reader.readexactly(int.from_bytes(header[:3]))
                if header[3] == _HEADERS and self.breaks < self._connections:
                    self.breaks += 1
                    return
                writer.write(frame)
                await writer.drain()


class Losing(Relay):
    """Breaks the first connection off as it carries its first answer, which never arrives: the call took place."""

    async def downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                header = await reader.readexactly(_FRAME_HEADER)
                frame = header + await reader.readexactly(int.from_bytes(header[:3]))
                if header[3] == _HEADERS and not self.breaks:
                    self.breaks += 1
                    return
                writer.write(frame)
                await writer.drain()


class Counting(Relay):
    """Counts the calls that a client makes: each begins with one frame of its own."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.calls = 0

    async def upwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            writer.write(await reader.readexactly(_PREFACE))
            while True:
                header = await reader.readexactly(_FRAME_HEADER)
                self.calls += header[3] == _HEADERS
                writer.write(header + await reader.readexactly(int.from_bytes(header[:3])))
                await writer.drain()


class Holding(Relay):
    """Lets calls through and keeps their answers back. `arrived` is set when a call has reached the authority."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.arrived = asyncio.Event()

    async def downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                header = await reader.readexactly(_FRAME_HEADER)
                frame = header + await reader.readexactly(int.from_bytes(header[:3]))
                if header[3] == _HEADERS:
                    self.arrived.set()
                    await reader.read()  # until the end of the connection
                    return
                writer.write(frame)
                await writer.drain()


class Dropping(Relay):
    """Breaks all connections off once `dropped` is set."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.dropped = asyncio.Event()

    async def downwards(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ways = (
            asyncio.create_task(super().downwards(reader, writer)),
            asyncio.create_task(self.dropped.wait()),
        )
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
