"""Connections without calls are closed, so that nobody keeps places for connections without using them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from sessiond.rpc.listening import MAX_IDLE_MS, server_options
from tests.hostile.frames import start

IDLE = "grpc.max_connection_idle_ms"
SOON = 10.0


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The port of a server with our options, except that connections may be idle for a second only."""

    async def talk(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.write(b"hello")
        async for _ in requests:
            await context.write(b"still here")

    shorter = [(name, 1_000 if name == IDLE else value) for name, value in server_options(100)]
    server = grpc.aio.server(options=shorter)
    handlers: Any = {"Talk": grpc.stream_stream_rpc_method_handler(talk)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", handlers)])
    found = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield found
    await server.stop(None)


async def test_idle_connections_are_closed(port: int) -> None:
    """A connection that makes no call is closed by the server; without the option it would stay open for good."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start())
    async with asyncio.timeout(SOON):
        assert await reader.read()  # up to the end of the connection
    writer.close()


async def test_connections_with_a_stream_stay(port: int) -> None:
    """A connection is not idle while a stream is open on it, even if the stream is silent."""
    other, writer = await asyncio.open_connection("127.0.0.1", port)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.stream_stream("/test.Echo/Talk")()
        assert await call.read() == b"hello"
        writer.write(start())  # one that begins later and is idle shows how long is long enough
        async with asyncio.timeout(SOON):
            await other.read()
        await call.write(b"")
        assert await asyncio.wait_for(call.read(), SOON) == b"still here"
        call.cancel()
    writer.close()


def test_the_time_is_set() -> None:
    """Every server closes connections that have been idle for five minutes."""
    assert dict(server_options(100))[IDLE] == MAX_IDLE_MS == 300_000
