"""Both transports: what a caller sees is the same, whichever of them carries the call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from sessiond.config.sections import TRANSPORTS
from sessiond.domain import errors
from sessiond.rpc.health import SERVICE
from sessiond.store.contract import StoreFailed
from sessiond.system import ongoing
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub
from tests.rpc.refusals import first_of, refusal_of
from tests.rpc.transports import METHOD, Held, Raising, channel_to, running
from tests.support.server import config_for, serving, stub_for

MOST = 4 * 1024 * 1024
SOON = 20.0
"""Seconds after which a test that waits has failed."""
both = pytest.mark.parametrize("transport", TRANSPORTS)


async def status_on(transport: str, error: Exception, *, streams: bool) -> tuple[Any, ...]:
    """Return code, text and details of the status that a caller sees if the service raises an exception."""
    async with running(Raising(error), transport) as (_, address), stub_for(address) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (first_of(stub, pb.SubscribeRequest()) if streams else stub.GetAuthority(pb.GetAuthorityRequest()))
    status = rpc_status.from_call(raised.value)
    return raised.value.code(), raised.value.details(), status and status.SerializeToString(deterministic=True)


@pytest.mark.parametrize("streams", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidField("requests[3].token", 'must be "100 %" printable,\nand not ü€😀'),
        errors.Overloaded("too many of them"),
        errors.VersionMismatch(3, 4),
        errors.SessionNotFound(),
        StoreFailed("the disk is full"),
        RuntimeError("the inner secret"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_status_is_the_same(error: Exception, streams: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code, text and details of a refusal are the same bytes on both transports, for calls and for streams."""
    monkeypatch.setattr(ongoing, "new_call_id", lambda: "7")
    one, other = [await status_on(transport, error, streams=streams) for transport in TRANSPORTS]
    assert one == other
    assert one[0] is not grpc.StatusCode.UNKNOWN
    assert one[2] is not None


# Limits


def begun(stub: Any) -> asyncio.Future[pb.GetAuthorityResponse]:
    """Begin a call."""
    call: asyncio.Future[pb.GetAuthorityResponse] = asyncio.ensure_future(
        stub.GetAuthority(pb.GetAuthorityRequest(), timeout=SOON)
    )
    return call


@both
async def test_a_message_is_limited(transport: str) -> None:
    """A message of 4 MiB is read; one more byte is RESOURCE_EXHAUSTED, and the server lives on."""
    async with running(Held(), transport) as (_, address), channel_to(address) as channel:
        call: Any = channel.unary_unary(METHOD)
        refused = await refusal_of(call(b"\xff" * MOST, timeout=SOON))
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])
        assert (await refusal_of(call(b"\xff" * (MOST + 1), timeout=SOON))).code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await refusal_of(call(b"\xff", timeout=SOON))).code == grpc.StatusCode.INVALID_ARGUMENT


@both
async def test_metadata_is_limited(transport: str) -> None:
    """A call with 7 KB of metadata is served; with 20 KB it is refused, and the connection lives on."""
    service = Held()
    service.go.set()
    async with running(service, transport) as (_, address), channel_to(address) as channel:
        call: Any = channel.unary_unary(METHOD)
        for _ in range(3):
            assert await call(b"", metadata=[("x", "y" * 7_000)], timeout=SOON)
            refused = await refusal_of(call(b"", metadata=[("x", "y" * 20_000)], timeout=SOON))
            assert refused.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN)


@both
async def test_calls_at_once_are_limited(transport: str) -> None:
    """Calls beyond `max_calls` are RESOURCE_EXHAUSTED, and those beyond half of it on one connection wait."""
    service = Held()
    async with running(service, transport, max_calls=10) as (_, address):
        channels = [channel_to(address) for _ in range(3)]
        stubs = [SessionAuthorityStub(channel) for channel in channels]
        service.go.set()
        for stub in stubs:
            await begun(stub)  # from here on the client knows the limit of its connection
        service.go.clear()
        calls, waiting = [], []
        for served, stub in ((5, stubs[0]), (10, stubs[1])):
            calls += [begun(stub) for _ in range(5)]
            await service.opened(served)
            waiting.append(begun(stub))
        assert (await refusal_of(begun(stubs[2]))).code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not any(call.done() for call in (*calls, *waiting))
        for call in waiting:
            call.cancel()
        service.go.set()
        assert len(await asyncio.gather(*calls)) == 10
        assert (await begun(stubs[2])).version
        for channel in channels:
            await channel.close()


