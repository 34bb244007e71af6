"""The end of the log is lost while replicas run: nothing continues from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from scripts.postgres import LocalPostgres
from sessiond.app import App
from sessiond_client import AsyncClient, Verdict
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.postgres import keep_copy, new_database, put_back_copy, start_again
from tests.support.replicas import replicas
from tests.support.server import AsyncStub, stub_for
from tests.support.streams import create, position, read, read_to_end, read_up_to, subscribe
from tests.support.tokens import revision_in

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


async def live_through(stub: AsyncStub, server: LocalPostgres) -> Lost:
    """Write events, keep a copy of the database, and write some more, which the copy does not have."""
    for _ in range(BEFORE):
        token, _ = await create(stub, "before")
    answer = await stub.GetAuthority(pb.GetAuthorityRequest())
    old_cursor = (await read_up_to(subscribe(stub), BEFORE))[-1].cursor
    server.stop()
    keep_copy(server)
    start_again(server)
    lost = Lost([], [], [], old_cursor, answer.consistency_token, token)
    for _ in range(LOST):
        opened = await open_one(stub)
        lost.tokens.append(opened.token)
        lost.consistency_tokens.append(opened.consistency_token)
    stream = subscribe(stub, cursor=old_cursor)
    lost.cursors = [item.cursor for item in await read_up_to(stream, BEFORE + LOST) if position(item) > BEFORE]
    assert len(lost.cursors) == LOST
    return lost


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


@pytest.mark.parametrize("written", [0, LOST + 3], ids=["nothing is written since", "more was written since"])
async def test_a_lost_tail_is_refused(tmp_path: Path, server: LocalPostgres, written: int) -> None:
    """After the database was set back, each replica ends its streams and refuses what it gave out since.

    That holds as well if another replica has written beyond the lost end in the meantime.
    """
    database = await new_database(server.url())
    async with replicas(tmp_path, database) as (first, second):  # noqa: SIM117 - the inner one needs the outer one
        async with stub_for(first.address) as one, stub_for(second.address) as other:
            lost = await live_through(one, server)
            live = subscribe(one)
            await read_up_to(live, BEFORE + LOST)
            early = subscribe(one, cursor=lost.old_cursor, subjects=["new"], interval_ms=100)
            server.stop()
            put_back_copy(server)
            start_again(server)
            fresh = [revision_in(await open_one(other)) for _ in range(written)]
            assert fresh == list(range(BEFORE + 1, BEFORE + 1 + written))
            ended = await asyncio.wait_for(read_to_end(live), 20)
            assert ended[1].code() is grpc.StatusCode.OUT_OF_RANGE
            early.cancel()
            for stub in (one, other):
                await check(stub, lost)
            after = revision_in(await open_one(one))
            assert after == BEFORE + 1 + written
            for stub in (one, other):
                items = await read_up_to(subscribe(stub, cursor=lost.old_cursor), after)
                assert [position(item) for item in items if item.HasField("event")] == [*fresh, after]


async def test_awaited_revocations_work_after_a_lost_tail(tmp_path: Path, server: LocalPostgres) -> None:
    """After the database was set back, replicas hold leases and acknowledge again."""
    database = await new_database(server.url())
    async with replicas(tmp_path, database) as running:
        async with stub_for(running[0].address) as one:
            lost = await live_through(one, server)
            server.stop()
            put_back_copy(server)
            start_again(server)
            await open_one(one)
            await _until_open(running)
        async with AsyncClient(running[0].address) as client, AsyncClient(running[1].address) as other:
            assert (await other.validate(lost.old_token)).verdict is Verdict.VALID
            await client.revoke(token=lost.old_token, wait_for_caches=True)
            assert (await other.validate(lost.old_token)).verdict is Verdict.REVOKED


async def _until_open(running: list[App]) -> None:
    """Wait until the caches of all replicas are open."""
    async with asyncio.timeout(20):
        for app in running:
            while not app.authority.parts.cache._is_open():  # noqa: ASYNC110 - a lease does not signal its beginning
                await asyncio.sleep(0.02)
