"""Health checks and reflection, which callers without credentials may use, cannot take the places of calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import config_for, serving, stub_for

MOST, MOST_ON_ONE = 200, 100
SOON = 10.0


async def watch(channel: grpc.aio.Channel, name: str = "") -> Any:
    """Watch the health of a service, and return the call after its first answer."""
    call: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
    assert (await asyncio.wait_for(anext(aiter(call)), SOON)).status
    return call


async def status_of_watching(channel: grpc.aio.Channel) -> grpc.StatusCode:
    """Return whether one more stream is open, or why it is not."""
    try:
        (await watch(channel)).cancel()
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """The address of an authority."""
    async with serving(config_for(tmp_path)) as app:
        yield app.address


async def channels(stack: AsyncExitStack, address: str, count: int) -> list[grpc.aio.Channel]:
    """Return channels that share no connection."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return [await stack.enter_async_context(grpc.aio.insecure_channel(address, options)) for _ in range(count)]


async def test_streams_of_health_are_limited(address: str) -> None:
    """At most 200 streams of health checks are open, 100 of them on one connection; calls go on, and places come back.
    Without the limit, 3,000 of these streams would take all places that there are for calls.
    """
    async with AsyncExitStack() as stack, stub_for(address) as stub:
        first, second, third = await channels(stack, address, 3)
        open_streams = [await watch(first) for _ in range(MOST_ON_ONE)]
        with pytest.raises(grpc.aio.AioRpcError, match="close some") as refused:
            await watch(first)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        open_streams += [await watch(second) for _ in range(MOST - MOST_ON_ONE)]
        with pytest.raises(grpc.aio.AioRpcError, match="200 streams of this service"):
            await watch(third)
        assert (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), timeout=SOON)).token
        for call in open_streams:
            call.cancel()
        for _ in range(1_000):
            if (status := await status_of_watching(third)) is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                break
            await asyncio.sleep(0.01)
        assert status is grpc.StatusCode.OK
