"""A server whose service a test controls, on a transport that the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from sessiond.access.callers import Callers
from sessiond.domain.call import Caller
from sessiond.rpc.health import SERVICE
from sessiond.rpc.server import RpcServer
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["METHOD", "Held", "Raising", "channel_to", "running"]

METHOD = f"/{SERVICE}/GetAuthority"


class Held:
    """A service whose calls wait until the test lets them go. `size` is that of the padding of its responses."""

    def __init__(self, size: int = 0) -> None:
        self._padding = "x" * size
        self.open = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self._changed = asyncio.Condition()

    async def GetAuthority(self, _: pb.GetAuthorityRequest, caller: Caller) -> pb.GetAuthorityResponse:  # noqa: N802
        """Wait, and respond with the address of the caller."""
        await self._count(1)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._count(-1)
        return pb.GetAuthorityResponse(version=caller.peer, incarnation=self._padding)

    async def _count(self, more: int) -> None:
        async with self._changed:
            self.open += more
            self._changed.notify_all()

    async def opened(self, number: int) -> None:
        """Wait until that many calls are open."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.open == number)


class Raising:
    """A service that refuses every call with the same exception."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def GetAuthority(self, *_: Any) -> Any:  # noqa: N802
        """Refuse the call."""
        raise self._error

    async def Subscribe(self, *_: Any) -> None:  # noqa: N802
        """Refuse the call."""
        raise self._error


@asynccontextmanager
async def running(
    service: object, transport: str, listen: str = "127.0.0.1:0", **limits: Any
) -> AsyncIterator[tuple[RpcServer, str]]:
    """Serve a service; yield the server and its address."""
    server = RpcServer((service,), Callers(), transport=transport, **limits)
    address = await server.start(listen)
    try:
        yield server, address
    finally:
        await server.stop(0)


def channel_to(address: str) -> grpc.aio.Channel:
    """Return a channel that shares no connection with others, and sends messages of any size."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    return grpc.aio.insecure_channel(address, options=options)
