"""A stream of validations for tests: batches go in, and each answer is kept under its batch and index."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import grpc

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub

__all__ = ["Answer", "Batches", "batches"]

PATIENCE = 30.0
loose: Any = pb
Answer: TypeAlias = Any
"""A `ValidateSessionResponse`, or a `ValidationFailure`."""


class Batches:
    """One stream. Each answer must be for a request that was sent and not answered yet."""

    def __init__(self, stub: AsyncStub) -> None:
        self.call: Any = stub.StreamValidations()
        self.messages: list[pb.StreamValidationsResponse] = []
        self.answers: dict[tuple[int, int], Answer] = {}
        self._sizes: dict[int, int] = {}

    async def send(self, batch: int, *requests: Any) -> None:
        """Send a batch. Requests may be dicts."""
        self._sizes[batch] = len(requests)
        await self.call.write(loose.StreamValidationsRequest(batch_id=batch, requests=requests))

    async def read(self) -> pb.StreamValidationsResponse | None:
        """Read the next message; None at the end. Raises what the stream ends in."""
        async with asyncio.timeout(PATIENCE):
            message = await self.call.read()
        if message is grpc.aio.EOF:
            return None
        self.messages.append(message)
        indexes = list(message.indexes) or list(range(len(message.responses)))
        assert len(indexes) == len(message.responses), "each response has its index"
        answers: list[tuple[int, Answer]] = list(zip(indexes, message.responses, strict=True))
        answers += [(failure.index, failure) for failure in message.failures]
        for index, answer in answers:
            assert index < self._sizes[message.batch_id], "the answer is for a request that was sent"
            assert (message.batch_id, index) not in self.answers, "no request is answered twice"
            self.answers[message.batch_id, index] = answer
        return cast("pb.StreamValidationsResponse", message)

    async def until(self, *places: tuple[int, int]) -> list[Answer]:
        """Read until the requests at these places (batch and index) are answered, and return the answers."""
        while not all(place in self.answers for place in places):
            assert await self.read() is not None, "the stream ended"
        return [self.answers[place] for place in places]

    async def ask(self, batch: int, *requests: Any) -> list[Answer]:
        """Send a batch, and return its answers in order once all have come."""
        await self.send(batch, *requests)
        return await self.until(*((batch, index) for index in range(len(requests))))

    async def error(self) -> grpc.aio.AioRpcError:
        """Read to the end of a stream that ends in an error."""
        try:
            while await self.read() is not None:
                pass
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the stream ended without an error")


@asynccontextmanager
async def batches(stub: AsyncStub) -> AsyncIterator[Batches]:
    """Open a stream for the duration of the block."""
    stream = Batches(stub)
    try:
        yield stream
    finally:
        stream.call.cancel()
