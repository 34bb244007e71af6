"""An authority that answers as a test says, in raw bytes; and calls of raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

__all__ = ["SERVICE", "Outcome", "Scripted", "outcome_of", "raw_channel", "scripted"]

SERVICE = "/sessiond.v1.SessionAuthority/"
Context = grpc.aio.ServicerContext[Any, Any]
Serve = Callable[[Any], Awaitable[None]]
"""Reads messages from the context of a call and writes messages to it."""
Outcome = tuple[grpc.StatusCode, str, list[bytes], list[tuple[str, str | bytes]], list[tuple[str, str | bytes]]]
"""Status, its text, the messages, and the metadata before and after them."""


class Scripted(grpc.GenericRpcHandler):
    """Serves every call but health checks with `serve`, and records the path and the metadata of each."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.calls: list[tuple[str, list[tuple[str, str | bytes]]]] = []
        self.hung_up = asyncio.Event()
        self.address = ""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def call(_: Any, context: Any) -> None:
            if details.method == "/grpc.health.v1.Health/Check":
                await context.write(b"\x08\x01")  # SERVING
                return
            self.calls.append((str(details.method), [tuple(item) for item in context.invocation_metadata()]))
            try:
                await self.serve(context)
            except asyncio.CancelledError:
                self.hung_up.set()
                raise

        return grpc.stream_stream_rpc_method_handler(call)


@asynccontextmanager
async def scripted(serve: Serve, address: str = "127.0.0.1:0") -> AsyncIterator[Scripted]:
    """Run it."""
    server, handler = grpc.aio.server(options=[("grpc.so_reuseport", 0)]), Scripted(serve)
    server.add_generic_rpc_handlers((handler,))
    handler.address = f"127.0.0.1:{server.add_insecure_port(address)}"
    await server.start()
    try:
        yield handler
    finally:
        await server.stop(0)


def raw_channel(address: str) -> Any:
    """Return a channel for calls of raw bytes, which the types of gRPC do not know."""
    return grpc.aio.insecure_channel(address)


async def outcome_of(address: str, method: str, raw: bytes, metadata: Any = ()) -> Outcome:
    """Make a call with one request, and return everything that its caller can see."""
    messages = []
    async with raw_channel(address) as channel:
        call = channel.unary_stream(method)(raw, metadata=metadata, timeout=30)
        try:
            async for message in call:
                messages.append(message)
        except grpc.aio.AioRpcError:
            pass  # its status is read below
        return (
            await call.code(),
            await call.details(),
            messages,
            list(await call.initial_metadata()),
            list(await call.trailing_metadata()),
        )
