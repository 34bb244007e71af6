"""A cache on a Follow stream that does what a test says, and checks what the contract promises of every message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import grpc

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub

__all__ = ["FollowStream", "following"]

PATIENCE = 20.0
"""Seconds after which an expected message counts as missing."""


class FollowStream:
    """One stream. Every message that was read has the next number."""

    def __init__(self, stub: AsyncStub) -> None:
        self.call: grpc.aio.StreamStreamCall[pb.FollowRequest, pb.FollowResponse] = stub.Follow()
        self.number = 0
        self.cursor = ""
        self.events: list[pb.Event] = []
        self._nonce = 0

    async def start(self, cursor: str = "", applications: Iterable[str] = (), name: str = "cache") -> None:
        """Send the first message."""
        await self.call.write(
            pb.FollowRequest(start=pb.FollowStart(cursor=cursor, applications=applications, follower=name))
        )

    async def next(self) -> pb.FollowResponse:
        """Return the next message. Raises the error with which the stream ends, or EOFError if it ends with OK."""
        message = await asyncio.wait_for(self.call.read(), PATIENCE)
        if not isinstance(message, pb.FollowResponse):
            assert await self.call.code() is grpc.StatusCode.OK
            raise EOFError
        self.number += 1
        assert message.number == self.number
        assert message.cursor
        assert (message.WhichOneof("item") == "started") or self.number > 1
        self.cursor = message.cursor
        self.events += message.batch.events
        return message

    async def until(self, item: str) -> pb.FollowResponse:
        """Return the next message with this content."""
        while (message := await self.next()).WhichOneof("item") != item:
            pass
        return message

    async def until_revision(self, revision: int) -> pb.FollowResponse:
        """Read until the event with a revision has arrived."""
        while not self.events or self.events[-1].revision < revision:
            message = await self.next()
        return message

    async def acknowledge(self, cursor: str = "") -> None:
        """Acknowledge a position; by default that of the last message."""
        await self.call.write(pb.FollowRequest(applied=pb.Acknowledgement(cursor=cursor or self.cursor)))

    async def ask(self) -> int:
        """Ask for a lease. Return the nonce."""
        self._nonce += 1
        await self.call.write(pb.FollowRequest(renewal=pb.LeaseRenewal(nonce=self._nonce)))
        return self._nonce

    async def renew(self) -> pb.FollowResponse:
        """Ask for a lease, and return the grant."""
        nonce = await self.ask()
        message = await self.until("grant")
        assert message.grant.nonce == nonce
        return message

    async def release(self) -> None:
        """Give the lease up."""
        await self.call.write(pb.FollowRequest(release=pb.LeaseRelease()))

    async def end(self) -> grpc.aio.AioRpcError | None:
        """Read to the end of the stream. Return its error, None if it ends with OK."""
        while True:
            try:
                await self.next()
            except EOFError:
                return None
            except grpc.aio.AioRpcError as error:
                return error


@asynccontextmanager
async def following(
    stub: AsyncStub, cursor: str = "", applications: Iterable[str] = (), name: str = "cache"
) -> AsyncIterator[FollowStream]:
    """Follow, after the first message of the authority."""
    stream = FollowStream(stub)
    try:
        await stream.start(cursor, applications, name)
        assert (await stream.next()).WhichOneof("item") == "started"
        yield stream
    finally:
        stream.call.cancel()
