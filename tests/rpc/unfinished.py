"""A connection below gRPC, for calls with incomplete messages, which no gRPC client can make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import h2.connection
import h2.events

__all__ = ["Unfinished"]

_FRAME = 16_384


class Unfinished:
    """One HTTP/2 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._connection = h2.connection.H2Connection()
        self._next = 1
        self.statuses: dict[int, str] = {}
        """The gRPC status that each stream ended with."""

    @classmethod
    @asynccontextmanager
    async def to(cls, address: str) -> AsyncIterator[Unfinished]:
        """Connect to `host:port`; close the connection at the end."""
        host, _, port = address.rpartition(":")
        self = cls(*await asyncio.open_connection(host, int(port)))
        self._connection.initiate_connection()
        try:
            yield self
        finally:
            await self.close()

    async def call(self, path: str, message: bytes, *, lacks: int = 1, ends: bool = False) -> int:
        """Begin a call whose message lacks its last bytes, or with no message if it is empty. Return its stream."""
        stream, self._next = self._next, self._next + 2
        headers = {":method": "POST", ":scheme": "http", ":authority": "test", ":path": path}
        headers |= {"content-type": "application/grpc", "te": "trailers"}
        self._connection.send_headers(stream, list(headers.items()), end_stream=not message)
        if message:
            whole = b"\0" + len(message).to_bytes(4, "big") + message
            part = whole[: len(whole) - lacks]
            for start in range(0, len(part), _FRAME):
                last = start + _FRAME >= len(part)
                self._connection.send_data(stream, part[start : start + _FRAME], end_stream=ends and last)
        await self._flush()
        return stream

    async def finish(self, stream: int, rest: bytes) -> None:
        """Send the rest of a message."""
        self._connection.send_data(stream, rest, end_stream=True)
        await self._flush()

    async def ended(self, *streams: int) -> list[str]:
        """Wait until these streams have ended, and return their gRPC statuses."""
        while any(stream not in self.statuses for stream in streams):
            if not (raw := await self._reader.read(65_536)):
                raise ConnectionError("the server has closed the connection")
            for event in self._connection.receive_data(raw):
                if isinstance(event, h2.events.DataReceived):
                    self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                    headers = {bytes(name): bytes(value) for name, value in event.headers or ()}
                    if b"grpc-status" in headers and event.stream_id is not None:
                        self.statuses[event.stream_id] = headers[b"grpc-status"].decode()
            await self._flush()
        return [self.statuses[stream] for stream in streams]

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())
        await self._writer.drain()
