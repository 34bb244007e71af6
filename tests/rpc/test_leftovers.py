"""Metadata that grpcio leaves behind is freed by its size, not after a number of calls."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from sessiond.rpc.leftovers import Leftovers
from sessiond.rpc.listening import server_options

CALLS, SIZE, MOST = 40, 10_000, 100_000


@pytest.fixture(autouse=True)
def rare_collections() -> Iterator[None]:
    """The collector does not run by itself meanwhile, as in a server that has not made many objects."""
    before = gc.get_threshold()
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.set_threshold(*before)


def left_behind() -> int:
    """Return the bytes of metadata that calls have left behind."""
    found: list[Any] = [one for one in gc.get_objects() if type(one).__name__ == "_HandlerCallDetails"]
    return sum(len(value) for one in found for _, value in one.invocation_metadata)


@pytest.mark.parametrize(("most", "few"), [(MOST, True), (1_000_000_000, False)])
async def test_metadata_is_freed(most: int, few: bool) -> None:
    """Not much more than the limit stays, after calls that have four times as much; with a huge limit all of it does.
    The second case is the control: without the protection each call leaves all of its metadata behind.
    """

    async def echo(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return request

    server = grpc.aio.server(options=server_options(100))
    handlers: Any = {"Say": grpc.unary_unary_rpc_method_handler(echo)}
    own = grpc.method_handlers_generic_handler("test.Echo", handlers)
    server.add_generic_rpc_handlers([Leftovers(most), own])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            say: Any = channel.unary_unary("/test.Echo/Say")
            # Less than what gRPC refuses by itself, so that each call is served.
            for _ in range(CALLS):
                await say(b"hello", metadata=[("x-filler", "x" * (SIZE - 2_500))])
            await asyncio.sleep(0)
            left = left_behind()
    finally:
        await server.stop(None)
    assert (left < MOST + SIZE) is few
    assert few or left >= CALLS * (SIZE - 2_500)


class _Details:
    """A call's details, in a reference cycle as grpcio leaves them behind."""

    def __init__(self, size: int) -> None:
        self.invocation_metadata = [("x-filler", "x" * size)]
        self.itself = self


@pytest.mark.parametrize(("size", "after", "freed"), [(20_000, 0.0, True), (8_000, 0.0, False), (20_000, 60.0, False)])
async def test_what_an_earlier_collection_has_met_is_freed_too(size: int, after: float, freed: bool) -> None:
    """Metadata that gRPC refuses is freed soon, even if its call was alive during a collection.
    What honest callers send waits for the collector. The last case is the control: with one collection it stays.
    """
    leftovers = Leftovers(most_bytes=1, all_after=after)
    details: Any = _Details(size)
    gone = weakref.ref(details)
    leftovers.service(details)
    gc.collect(1)  # moves it out of the youngest generation
    del details
    await asyncio.sleep(0.01)
    assert (gone() is None) is freed
    gc.collect()
