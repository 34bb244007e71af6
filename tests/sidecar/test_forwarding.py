"""What a sidecar does not answer itself passes through it unchanged, in both directions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from sessiond.app import App
from sessiond.domain.call import FORWARDED_KEY
from sessiond.sidecar import forwarding
from sessiond.sidecar_app import Sidecar
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.sidecar.scripted import SERVICE, outcome_of, raw_channel, scripted
from tests.support.server import stub_for
from tests.support.sidecars import PATIENCE, beside, until

METHODS = pb.DESCRIPTOR.services_by_name["SessionAuthority"].methods
UNARY = [method.name for method in METHODS if not method.client_streaming and not method.server_streaming]
ODD = b"\x00\xff no message of any kind \x80"
REPLY = b"\xfe\x00 neither is this"
DETAILS = (("grpc-status-details-bin", b"\x08\x09\x12\x03odd"), ("retry-bin", b"\x00"), ("hint", "soon"))


async def replies(context: Any) -> None:
    """Reply to one message, with metadata on both sides."""
    raw = await context.read()
    await context.send_initial_metadata((("served-by", "a"), ("served-bin", b"\x00\x01")))
    context.set_trailing_metadata((("cost", "1"), ("cost-bin", b"\xff")))
    await context.write(REPLY + raw)


async def refuses(context: Any) -> None:
    """Refuse a call, with details."""
    await context.read()
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not ready: é", DETAILS)


@pytest.mark.parametrize("serve", [replies, refuses])
@pytest.mark.parametrize("name", [*UNARY, "AnRpcOfTomorrow", "Subscribe", "Follow"])
async def test_byte_for_byte(tmp_path: Path, name: str, serve: Any) -> None:
    """A call has the same outcome through a sidecar: status, text, bytes, and metadata before and after them."""
    async with scripted(serve) as authority, beside(authority.address, tmp_path) as sidecar:
        through = await outcome_of(sidecar.address, SERVICE + name, ODD)
        assert through == await outcome_of(authority.address, SERVICE + name, ODD)
        assert through[0] in (grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION)


@pytest.mark.parametrize("name", UNARY)
async def test_byte_for_byte_from_the_authority(sidecar: Sidecar, app: App, name: str) -> None:
    """What the authority itself answers to an empty request, mostly an error with details, arrives unchanged."""
    if name in ("CreateSession", "GetAuthority", "AddSealingKey"):
        pytest.skip("its answer differs from call to call")
    identity = [("x-request-id", "checkout-1")]  # else each error has another one
    direct = await outcome_of(app.address, SERVICE + name, b"", identity)
    assert await outcome_of(sidecar.address, SERVICE + name, b"", identity) == direct


async def test_another_service_is_forwarded(tmp_path: Path) -> None:
    """A call of any other service of the authority is forwarded too, but for health checks."""
    async with scripted(replies) as authority, beside(authority.address, tmp_path) as sidecar:
        assert (await outcome_of(sidecar.address, "/some.Service/Call", ODD))[2] == [REPLY + ODD]


async def test_reflection_is_the_authority_s(sidecar: Sidecar, app: App) -> None:
    """What the authority serves can be asked through the sidecar."""
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    through = await outcome_of(sidecar.address, method, request)
    assert through == await outcome_of(app.address, method, request)
    assert b"sessiond.v1.SessionAuthority" in through[2][0]


async def test_metadata_goes_upstream(tmp_path: Path) -> None:
    """The authority gets the caller's metadata, binary values and call id included, and the mark of forwarded calls."""
    sent = [("authorization", "Bearer abc"), ("trace-id-bin", b"\x00\xff"), ("traceparent", "00-1")]
    sent.append(("x-request-id", "checkout-1"))
    expected = sorted([*sent, (FORWARDED_KEY, "sidecar")])
    async with scripted(replies) as authority, beside(authority.address, tmp_path) as sidecar:
        for name in ("GetSession", "ValidateSession", "Subscribe"):
            await outcome_of(sidecar.address, SERVICE + name, ODD, sent)
            # The sidecar itself makes calls too.
            got = next(metadata for method, metadata in reversed(authority.calls) if method == SERVICE + name)
            assert sorted(item for item in got if item[0] != "user-agent") == expected  # gRPC keeps no order


async def test_a_stream_in_both_directions(tmp_path: Path) -> None:
    """Messages pass in both directions while the call is open, and the end of either side is passed on."""

    async def echo(context: Any) -> None:
        while (raw := await context.read()) is not grpc.aio.EOF:
            await context.write(raw)
        await context.write(b"the end")

    async with (
        scripted(echo) as authority,
        beside(authority.address, tmp_path) as sidecar,
        raw_channel(sidecar.address) as channel,
        asyncio.timeout(PATIENCE),
    ):
        for name in ("StreamValidations", "AStreamOfTomorrow"):
            call: Any = channel.stream_stream(SERVICE + name)()
            for message in (b"1", b"", b"x" * 1_000_000):
                await call.write(message)
                assert await call.read() == message
            await call.done_writing()
            assert [await call.read(), await call.read()] == [b"the end", grpc.aio.EOF]
            assert await call.code() is grpc.StatusCode.OK


async def test_a_server_that_speaks_first(tmp_path: Path) -> None:
    """A stream on which the authority writes first, before the caller has sent anything, is passed on."""

    async def greets(context: Any) -> None:
        await context.write(b"hello")
        assert await context.read() == b"thanks"

    async with (
        scripted(greets) as authority,
        beside(authority.address, tmp_path) as sidecar,
        raw_channel(sidecar.address) as channel,
        asyncio.timeout(PATIENCE),
    ):
        call: Any = channel.stream_stream(SERVICE + "AStreamOfTomorrow")()
        assert await call.read() == b"hello"
        await call.write(b"thanks")
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def waits(context: Any) -> None:
    """Write one message, and then wait for ever."""
    await context.write(b"first")
    await asyncio.Event().wait()


