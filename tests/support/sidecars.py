"""A real sidecar for tests: in this process, or in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sessiond.config import Override, load_sidecar
from sessiond.sidecar.endpoint import CACHE_SERVICE
from sessiond.sidecar_app import Sidecar
from sessiond_client.near_cache import boot_millis
from tests.support.server import ServerProcess

__all__ = ["PATIENCE", "SidecarProcess", "beside", "health_of", "is_open", "until", "until_healthy"]

_SERVICE = CACHE_SERVICE.removesuffix("/cache")
PATIENCE = 30.0
"""Seconds after which what must happen counts as missing."""


@asynccontextmanager
async def beside(
    upstream: str, folder: Path, clock: Callable[[], int] = boot_millis, **settings: Any
) -> AsyncIterator[Sidecar]:
    """Run a sidecar of an authority in this process, on a Unix socket unless `listen` is set."""
    chosen = {"upstream": upstream, "listen": f"unix:{folder / 'near.sock'}"} | settings
    sidecar = await Sidecar.start(
        load_sidecar([Override(key, value, "--test") for key, value in chosen.items()]), clock
    )
    try:
        yield sidecar
    finally:
        await sidecar.stop()


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


def is_open(sidecar: Sidecar) -> bool:
    """Return whether the cache of a sidecar may answer."""
    return sidecar.cache.stats().is_open


async def health_of(address: str, service: str = "") -> str:
    """Return what a health check says."""
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        found = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(found.status))


async def until_healthy(address: str, *, serves: bool, from_memory: bool) -> None:
    """Wait until health checks say so: whether calls are answered at all, and whether from memory."""
    wanted = ["SERVING" if is_serving else "NOT_SERVING" for is_serving in (serves, serves, from_memory)]

    async def holds() -> bool:
        return [await health_of(address, name) for name in ("", _SERVICE, CACHE_SERVICE)] == wanted

    await until(holds)


class SidecarProcess(ServerProcess):
    """`sessiond sidecar` as a process of its own."""

    def __init__(self, folder: Path, upstream: str, *arguments: str, program: tuple[str, ...] = ("-m", "sessiond")):
        """Start the sidecar in a folder of its own, on the socket `near.sock` in it."""
        folder.mkdir(exist_ok=True)
        settings = ("--upstream", upstream, "--listen", f"unix:{folder / 'near.sock'}", "--log-format", "json")
        super().__init__(folder, *settings, *arguments, options=False, program=program, command="sidecar")
