"""Messages that arrive slowly or not at all: what they cost is bounded, and nobody else waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from sessiond.access.callers import Callers
from sessiond.domain.call import Caller
from sessiond.rpc import handlers
from sessiond.rpc.arrivals import ArrivalBounds, Arrivals
from sessiond.rpc.heavy import HeavyMessages
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.rpc.unfinished import Unfinished
from tests.support.server import config_for, serving, stub_for

ECHO, TALK = "/test.Echo/Say", "/test.Echo/Talk"
MESSAGE = StringValue(value="ten bytes.").SerializeToString()
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED = "0", "3", "8"
SOON = 10.0
"""Seconds after which a test that waits for something has failed."""


@asynccontextmanager
async def echoing(bounds: ArrivalBounds, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """A gRPC server with our handlers under these bounds; its address."""

    async def say(message: Any, caller: Caller) -> Any:
        return message

    async def talk(message: Any, caller: Caller, context: Any) -> None:
        await context.write(message)

    intake = handlers.Intake(Callers(), Arrivals(bounds), HeavyMessages())
    server = grpc.aio.server()
    found = {
        "Say": handlers.unary("Say", StringValue, say, intake),
        "Talk": handlers.stream("Talk", StringValue, talk, intake),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", found)])
    port = server.add_insecure_port(listen)
    await server.start()
    yield listen if listen.startswith("unix:") else f"127.0.0.1:{port}"
    await server.stop(None)


async def say(address: str, text: str = "hello") -> str:
    """A whole call on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(
            ECHO, request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
        )
        return str((await call(StringValue(value=text), timeout=SOON)).value)


@pytest.mark.parametrize("path", [ECHO, TALK])
async def test_one_connection_does_not_make_another_wait(path: str) -> None:
    """However many messages of one connection are unfinished, another's call is answered; finished, so are they."""
    bounds = ArrivalBounds(total=8, by_peer=4, seconds=3600)
    async with echoing(bounds) as address, Unfinished.to(address) as slow:
        streams = [await slow.call(path, MESSAGE) for _ in range(20)]
        assert await say(address) == "hello"
        assert slow.statuses == {}
        for stream in streams:
            await slow.finish(stream, MESSAGE[-1:])
        assert await asyncio.wait_for(slow.ended(*streams), SOON) == [OK] * 20


async def test_connections_take_turns() -> None:
    """When all places are taken, the second that is free is not for the longest line but for the next connection."""
    bounds = ArrivalBounds(total=4, by_peer=2, seconds=3600)
    async with echoing(bounds) as address, Unfinished.to(address) as first, Unfinished.to(address) as second:
        held = [await first.call(ECHO, MESSAGE) for _ in range(2)]
        others = [await second.call(ECHO, MESSAGE) for _ in range(2)]
        waiting = [await first.call(ECHO, MESSAGE) for _ in range(10)]
        third = asyncio.create_task(say(address))
        await first.finish(held[0], MESSAGE[-1:])
        await second.finish(others[0], MESSAGE[-1:])
        assert await asyncio.wait_for(third, SOON) == "hello"
        assert not first.statuses.keys() & set(waiting)


async def test_what_keeps_others_waiting_is_given_up() -> None:
    """Messages that take too long while others of their connection wait are RESOURCE_EXHAUSTED, and those go on."""
    bounds = ArrivalBounds(total=8, by_peer=4, seconds=0.05)
    async with echoing(bounds) as address, Unfinished.to(address) as slow:
        streams = [await slow.call(ECHO, MESSAGE) for _ in range(4)]
        whole = await slow.call(ECHO, MESSAGE, lacks=0, ends=True)
        assert await asyncio.wait_for(slow.ended(whole, streams[0]), SOON) == [OK, RESOURCE_EXHAUSTED]


async def test_what_keeps_nobody_waiting_has_all_the_time() -> None:
    """A slow message is not given up while there are free places."""
    bounds = ArrivalBounds(total=8, by_peer=4, seconds=0.01)
    async with echoing(bounds) as address, Unfinished.to(address) as slow:
        streams = [await slow.call(ECHO, MESSAGE) for _ in range(3)]
        for _ in range(20):
            assert await say(address) == "hello"
        for stream in streams:
            await slow.finish(stream, MESSAGE[-1:])
        assert await asyncio.wait_for(slow.ended(*streams), SOON) == [OK] * 3


async def test_a_connection_that_hangs_up_leaves_its_places() -> None:
    """Whether its messages were arriving or waiting: everybody else has all places again."""
    async with echoing(ArrivalBounds(total=2, by_peer=2, seconds=3600)) as address:
        async with Unfinished.to(address) as slow:
            for _ in range(6):
                await slow.call(ECHO, MESSAGE)
            late = asyncio.create_task(say(address))
        assert await asyncio.wait_for(late, SOON) == "hello"
        assert await asyncio.gather(*(say(address, str(number)) for number in range(6))) == list("012345")


async def test_connections_of_a_unix_socket_are_not_bounded(tmp_path: Path) -> None:
    """They cannot be told apart: a bound for one would be a bound for all."""
    bounds = ArrivalBounds(total=1, by_peer=1, seconds=3600)
    async with echoing(bounds, f"unix:{tmp_path}/socket") as address:
        assert await asyncio.gather(*(say(address, str(number)) for number in range(6))) == list("012345")


@pytest.mark.parametrize("path", [ECHO, TALK])
async def test_a_call_without_a_message(path: str) -> None:
    """A call that ends without its message is INVALID_ARGUMENT."""
    async with echoing(ArrivalBounds()) as address, Unfinished.to(address) as odd:
        stream = await odd.call(path, b"")
        assert await asyncio.wait_for(odd.ended(stream), SOON) == [INVALID_ARGUMENT]


@pytest.mark.parametrize(
    "path",
    [
        "/sessiond.v1.SessionAuthority/ValidateSession",
        "/sessiond.v1.SessionAuthority/Subscribe",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
async def test_every_method_is_bounded(tmp_path: Path, path: str) -> None:
    """Each method of a real authority gives up what keeps others of its connection waiting; other callers go on."""
    number = 2 * ArrivalBounds().by_peer
    async with serving(config_for(tmp_path)) as app, stub_for(app.address) as stub, Unfinished.to(app.address) as slow:
        streams = [await slow.call(path, MESSAGE) for _ in range(number)]
        assert (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=SOON)).token
        assert slow.statuses == {}
        assert await asyncio.wait_for(slow.ended(streams[0]), SOON) == [RESOURCE_EXHAUSTED]
        assert (await stub.GetAuthority(pb.GetAuthorityRequest(), timeout=SOON)).version
