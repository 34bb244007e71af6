"""`server.health_listen`: health checks on an address of their own, for those who have neither TLS nor keys."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sessiond.app import App
from sessiond.rpc.health_checks import HealthChecks
from sessiond.rpc.sockets import CannotListen
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.certificates import Authority, server_files
from tests.support.server import config_for, serving, stub_for
from tests.support.sidecars import beside, until_healthy

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health_address(app: App) -> str:
    """Return the address that the log names."""
    return str(app._endpoints.described()["health"])


@pytest.mark.parametrize("service", ["", "sessiond.v1.SessionAuthority"])
async def test_health_is_checked_without_tls(tmp_path: Path, service: str) -> None:
    """A check without TLS and without a key is answered although the server's address requires client certificates."""
    authority = Authority()
    tls = server_files(authority, tmp_path, authority)
    config = config_for(tmp_path, transport="grpcio", health_listen="127.0.0.1:0", **tls)
    async with serving(config) as app, grpc.aio.insecure_channel(health_address(app)) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert (await check(health_pb2.HealthCheckRequest(service=service))).status == SERVING


async def test_nothing_else_is_served_there(tmp_path: Path) -> None:
    """Calls of the contract end in UNIMPLEMENTED on the address for health checks."""
    async with serving(config_for(tmp_path, health_listen="127.0.0.1:0")) as app, stub_for(health_address(app)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CreateSession(pb.CreateSessionRequest())
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_end_is_announced(tmp_path: Path) -> None:
    """A watcher hears NOT_SERVING before the address closes, also if an open call still has its time."""
    config = config_for(tmp_path, health_listen=f"unix:{tmp_path / 'health'}")
    app = await App.start(config)
    async with stub_for(app.address) as stub, grpc.aio.insecure_channel(health_address(app)) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        open_call = stub.StreamValidations()
        await open_call.write(pb.StreamValidationsRequest())
        stopping = asyncio.create_task(app.stop())
        assert (await watch.read()).status == NOT_SERVING
        open_call.cancel()
        await stopping


async def test_an_address_in_use(tmp_path: Path) -> None:
    """A server whose address for health checks is taken does not start, and leaves its other addresses free."""
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        config = config_for(tmp_path, health_listen=f"127.0.0.1:{taken.getsockname()[1]}", listen=f"127.0.0.1:{port}")
        with pytest.raises(CannotListen):
            await App.start(config)
    async with serving(replace(config, health_listen="")) as app:
        assert app.address == f"127.0.0.1:{port}"


async def check(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command for container engines; return its exit code and what it says."""
    command = [sys.executable, "-m", "sessiond.check_health", *arguments]
    run = await asyncio.to_thread(
        subprocess.run, command, env=os.environ | variables, capture_output=True, text=True, timeout=30, check=False
    )
    return run.returncode, run.stderr


async def test_the_command_for_container_engines(tmp_path: Path) -> None:
    """The command exits with 0 while a server serves, and with 1 and the reason if nothing answers."""
    async with serving(config_for(tmp_path, health_listen="127.0.0.1:0")) as app:
        address = health_address(app)
        assert await check(address) == (0, f"{address}: SERVING\n")
        everywhere = f"0.0.0.0:{address.rpartition(':')[2]}"
        assert await check(SESSIOND_HEALTH_LISTEN=everywhere) == (0, f"{address}: SERVING\n")
    assert await check(SESSIOND_LISTEN=address) == (1, f"no answer at {address}: UNAVAILABLE\n")


async def test_the_command_asks_a_sidecar(tmp_path: Path) -> None:
    """The command asks a sidecar at the Unix socket that its argument names."""
    async with serving(config_for(tmp_path)) as app, beside(app.address, tmp_path) as sidecar:
        await until_healthy(sidecar.address, serves=True, from_memory=True)
        assert await check(sidecar.address) == (0, f"{sidecar.address}: SERVING\n")


async def test_the_command_knows_a_server_that_ends(tmp_path: Path) -> None:
    """The command exits with 1 if the server says that it does not serve."""
    health = HealthChecks()
    await health.start(f"unix:{tmp_path / 'health'}", 0o600)
    assert await check(health.address) == (1, f"{health.address}: NOT_SERVING\n")
    await health.stop()
