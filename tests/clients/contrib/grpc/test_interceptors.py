"""Sessions in gRPC servers of both kinds, against a real authority."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.contrib.grpc import AsyncSessionInterceptor, SessionInterceptor
from tests.clients.contrib.grpc.shop import KINDS, ShopClient, serving_shop
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving


@pytest.fixture(params=KINDS)
async def address(request: pytest.FixtureRequest, app: App) -> AsyncIterator[str]:
    """The address of a shop of each kind in turn."""
    async with serving_shop(request.param, app.address) as address:
        yield address


@pytest.fixture
async def shop(address: str) -> AsyncIterator[ShopClient]:
    """A client of the shop."""
    async with grpc.aio.insecure_channel(address) as channel:
        yield ShopClient(channel)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status and message that a call ended with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_user_logs_in_is_known_and_logs_out(shop: ShopClient) -> None:
    """A login returns a token in the trailing metadata, and a logout makes it worthless."""
    assert await refused(shop.call("Shop/WhoAmI")) == (grpc.StatusCode.UNAUTHENTICATED, "login_required")
    assert await shop.call("Shop/Login", b"alice") == b"welcome"
    assert await shop.call("Shop/WhoAmI") == b"alice"
    assert await shop.call("Shop/Logout") == b"bye"
    assert await refused(shop.call("Shop/WhoAmI")) == (grpc.StatusCode.UNAUTHENTICATED, "login_required")


async def test_public_methods_serve_guests(shop: ShopClient) -> None:
    """A public method runs without a token, as a guest's, and as the user's with one."""
    assert await shop.call("Public/WhoAmI") == b""
    await shop.call("Shop/Login", b"alice")
    assert await shop.call("Public/WhoAmI") == b"alice"


async def test_data_is_kept_in_the_session(shop: ShopClient) -> None:
    """What a handler stores is there at the next call; a guest who stores something gets a session."""
    assert await shop.call("Public/Add", b"tea") == b"tea"
    assert await shop.call("Shop/Login", b"alice") == b"welcome"
    assert await shop.call("Shop/Add", b"cup") == b"tea,cup"


async def test_a_login_makes_the_guests_token_worthless(shop: ShopClient) -> None:
    """A token that was planted before the login does not become the user's."""
    await shop.call("Public/Add", b"tea")
    planted = shop.token
    await shop.call("Shop/Login", b"alice")
    assert shop.token != planted
    shop.token = planted
    assert await refused(shop.call("Shop/WhoAmI")) == (grpc.StatusCode.UNAUTHENTICATED, "login_required")


async def test_a_method_may_need_a_level(shop: ShopClient) -> None:
    """`requires` and `requirements` ask for a level, and the same call works after a step-up."""
    await shop.call("Shop/Login", b"alice")
    assert await refused(shop.call("Shop/Pay")) == (grpc.StatusCode.UNAUTHENTICATED, "step_up_required")
    await shop.call("Shop/Login", b"alice:2")
    assert await shop.call("Shop/Pay") == b"paid"
    assert await refused(shop.call("Shop/Audit")) == (grpc.StatusCode.UNAUTHENTICATED, "step_up_required")
    await shop.call("Shop/Login", b"alice:3")
    assert await shop.call("Shop/Audit") == b"alice"


async def test_a_stream_ends_when_its_session_ends(shop: ShopClient, address: str, app: App) -> None:
    """An open stream of a revoked session ends at once, and one of another session goes on."""
    await shop.call("Shop/Login", b"alice")
    stream = shop.watch()
    assert await stream.read() == b"alice"
    async with grpc.aio.insecure_channel(address) as channel, AsyncClient(app.address) as authority:
        bob = ShopClient(channel)
        await bob.call("Shop/Login", b"bob")
        other = bob.watch()
        assert await other.read() == b"bob"
        await authority.revoke_all(subject="alice")
        code, _ = await asyncio.wait_for(refused(stream.read()), 10)
        assert code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED)
        assert not other.done()
        other.cancel()


async def test_a_stream_of_requests_ends_too(shop: ShopClient, app: App) -> None:
    """A client that keeps sending is stopped when its session ends."""
    await shop.call("Shop/Login", b"alice")
    began = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        began.set()
        await asyncio.Event().wait()

    upload = asyncio.ensure_future(shop.upload(parts()))
    await began.wait()
    async with AsyncClient(app.address) as authority:
        await asyncio.sleep(0.3)  # the handler waits for the second part by now
        await authority.revoke_all(subject="alice")
    code, _ = await asyncio.wait_for(refused(upload), 10)
    assert code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.CANCELLED)


