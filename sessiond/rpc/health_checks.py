"""Health checks on an address of their own, for orchestrators, which can check neither over TLS nor with a key."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2_grpc

from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.call_stats import CallStats
from sessiond.rpc.health import Health
from sessiond.rpc.libraries import BoundedServer
from sessiond.rpc.listening import bind, server_options

__all__ = ["HealthChecks"]

_MAX_CALLS = 400
"""How many checks are answered at once; at most half of them may be streams."""


class HealthChecks:
    """A server of `grpc.health.v1.Health` alone: no calls of the contract, and so no tokens, come here."""

    address: str

    def __init__(self) -> None:
        self._health = Health()
        self._server = grpc.aio.server(options=server_options(_MAX_CALLS), maximum_concurrent_rpcs=_MAX_CALLS)
        checks = BoundedServer(self._server, Arrivals(), CallStats())
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, checks)

    async def start(self, address: str, socket_mode: int) -> None:
        """Listen on `host:port` or `unix:path`, and report NOT_SERVING. Raises `CannotListen`."""
        await self._health.start()
        self.address = bind(self._server.add_insecure_port, address, socket_mode)
        await self._server.start()

    async def report(self, *, is_ready: bool) -> None:
        """Set what is answered, until the stop is announced: whether calls can be answered."""
        await self._health.report(is_ready=is_ready)

    async def announce_stop(self) -> None:
        """Report NOT_SERVING from now on."""
        await self._health.announce_stop()

    async def stop(self) -> None:
        """End all checks."""
        await self._server.stop(None)
