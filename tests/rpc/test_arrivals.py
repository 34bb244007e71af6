"""Messages that arrive slowly or incompletely: their cost is limited, and nobody else waits for them."""

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
from sessiond.rpc.arrivals import ArrivalBounds, Arrivals
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.handlers import Intake, StreamMethod, UnaryMethod, on_grpcio
from sessiond.rpc.heavy import HEAVY_BYTES, HeavyMessages
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.rpc.unfinished import Unfinished
from tests.support.server import config_for, serving, stub_for

ECHO, TALK = "/test.Echo/Say", "/test.Echo/Talk"
MESSAGE = StringValue(value="ten bytes.").SerializeToString()
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED = "0", "3", "8"
SOON = 10.0
"""Seconds after which a test that waits has failed."""


@asynccontextmanager
async def echoing(bounds: ArrivalBounds, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Run a gRPC server with our handlers and these limits; yield its address."""

    async def say(message: Any, caller: Caller) -> Any:
        return message

    async def talk(message: Any, caller: Caller, context: Any) -> None:
        await context.write(message)

    callers = Callers()
    intake = Intake(callers, Arrivals(bounds), HeavyMessages(), callers.open_streams, UnaryCalls())
    server = grpc.aio.server()
    found = {
        "Say": on_grpcio(UnaryMethod("GetAuthority", StringValue, say, intake.heavy), intake),
        "Talk": on_grpcio(StreamMethod("Subscribe", StringValue, talk, intake.heavy, intake.open_streams), intake),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", found)])
    port = server.add_insecure_port(listen)
    await server.start()
    yield listen if listen.startswith("unix:") else f"127.0.0.1:{port}"
    await server.stop(None)


async def say(address: str, text: str = "hello") -> str:
    """Make a complete call on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(
            ECHO, request_serializer=StringValue.SerializeToString, response_deserializer=StringValue.FromString
        )
        return str((await call(StringValue(value=text), timeout=SOON)).value)


@pytest.mark.parametrize("path", [ECHO, TALK])
async def test_one_connection_does_not_make_another_wait(path: str) -> None:
    """Many incomplete messages of one connection do not delay another one; once complete, they are answered too."""
    bounds = ArrivalBounds(total=8, by_peer=4, seconds=3600)
    async with echoing(bounds) as address, Unfinished.to(address) as slow:
        streams = [await slow.call(path, MESSAGE) for _ in range(20)]
        assert await say(address) == "hello"
        assert slow.statuses == {}
        for stream in streams:
            await slow.finish(stream, MESSAGE[-1:])
        assert await asyncio.wait_for(slow.ended(*streams), SOON) == [OK] * 20


async def test_what_keeps_others_waiting_is_given_up() -> None:
    """Messages that take too long while others of their connection wait are RESOURCE_EXHAUSTED; the others go on."""
    bounds = ArrivalBounds(total=8, by_peer=4, seconds=0.05)
    async with echoing(bounds) as address, Unfinished.to(address) as slow:
        streams = [await slow.call(ECHO, MESSAGE) for _ in range(4)]
        whole = await slow.call(ECHO, MESSAGE, lacks=0, ends=True)
        assert await asyncio.wait_for(slow.ended(whole, streams[0]), SOON) == [OK, RESOURCE_EXHAUSTED]


async def test_what_keeps_nobody_waiting_has_all_the_time() -> None:
    """A slow message is not refused while there are free places."""
    bounds = ArrivalBounds(total=8, by_peer=4, seconds=0.01)
    async with echoing(bounds) as address, Unfinished.to(address) as slow:
        streams = [await slow.call(ECHO, MESSAGE) for _ in range(3)]
        for _ in range(20):
            assert await say(address) == "hello"
        for stream in streams:
            await slow.finish(stream, MESSAGE[-1:])
        assert await asyncio.wait_for(slow.ended(*streams), SOON) == [OK] * 3


async def test_a_connection_that_hangs_up_leaves_its_places() -> None:
    """When a connection closes, its places are free again for others, whether its messages arrived or waited."""
    async with echoing(ArrivalBounds(total=2, by_peer=2, seconds=3600)) as address:
        async with Unfinished.to(address) as slow:
            for _ in range(6):
                await slow.call(ECHO, MESSAGE)
            late = asyncio.create_task(say(address))
        assert await asyncio.wait_for(late, SOON) == "hello"
        assert await asyncio.gather(*(say(address, str(number)) for number in range(6))) == list("012345")


async def test_connections_of_a_unix_socket_are_not_bounded(tmp_path: Path) -> None:
    """Connections of a Unix socket cannot be distinguished, so they are not limited: one limit would be for all."""
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
    """In each method of a real authority, a message that keeps others of its connection waiting is refused."""
    number = 2 * ArrivalBounds().by_peer
    async with serving(config_for(tmp_path)) as app, stub_for(app.address) as stub, Unfinished.to(app.address) as slow:
        streams = [await slow.call(path, MESSAGE) for _ in range(number)]
        assert (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=SOON)).token
        assert slow.statuses == {}
        assert await asyncio.wait_for(slow.ended(streams[0]), SOON) == [RESOURCE_EXHAUSTED]
        assert (await stub.GetAuthority(pb.GetAuthorityRequest(), timeout=SOON)).version


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/grpc.health.v1.Health/Check", b"x"),
        ("/grpc.health.v1.Health/Watch", b"\x0a\x80\x80\x01" + b"x" * HEAVY_BYTES),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"x"),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", b"\x1a\x80\x80\x01" + b"x" * HEAVY_BYTES),
    ],
    ids=["broken", "large", "broken, reflection", "large, reflection"],
)
async def test_requests_to_libraries_are_checked(tmp_path: Path, path: str, message: bytes) -> None:
    """A request to a library's service that cannot be parsed, or is large, is INVALID_ARGUMENT."""
    async with serving(config_for(tmp_path)) as app, Unfinished.to(app.address) as odd:
        stream = await odd.call(path, message, lacks=0, ends=True)
        assert await asyncio.wait_for(odd.ended(stream), SOON) == [INVALID_ARGUMENT]