@pytest.mark.parametrize("name", ["Subscribe", "AnRpcOfTomorrow", "GetSession"])
async def test_a_caller_that_hangs_up(tmp_path: Path, name: str) -> None:
    """If a caller cancels its call, the call to the authority is cancelled."""
    async with (
        scripted(waits) as authority,
        beside(authority.address, tmp_path) as sidecar,
        raw_channel(sidecar.address) as channel,
        asyncio.timeout(PATIENCE),
    ):
        call: Any = channel.unary_stream(SERVICE + name)(b"")
        if name != "GetSession":
            assert await call.read() == b"first"
        else:
            await until(lambda: SERVICE + name in [method for method, _ in authority.calls])
        call.cancel()
        authority.hung_up.clear()
        await authority.hung_up.wait()


async def test_a_deadline_goes_upstream(tmp_path: Path) -> None:
    """The authority gets what is left of the caller's deadline."""
    left: list[float] = []

    async def notes(context: Any) -> None:
        if (remaining := context.time_remaining()) is not None:  # the sidecar's own stream has none
            left.append(remaining)
        await context.write(b"")

    async with (
        scripted(notes) as authority,
        beside(authority.address, tmp_path) as sidecar,
        raw_channel(sidecar.address) as channel,
    ):
        for name in ("GetSession", "Subscribe"):
            async for _ in channel.unary_stream(SERVICE + name)(b"", timeout=20):
                pass
            assert 0 < left.pop() < 25  # gRPC rounds it up


async def test_an_authority_that_cancels(tmp_path: Path) -> None:
    """A call that the authority ends as CANCELLED is CANCELLED for its caller, a stream too."""

    async def cancels(context: Any) -> None:
        await context.abort(grpc.StatusCode.CANCELLED, "shutting down")

    async with scripted(cancels) as authority, beside(authority.address, tmp_path) as sidecar:
        for name in ("GetSession", "Subscribe"):
            outcome = await outcome_of(sidecar.address, SERVICE + name, b"")
            assert outcome[:2] == (grpc.StatusCode.CANCELLED, "shutting down")


async def test_too_many_streams(tmp_path: Path) -> None:
    """Streams beyond the limit are refused with a text that names it, and those that are open go on."""
    async with (
        scripted(waits) as authority,
        beside(authority.address, tmp_path, max_streams=4) as sidecar,
        raw_channel(sidecar.address) as channel,
        asyncio.timeout(PATIENCE),
    ):
        opened: list[Any] = [channel.unary_stream(SERVICE + "Subscribe")(b"") for _ in range(2)]
        assert [await call.read() for call in opened] == [b"first"] * 2
        code, text, *_ = await outcome_of(sidecar.address, SERVICE + "Subscribe", b"")
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "raise --max-streams" in text
        assert not any(call.done() for call in opened)


async def test_the_stop_ends_streams_so_that_they_can_be_resumed(tmp_path: Path, app: App) -> None:
    """A sidecar that stops ends its streams at once with UNAVAILABLE, and the caller resumes elsewhere."""
    async with asyncio.timeout(PATIENCE):
        async with beside(app.address, tmp_path) as sidecar, stub_for(sidecar.address) as stub:
            stream = stub.Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST))
            first = await stream.read()
            assert isinstance(first, pb.SubscribeResponse)
            await sidecar.stop()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await to_the_end(stream)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "resume" in (ended.value.details() or "")
            sidecar.stop = _nothing  # type: ignore[method-assign]  # it is stopped
        async with stub_for(app.address) as stub:
            await stub.CreateSession(pb.CreateSessionRequest())
            again = stub.Subscribe(pb.SubscribeRequest(cursor=first.cursor))
            async for item in again:
                if item.HasField("event"):
                    break
            assert item.event.type == pb.EVENT_TYPE_SESSION_CREATED


async def to_the_end(stream: Any) -> None:
    """Read a stream until it ends."""
    while await stream.read() is not grpc.aio.EOF:
        pass


async def _nothing() -> None:
    pass


async def test_large_messages_on_their_way_are_limited(tmp_path: Path) -> None:
    """If the authority hangs, large messages that wait for it take at most 64 MB for one caller; others are refused."""

    async def hangs(context: Any) -> None:
        await context.read()
        await asyncio.Event().wait()

    large = b"x" * 4_000_000
    async with (
        scripted(hangs) as authority,
        beside(authority.address, tmp_path) as sidecar,
        raw_channel(sidecar.address) as channel,
        asyncio.timeout(PATIENCE),
    ):
        path = SERVICE + "GetSession"
        calls = [channel.unary_unary(path)(large) for _ in range(16)]
        await until(lambda: [method for method, _ in authority.calls].count(path) == 16)
        code, text, *_ = await outcome_of(sidecar.address, path, large)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "large messages" in text
        calls.append(channel.unary_unary(path)(b"small"))
        await until(lambda: [method for method, _ in authority.calls].count(path) == 17)
        for call in calls:
            call.cancel()


def test_a_write_that_came_too_late() -> None:
    """If the authority ends a stream while a message is sent to it, gRPC loses the status; the caller may retry."""
    lost = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "Internal error from Core"
    )
    assert forwarding._status_of(lost).code is grpc.StatusCode.UNAVAILABLE
    own = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "internal error")
    assert forwarding._status_of(own).code is grpc.StatusCode.INTERNAL
