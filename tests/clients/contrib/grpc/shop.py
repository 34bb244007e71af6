"""A gRPC server with sessions, of either kind, and a client that keeps its token as the documentation says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc

from sessiond_client.contrib.grpc import (
    TOKEN_METADATA,
    AsyncSessionInterceptor,
    RouteRequirements,
    SessionInterceptor,
    current_call,
    requires,
)

__all__ = ["KINDS", "ShopClient", "serving_shop"]

KINDS = ("asyncio", "threads")
_OPTIONS: dict[str, Any] = {
    "public_methods": ["/shop.v1.Public/", "/shop.v1.Shop/Login"],
    "requirements": {"/shop.v1.Shop/Audit": RouteRequirements(level=3)},
}


class AsyncShop:
    """The handlers of a server on asyncio."""

    async def login(self, request: bytes, context: Any) -> bytes:
        subject, _, level = request.decode().partition(":")
        await current_call().login_async(subject, level=int(level or 1))
        return b"welcome"

    async def logout(self, request: bytes, context: Any) -> bytes:
        await current_call().logout_async()
        return b"bye"

    async def whoami(self, request: bytes, context: Any) -> bytes:
        return current_call().subject.encode()

    async def add(self, request: bytes, context: Any) -> bytes:
        values = current_call().values
        values.setdefault("cart", []).append(request.decode())
        return ",".join(values["cart"]).encode()

    @requires(level=2)
    async def pay(self, request: bytes, context: Any) -> bytes:
        return b"paid"

    async def watch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield current_call().subject.encode()
        await asyncio.Event().wait()

    async def upload(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([part async for part in requests])


class ThreadedShop:
    """The handlers of a server with threads."""

    def login(self, request: bytes, context: Any) -> bytes:
        subject, _, level = request.decode().partition(":")
        current_call().login(subject, level=int(level or 1))
        return b"welcome"

    def logout(self, request: bytes, context: Any) -> bytes:
        current_call().logout()
        return b"bye"

    def whoami(self, request: bytes, context: Any) -> bytes:
        return current_call().subject.encode()

    def add(self, request: bytes, context: Any) -> bytes:
        values = current_call().values
        values.setdefault("cart", []).append(request.decode())
        return ",".join(values["cart"]).encode()

    @requires(level=2)
    def pay(self, request: bytes, context: Any) -> bytes:
        return b"paid"

    def watch(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield current_call().subject.encode()
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(30)

    def upload(self, requests: Iterator[bytes], context: Any) -> bytes:
        return b"".join(requests)


def _handlers(shop: Any) -> list[Any]:
    unary, out, into = (
        grpc.unary_unary_rpc_method_handler,
        grpc.unary_stream_rpc_method_handler,
        grpc.stream_unary_rpc_method_handler,
    )
    methods: dict[str, Any] = {
        "Login": unary(shop.login),
        "Logout": unary(shop.logout),
        "WhoAmI": unary(shop.whoami),
        "Add": unary(shop.add),
        "Pay": unary(shop.pay),
        "Audit": unary(shop.whoami),
        "Watch": out(shop.watch),
        "Upload": into(shop.upload),
    }
    return [
        grpc.method_handlers_generic_handler("shop.v1.Shop", methods),
        grpc.method_handlers_generic_handler("shop.v1.Public", {"WhoAmI": unary(shop.whoami), "Add": unary(shop.add)}),
    ]


@asynccontextmanager
async def serving_shop(kind: str, target: str, **options: Any) -> AsyncIterator[str]:
    """Run a server of this kind; its address."""
    options = {**_OPTIONS, **options}
    if kind == "asyncio":
        interceptor = AsyncSessionInterceptor(target, **options)
        server = grpc.aio.server(interceptors=[interceptor])
        server.add_generic_rpc_handlers(_handlers(AsyncShop()))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)
            await interceptor.close()
    else:
        threaded = SessionInterceptor(target, **options)
        with ThreadPoolExecutor(8) as pool:
            sync_server = grpc.server(pool, interceptors=[threaded])
            sync_server.add_generic_rpc_handlers(_handlers(ThreadedShop()))
            port = sync_server.add_insecure_port("127.0.0.1:0")
            sync_server.start()
            try:
                yield f"127.0.0.1:{port}"
            finally:
                await asyncio.to_thread(sync_server.stop(0).wait)
                await asyncio.to_thread(threaded.close)


class ShopClient:
    """A client that replaces its token by the one in the trailing metadata."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.token = ""

    def metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token}")] if self.token else []

    async def call(self, method: str, request: bytes = b"", metadata: Any = None) -> bytes:
        """One call. `method` is `Shop/Method`."""
        call = self._channel.unary_unary(f"/shop.v1.{method}")(
            request, metadata=self.metadata() if metadata is None else metadata
        )
        response: bytes = await call
        for key, value in await call.trailing_metadata():
            if key == TOKEN_METADATA:
                self.token = str(value)
        return response

    def watch(self) -> Any:
        """An open stream."""
        return self._channel.unary_stream("/shop.v1.Shop/Watch")(b"", metadata=self.metadata())

    async def upload(self, parts: AsyncIterator[bytes]) -> bytes:
        """A stream of requests."""
        response: bytes = await self._channel.stream_unary("/shop.v1.Shop/Upload")(parts, metadata=self.metadata())
        return response
