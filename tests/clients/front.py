"""A gRPC server in front of an authority: it counts calls, holds answers back, and may not know some methods."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

__all__ = ["Front"]

_STREAMS = {"Follow", "Subscribe", "StreamValidations", "StreamBackup"}


class Front(grpc.GenericRpcHandler):
    """Passes calls on, as bytes.

    calls    how many calls of each method have arrived
    hides    methods that it does not serve
    gate     while it is clear, the authority's answers to unary calls are held back
    held     how many answers are held back
    """

    def __init__(self, target: str, hides: Collection[str] = ()) -> None:
        self._target = target
        self._channel: Any = None
        self.hides = set(hides)
        self.calls: Counter[str] = Counter()
        self.gate = asyncio.Event()
        self.gate.set()
        self.held = 0
        self._arrived = asyncio.Condition()

    @property
    def asked(self) -> int:
        """How many validations have arrived."""
        return self.calls["ValidateSession"]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Run it; where."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self,))
        port = server.add_insecure_port("127.0.0.1:0")
        async with grpc.aio.insecure_channel(self._target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            self._channel = channel
            await server.start()
            try:
                yield f"127.0.0.1:{port}"
            finally:
                self.gate.set()
                await server.stop(0)

    async def until_held(self, count: int = 1) -> None:
        """Wait until so many answers are held back."""
        async with asyncio.timeout(20), self._arrived:
            await self._arrived.wait_for(lambda: self.held >= count)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """See `grpc.GenericRpcHandler`."""
        path = str(details.method)
        name = path.rpartition("/")[2]
        self.calls[name] += 1
        if name in self.hides:
            return None
        if name in _STREAMS:
            return grpc.stream_stream_rpc_method_handler(self._stream(path))
        return grpc.unary_unary_rpc_method_handler(self._unary(path))

    def _unary(self, path: str) -> Any:
        async def passing(request: bytes, context: Any) -> bytes:
            try:
                answer: bytes = await self._channel.unary_unary(path)(request)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
                raise
            if not self.gate.is_set():
                async with self._arrived:
                    self.held += 1
                    self._arrived.notify_all()
                try:
                    await self.gate.wait()
                finally:
                    self.held -= 1
            return answer

        return passing

    def _stream(self, path: str) -> Any:
        async def passing(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            call = self._channel.stream_stream(path)(requests)
            try:
                async for answer in call:
                    yield answer
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
            finally:
                call.cancel()

        return passing
