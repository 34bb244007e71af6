"""A relay in front of a site. It holds the responses to some requests back, and knows which WebSockets are open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["MARK", "Relay", "relayed"]

MARK = b"held=1"
"""What the address of a request contains whose response is held back."""
_CHUNK = 64 * 1024


@dataclass
class Relay:
    """Passes connections on to a port of this machine. `port`: where it listens itself."""

    target: int
    port: int = 0
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the site has answered a request with `MARK`."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by the test, to let that response arrive."""
    sockets: int = 0
    """How many WebSockets are open."""

    async def has_sockets(self, count: int) -> bool:
        """Whether so many WebSockets are open."""
        return self.sockets == count

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        back, forth = await asyncio.open_connection("127.0.0.1", self.target)
        holds, upgraded = asyncio.Event(), asyncio.Event()
        flows = [
            asyncio.create_task(self._requests(reader, forth, holds, upgraded)),
            asyncio.create_task(self._responses(back, writer, holds)),
        ]
        try:
            await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for flow in flows:
                flow.cancel()
            self.sockets -= upgraded.is_set()
            writer.close()
            forth.close()

    async def _requests(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        holds: asyncio.Event,
        upgraded: asyncio.Event,
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(_CHUNK):
                if MARK in data.partition(b"\r\n")[0]:
                    holds.set()
                if not upgraded.is_set() and b"upgrade: websocket\r\n" in data.lower():
                    upgraded.set()
                    self.sockets += 1
                sink.write(data)
                await sink.drain()

    async def _responses(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, holds: asyncio.Event) -> None:
        with suppress(ConnectionError):
            while data := await source.read(_CHUNK):
                if holds.is_set():
                    self.held.set()
                    await self.released.wait()
                sink.write(data)
                await sink.drain()


@asynccontextmanager
async def relayed(target: int) -> AsyncIterator[Relay]:
    """Run a relay to a port."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