# Life


@both
async def test_a_caller_that_hangs_up_ends_its_call(transport: str) -> None:
    """If a caller cancels, or its deadline passes, the handler is cancelled, and its place is free."""
    service = Held()
    async with running(service, transport, max_calls=2) as (_, address), stub_for(address) as stub:
        for number in range(1, 6):
            call = stub.GetAuthority(pb.GetAuthorityRequest(), timeout=SOON if number % 2 else 0.1)
            await service.opened(1)
            if number % 2:
                call.cancel()
            await service.opened(0)
            assert service.cancelled == number


@both
async def test_open_calls_finish_when_the_server_stops(transport: str) -> None:
    """Calls that are open when the server stops get their whole responses if they end within the grace."""
    service = Held(1_000_000)
    for _ in range(5):
        service.go.clear()
        async with running(service, transport) as (server, address), stub_for(address) as stub:
            calls = [begun(stub) for _ in range(20)]
            await service.opened(20)
            stop = asyncio.create_task(server.stop(SOON))
            await asyncio.sleep(0)
            service.go.set()
            await stop
            assert len(await asyncio.gather(*calls)) == 20


@both
async def test_what_does_not_finish_is_ended(transport: str) -> None:
    """A call that is still open after the grace is ended, and the server stops; so are streams."""
    service = Held()
    async with running(service, transport) as (server, address), stub_for(address) as stub:
        call = begun(stub)
        await service.opened(1)
        await asyncio.wait_for(server.stop(0.2), SOON / 2)
        assert (await refusal_of(call)).code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert (service.open, service.cancelled) == (0, 1)


@both
async def test_a_stopped_server_leaves_the_address(tmp_path: Path, transport: str) -> None:
    """A stopped server's port can be used again at once, and so can its socket."""
    for listen in ("127.0.0.1:0", f"unix:{tmp_path}/s"):
        address = listen
        for _ in range(3):
            service = Held()
            service.go.set()
            async with running(service, transport, address) as (_, address), stub_for(address) as stub:
                assert (await stub.GetAuthority(pb.GetAuthorityRequest(), timeout=SOON)).version


async def names_of(stub: Any, requests: Sequence[pb.CreateSessionRequest]) -> list[str]:
    """Open sessions at the same time; return their subjects in this order."""
    return [one.session.subject for one in await asyncio.gather(*map(stub.CreateSession, requests))]


@both
async def test_responses_reach_their_callers(tmp_path: Path, transport: str) -> None:
    """Of many calls at once, on several connections, each gets its own response."""
    async with serving(config_for(tmp_path, transport=transport)) as app:
        subjects = [[f"user-{connection}-{number}" for number in range(200)] for connection in range(3)]
        channels = [channel_to(app.address) for _ in subjects]
        found = await asyncio.gather(
            *(
                names_of(SessionAuthorityStub(channel), [pb.CreateSessionRequest(subject=name) for name in names])
                for channel, names in zip(channels, subjects, strict=True)
            )
        )
        assert found == subjects
        for channel in channels:
            await channel.close()


@both
async def test_unknown_paths(transport: str) -> None:
    """A path outside of the contract is UNIMPLEMENTED, and so is a call that the service does not have."""
    async with running(Held(), transport) as (_, address), channel_to(address) as channel:
        for path in (f"/{SERVICE}/Nothing", "/other.Service/Call", f"/{SERVICE}/CreateSession"):
            call: Any = channel.unary_unary(path)
            assert (await refusal_of(call(b"", timeout=SOON))).code == grpc.StatusCode.UNIMPLEMENTED
