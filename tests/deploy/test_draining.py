"""How servers and sidecars stop while they are used, and when health checks say that they are ready."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc.aio
import pytest

from sessiond_client import AsyncClient, SessiondError, Verdict
from tests.support.following import FollowStream
from tests.support.server import ServerProcess, stub_for
from tests.support.sidecars import SidecarProcess, health_of, until

SERVICE = "sessiond.v1.SessionAuthority"
NAMES = ("", SERVICE, "live")


@asynccontextmanager
async def started(server: ServerProcess) -> AsyncIterator[str]:
    """The address of a server that is killed at the end, if it still runs."""
    try:
        yield await server.address()
    finally:
        server.kill()


async def health(address: str) -> list[str]:
    """What health checks say for each name."""
    return [await health_of(address, name) for name in NAMES]


@pytest.mark.parametrize("kind", ["server", "workers", "sidecar"])
async def test_calls_are_answered_during_the_delay(tmp_path: Path, kind: str) -> None:
    """After SIGTERM health checks say so, calls are answered until the delay is over, and the exit code is 0."""
    file = settings(tmp_path, *(() if kind == "sidecar" else ('drain_delay = "2s"',)))
    workers = ("--workers", "2") if kind == "workers" else ()
    server = ServerProcess(tmp_path, "--config", str(file), *workers)
    async with started(server) as address:
        victim, asked = server, address
        if kind == "sidecar":
            victim = SidecarProcess(tmp_path / "near", address, "--drain-delay", "2s")
            asked = await victim.address()
        async with AsyncClient(asked, retries=0) as client:
            token = (await client.create()).token
            assert (await client.validate(token)).valid
            began = time.monotonic()
            stopping = asyncio.create_task(victim.terminate())
            answered, seen = 0.0, []
            with suppress(SessiondError, grpc.aio.AioRpcError):
                while True:
                    assert (await client.validate(token)).valid
                    answered = time.monotonic() - began
                    seen.append((answered, await health(asked)))
            assert await stopping == 0
        assert answered > 1.7, "calls were refused before the delay was over"
        late = [found for at, found in seen if at > 0.7]
        assert late
        assert all(found == ["NOT_SERVING", "NOT_SERVING", "SERVING"] for found in late)


async def test_a_call_that_takes_too_long(tmp_path: Path) -> None:
    """A call that is still under way when the time for calls is over is ended, and the stop does not wait for it."""
    server = ServerProcess(tmp_path, "--config", str(settings(tmp_path, 'drain_timeout = "200ms"')))
    async with started(server) as address, stub_for(address) as stub, AsyncClient(address) as client:
        created = await client.create()
        cache = FollowStream(stub)  # it holds a lease, and never acknowledges
        await cache.start()
        await cache.next()
        await cache.renew()
        revoking = asyncio.create_task(client.revoke(token=created.token, wait_for_caches=True))
        await until(lambda: is_revoked(client, created.token.reveal()))
        began = time.monotonic()
        assert await server.terminate() == 0
        assert time.monotonic() - began < 3
        with pytest.raises(SessiondError) as ended:
            await revoking
        assert ended.value.status in ("UNAVAILABLE", "CANCELLED")


async def is_revoked(client: AsyncClient, token: str) -> bool:
    return (await client.validate(token)).verdict is Verdict.REVOKED


def settings(folder: Path, *lines: str) -> Path:
    """A configuration with these lines in [server]."""
    file = folder / "sessiond.toml"
    file.write_text("\n".join(["[server]", *lines, ""]), encoding="utf-8")
    return file


async def test_streams_end_with_all_events(tmp_path: Path) -> None:
    """A subscriber gets every event that was acknowledged before the stop, and after the restart the others."""
    server = ServerProcess(tmp_path)
    async with started(server) as address, AsyncClient(address) as client, client.events(start="earliest") as stream:
        await client.create(subject="first")
        revisions = [(await anext(stream)).revision]
        for number in range(199):
            await client.create(subject=f"user {number}")
        assert await server.terminate() == 0
        async with asyncio.timeout(20):
            revisions += [(await anext(stream)).revision for _ in range(199)]
        async with started(ServerProcess(tmp_path, listen=address)):
            await client.create(subject="last")
            async with asyncio.timeout(20):
                revisions.append((await anext(stream)).revision)
        assert revisions == list(range(1, 202))


async def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Whoever does not want to wait sends the signal again. What was acknowledged is there after the restart."""
    server = ServerProcess(tmp_path, "--config", str(settings(tmp_path, 'drain_delay = "10m"')))
    async with started(server) as address:
        async with AsyncClient(address) as client:
            token = (await client.create()).token
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: stops(address))
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, 10) == -signal.SIGTERM
    again = ServerProcess(tmp_path)
    async with started(again) as address, AsyncClient(address) as client:
        assert (await client.validate(token)).valid


async def stops(address: str) -> bool:
    return await health_of(address) == "NOT_SERVING"


def test_a_stop_that_hangs() -> None:
    """A stop that takes much longer than calls may take ends the process with code 1 and a line in the log."""
    program = (
        "import asyncio; from sessiond import serving; serving._LAST_STEPS = 0.1; "
        "from dataclasses import replace; from sessiond.config import load_config; "
        "config = replace(load_config(None), drain_timeout=50); "
        "asyncio.run(serving._stopped(asyncio.sleep(600), config))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 1
    assert "not stopped in time" in run.stdout + run.stderr
