"""Health checks on an address of their own, for orchestrators, which can check neither over TLS nor with a key."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.call_stats import CallStats
from sessiond.rpc.libraries import BoundedServer
from sessiond.rpc.listening import bind, server_options
from sessiond.rpc.server import SERVICE

__all__ = ["HealthChecks"]

_MAX_CALLS = 400
"""How many checks are answered at once; at most half of them may be streams."""


class HealthChecks:
    """A server of `grpc.health.v1.Health` alone: no calls of the contract, and so no tokens, come here."""

    address: str

    def __init__(self) -> None:
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(options=server_options(_MAX_CALLS), maximum_concurrent_rpcs=_MAX_CALLS)
        checks = BoundedServer(self._server, Arrivals(), CallStats())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, checks)

    async def start(self, address: str, socket_mode: int) -> None:
        """Listen on `host:port` or `unix:path`, and report NOT_SERVING. Raises `CannotListen`."""
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.address = bind(self._server.add_insecure_port, address, socket_mode)
        await self._server.start()

    async def announce_start(self) -> None:
        """Report SERVING."""
        await self._set(health_pb2.HealthCheckResponse.SERVING)

    async def announce_stop(self) -> None:
        """Report NOT_SERVING."""
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self) -> None:
        """End all checks."""
        await self._server.stop(None)

    async def _set(self, status: Any) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)