async def test_a_cookie_needs_its_csrf_token(shop: ShopClient, app: App) -> None:
    """A browser adds a cookie by itself, so a call with one also needs the session's CSRF token."""
    async with AsyncClient(app.address) as authority:
        created = await authority.create(subject="alice")
        cookie = ("cookie", f"__Host-id={created.token.reveal()}")
        csrf = ("x-csrf-token", created.csrf_token.reveal())
        failed = (grpc.StatusCode.PERMISSION_DENIED, "csrf_failed")
        assert await refused(shop.call("Shop/WhoAmI", metadata=[cookie])) == failed
        assert await shop.call("Shop/WhoAmI", metadata=[cookie, csrf]) == b"alice"
        evil = ("origin", "https://evil.example")
        assert await refused(shop.call("Shop/WhoAmI", metadata=[cookie, csrf, evil])) == failed


async def test_two_tokens_are_no_token(shop: ShopClient, app: App) -> None:
    """A call with two bearer tokens is a guest's: nobody can tell which one is meant."""
    async with AsyncClient(app.address) as authority:
        tokens = [(await authority.create(subject=name)).token.reveal() for name in ("alice", "mallory")]
    both = [("authorization", f"Bearer {token}") for token in tokens]
    assert await refused(shop.call("Shop/WhoAmI", metadata=both)) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "login_required",
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_renewed_token_comes_back(kind: str, tmp_path: Path, clock: ManualClock) -> None:
    """When the token is due for renewal, the new one is in the trailing metadata of the same call."""
    async with (
        serving(config_for(tmp_path), clock) as app,
        serving_shop(kind, app.address) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        shop = ShopClient(channel)
        await shop.call("Shop/Login", b"alice")
        first = shop.token
        for _ in range(4):
            clock.advance(20 * 60_000)
            await shop.call("Shop/WhoAmI")
        assert shop.token != first
        assert await shop.call("Shop/WhoAmI") == b"alice"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_outage_is_unavailable(kind: str) -> None:
    """While the authority is out of reach, calls with a token are UNAVAILABLE, and those of guests are served."""
    async with (
        serving_shop(kind, "127.0.0.1:1", timeout=0.5) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        shop = ShopClient(channel)
        assert await shop.call("Public/WhoAmI") == b""
        shop.token = "x" * 70
        assert await refused(shop.call("Shop/WhoAmI")) == (grpc.StatusCode.UNAVAILABLE, "unavailable")


async def test_no_token_is_logged(shop: ShopClient, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a refused nor a served call leaves a token in a log."""
    with caplog.at_level(logging.DEBUG):
        await shop.call("Shop/Login", b"alice")
        await refused(shop.call("Shop/Pay"))
        await shop.call("Shop/WhoAmI")
    assert shop.token
    assert shop.token not in caplog.text


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_generated_servicers_are_behind_the_interceptor(asynchronous: bool, app: App) -> None:
    """A servicer that was registered by generated code needs a user like any other, unless it is public."""
    for public, expected in ((["/grpc.health.v1.Health/"], None), ([], grpc.StatusCode.UNAUTHENTICATED)):
        interceptor: Any = (AsyncSessionInterceptor if asynchronous else SessionInterceptor)(
            app.address, public_methods=public
        )
        with ThreadPoolExecutor(2) as pool:
            server: Any = (
                grpc.aio.server(interceptors=[interceptor])
                if asynchronous
                else grpc.server(pool, interceptors=[interceptor])
            )
            servicer: Any = health_aio.HealthServicer() if asynchronous else health.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
            port = server.add_insecure_port("127.0.0.1:0")
            started = server.start()
            if asynchronous:
                await started
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                check = stub.Check(health_pb2.HealthCheckRequest())
                if expected is None:
                    assert (await check).status == health_pb2.HealthCheckResponse.SERVING
                else:
                    assert (await refused(check))[0] is expected
            if asynchronous:
                await server.stop(0)
                await interceptor.close()
            else:
                await asyncio.to_thread(server.stop(0).wait)
                interceptor.close()


@pytest.mark.parametrize("interceptor", [SessionInterceptor, AsyncSessionInterceptor])
def test_wrong_settings_are_named(interceptor: Any) -> None:
    """A setting that does not exist, or a method without its slash, is an error that names it."""
    with pytest.raises(TypeError, match="unknown option 'near_cash'; did you mean 'near_cache'"):
        interceptor("127.0.0.1:1", near_cash=True)
    with pytest.raises(ValueError, match="write /package"):
        interceptor("127.0.0.1:1", public_methods=["shop.v1.Shop/Login"])
