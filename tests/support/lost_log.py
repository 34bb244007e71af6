"""A log of which the end is lost: what callers kept from it, and what every replica must answer to that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub
from tests.support.streams import create, position, read, read_up_to, subscribe

__all__ = ["BEFORE", "LOST", "Lost", "check", "open_one", "write_before", "write_lost"]

BEFORE, LOST = 5, 4


@dataclass
class Lost:
    """What a caller kept from the part of the log that is lost, and from the part before it."""

    tokens: list[str]
    cursors: list[str]
    consistency_tokens: list[str]
    old_cursor: str
    old_consistency_token: str
    old_token: str


async def is_refused(ask: Callable[[], Awaitable[object]]) -> bool:
    """Return whether a call is refused as out of range. Any other failure is tried again: the server has just begun."""
    async with asyncio.timeout(20):
        while True:
            try:
                await ask()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    await asyncio.sleep(0.05)
                    continue
                return error.code() is grpc.StatusCode.OUT_OF_RANGE
            return False


async def open_one(stub: AsyncStub) -> pb.CreateSessionResponse:
    """Open a session, and try again while the database is away."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await stub.CreateSession(pb.CreateSessionRequest(subject="new"))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - other errors are no outage
                await asyncio.sleep(0.05)


async def write_before(stub: AsyncStub) -> Lost:
    """Write the part of the log that stays. Return what a caller keeps from it."""
    for _ in range(BEFORE):
        token, _ = await create(stub, "before")
    answer = await stub.GetAuthority(pb.GetAuthorityRequest())
    stream = subscribe(stub)
    cursor = (await read_up_to(stream, BEFORE))[-1].cursor
    stream.cancel()
    return Lost([], [], [], cursor, answer.consistency_token, token)


async def write_lost(stub: AsyncStub, lost: Lost) -> None:
    """Write the part of the log that will be lost, and add what a caller keeps from it."""
    for _ in range(LOST):
        opened = await open_one(stub)
        lost.tokens.append(opened.token)
        lost.consistency_tokens.append(opened.consistency_token)
    stream = subscribe(stub, cursor=lost.old_cursor)
    lost.cursors = [item.cursor for item in await read_up_to(stream, BEFORE + LOST) if position(item) > BEFORE]
    stream.cancel()
    assert len(lost.cursors) == LOST


def ask_with(stub: AsyncStub, lost: Lost) -> list[Callable[[], Awaitable[object]]]:
    """Return the calls with each cursor and each consistency token of the lost part."""
    request = pb.ValidateSessionRequest
    return [
        *(lambda cursor=cursor: read(subscribe(stub, cursor=cursor)) for cursor in lost.cursors),
        *(
            lambda at_least=at_least: stub.ValidateSession(request(token=lost.old_token, at_least=at_least))
            for at_least in lost.consistency_tokens
        ),
    ]


async def check(stub: AsyncStub, lost: Lost) -> None:
    """Check what a replica answers after the loss."""
    for ask in ask_with(stub, lost):
        assert await is_refused(ask)
    for token in lost.tokens:
        seen = await stub.ValidateSession(pb.ValidateSessionRequest(token=token))
        assert seen.verdict == pb.VERDICT_UNKNOWN
    old = pb.ValidateSessionRequest(token=lost.old_token, at_least=lost.old_consistency_token)
    assert (await stub.ValidateSession(old)).verdict == pb.VERDICT_VALID
