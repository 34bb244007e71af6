"""The local address of a sidecar: a gRPC server with health checks that say whether it may answer."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from sessiond.rpc.health import LIVE, SERVICE
from sessiond.rpc.leftovers import Leftovers
from sessiond.rpc.libraries import BoundedServer
from sessiond.rpc.listening import bind, server_options
from sessiond.sidecar.forwarding import Forwarding, Way
from sessiond.system.ongoing import started_outside_calls

__all__ = ["CACHE_SERVICE", "Endpoint"]

CACHE_SERVICE = f"{SERVICE}/cache"
"""The name under which health checks say whether the cache may answer."""


class Endpoint:
    """Serves calls on one address.

    Calls beyond `max_calls` at once, streams included, are refused with RESOURCE_EXHAUSTED. One connection may have at
    most half of them. `shares_port` lets other processes of this user listen on the same port.
    """

    def __init__(self, forwarding: Forwarding, way: Way, *, max_calls: int, shares_port: bool = False) -> None:
        options = server_options(max_calls, shares_port=shares_port)
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=max_calls)
        self._server.add_generic_rpc_handlers((Leftovers(),))
        self._health = health.HealthServicer()
        self._is_stopping = False
        health_pb2_grpc.add_HealthServicer_to_server(self._health, BoundedServer(self._server, way.arrivals, way.stats))
        # Takes every call, so it comes last.
        self._server.add_generic_rpc_handlers((forwarding,))

    async def start(self, address: str, socket_mode: int) -> str:
        """Listen on `host:port` or `unix:path`, and return the bound address. Raise `CannotListen` if impossible."""
        bound = bind(self._server.add_insecure_port, address, socket_mode)
        await self._health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self.report(serves=False, from_memory=False)
        await started_outside_calls(self._server.start())
        return bound

    async def report(self, *, serves: bool, from_memory: bool) -> None:
        """Set what health checks say: whether calls can be answered at all, and whether from memory."""
        for name, is_serving in (("", serves), (SERVICE, serves), (CACHE_SERVICE, from_memory)):
            status = health_pb2.HealthCheckResponse
            wanted = status.SERVING if is_serving and not self._is_stopping else status.NOT_SERVING
            await self._health.set(name, wanted)

    async def announce_stop(self) -> None:
        """Make health checks report NOT_SERVING, while calls are still accepted."""
        self._is_stopping = True
        await self.report(serves=False, from_memory=False)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        await self._server.stop(grace)