class SlowContext:
    """gRPC's side of a call whose message does not come: it ends the read itself when the call is aborted."""

    def __init__(self) -> None:
        self.message: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def read(self) -> bytes:
        return await self.message

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def abort_with_status(self, status: Any) -> None:
        error = grpc.aio.AbortError(status.code.name)
        self.message.set_exception(error)
        raise error


async def test_a_message_that_is_given_up_is_not_cancelled() -> None:
    """The call is aborted, which ends the read: gRPC frees what has arrived of a message only if the read ends so."""
    arrivals: Any = Arrivals(ArrivalBounds(total=2, by_peer=2, seconds=0.01))
    slow = [SlowContext() for _ in range(2)]
    reads = [asyncio.create_task(arrivals.next(context, "ipv4:192.0.2.1:1")) for context in slow]
    await asyncio.sleep(0)
    last = SlowContext()
    last.message.set_result(b"whole")
    assert await asyncio.wait_for(arrivals.next(last, "ipv4:192.0.2.1:1"), SOON) == b"whole"
    found = await asyncio.gather(*reads, return_exceptions=True)
    assert [str(error) for error in found if isinstance(error, grpc.aio.AbortError)] == ["RESOURCE_EXHAUSTED"] * 2
    assert not any(context.message.cancelled() for context in slow)


async def test_a_waiter_that_hangs_up_gives_nobody_up() -> None:
    """A slow message is left alone once nobody waits any more."""
    arrivals: Any = Arrivals(ArrivalBounds(total=2, by_peer=2, seconds=0.01))
    slow = [SlowContext() for _ in range(2)]
    reads = [asyncio.create_task(arrivals.next(context, "ipv4:192.0.2.1:1")) for context in slow]
    waiter = asyncio.create_task(arrivals.next(SlowContext(), "ipv4:192.0.2.1:1"))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.sleep(0.03)  # three times as long as a message may keep others waiting
    for context in slow:
        context.message.set_result(b"late")
    assert await asyncio.gather(*reads) == [b"late"] * 2


async def test_connections_take_turns() -> None:
    """Free places go to the connections that wait in turn, not to the one that waits with the most calls."""
    arrivals: Any = Arrivals(ArrivalBounds(total=2, by_peer=2, seconds=3600))
    held = [SlowContext() for _ in range(2)]
    tasks = [asyncio.create_task(arrivals.next(context, "ipv4:192.0.2.1:1")) for context in held]
    await asyncio.sleep(0)
    crowd = [asyncio.create_task(arrivals.next(SlowContext(), "ipv4:192.0.2.1:1")) for _ in range(10)]
    await asyncio.sleep(0)
    whole = SlowContext()
    whole.message.set_result(b"whole")
    other = asyncio.create_task(arrivals.next(whole, "ipv4:192.0.2.2:2"))
    await asyncio.sleep(0)
    for context in held:
        context.message.set_result(b"done")
    assert await asyncio.wait_for(other, SOON) == b"whole"
    for task in crowd:
        task.cancel()
    await asyncio.gather(*tasks, *crowd, return_exceptions=True)
