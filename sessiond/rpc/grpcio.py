"""The default transport: grpcio, with limits on every resource, and TLS if there are credentials."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from sessiond.rpc.call_stats import CallStats
from sessiond.rpc.handlers import Intake
from sessiond.rpc.leftovers import Leftovers
from sessiond.rpc.libraries import HEALTH, BoundedServer
from sessiond.rpc.listening import server_options
from sessiond.system.ongoing import started_outside_calls

__all__ = ["GrpcioTransport"]


class GrpcioTransport:
    """A `grpc.aio` server for the handlers of services, with health checking and reflection; see `Transport`."""

    def __init__(
        self,
        handlers: Mapping[str, Mapping[str, grpc.RpcMethodHandler[Any, Any]]],
        health_checks: health.HealthServicer,
        intake: Intake,
        max_calls: int,
        stats: CallStats,
    ) -> None:
        self._server = grpc.aio.server(
            options=server_options(max_calls, renews=intake.callers.reads_certificates),
            maximum_concurrent_rpcs=max_calls,
        )
        own = [grpc.method_handlers_generic_handler(service, dict(methods)) for service, methods in handlers.items()]
        self._server.add_generic_rpc_handlers((Leftovers(), *own))
        # Orchestrators check the health of servers without any credentials.
        checks = BoundedServer(self._server, intake.arrivals, stats)
        health_pb2_grpc.add_HealthServicer_to_server(health_checks, checks)
        bounded = BoundedServer(self._server, intake.arrivals, stats, partial(intake.caller, "ServerReflectionInfo"))
        names = (*handlers, HEALTH, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), bounded)

    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Bind an address; see `Transport`."""
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Accept calls."""
        await started_outside_calls(self._server.start())

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        await self._server.stop(grace)
