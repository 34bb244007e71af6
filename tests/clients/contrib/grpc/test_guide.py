"""The example of the guide works as it is written."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest

from sessiond.app import App
from tests.clients.contrib.grpc.shop import ShopClient
from tests.test_docs import ADDRESS, DOCS, blocks_of

PORT = "127.0.0.1:50051"


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def test_the_guides_server_logs_in_keeps_a_cart_and_asks_for_a_level(app: App) -> None:
    """The server of the guide does what the page says, with nothing changed but the two addresses."""
    (block,) = blocks_of(DOCS / "how-to/grpc.md", "python")
    assert ADDRESS in block
    assert PORT in block
    address = _free_address()
    names: dict[str, object] = {"__name__": "guide"}
    exec(compile(block.replace(ADDRESS, app.address).replace(PORT, address), "grpc.md", "exec"), names)
    serving = asyncio.ensure_future(names["serve"]())  # type: ignore[operator]  # a coroutine of the page
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), 10)
            shop = ShopClient(channel)
            with pytest.raises(grpc.aio.AioRpcError, match="wrong_password"):
                await shop.call("Shop/Login", b"alice:coffee")
            with pytest.raises(grpc.aio.AioRpcError, match="login_required"):
                await shop.call("Shop/AddToCart", b"cup")
            assert await shop.call("Shop/Login", b"alice:teapot") == b"welcome"
            assert await shop.call("Shop/AddToCart", b"cup") == b"added"
            with pytest.raises(grpc.aio.AioRpcError, match="step_up_required"):
                await shop.call("Shop/Pay")
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
