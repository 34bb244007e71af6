"""The default transport: grpcio, with limits on every resource."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.libraries import HEALTH, BoundedServer

__all__ = ["MAX_MESSAGE_BYTES", "MAX_METADATA_BYTES", "GrpcioTransport"]

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024
KEEPALIVE_TIME_MS, KEEPALIVE_TIMEOUT_MS = 60_000, 20_000
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # otherwise a second server could bind the same port without an error
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    # The part of a message that may arrive before the call asks for it (see `Arrivals`). gRPC must not enlarge it.
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_allowed_incoming_connections", 2_000),
    # Calls that wait to be accepted. Beyond these limits gRPC ends random calls as CANCELLED, as if by the caller.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.max_ping_strikes", 3),
]


class GrpcioTransport:
    """A `grpc.aio` server for the handlers of one service, with health checking and reflection; see `Transport`."""

    def __init__(
        self,
        service: str,
        handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]],
        health_checks: health.HealthServicer,
        arrivals: Arrivals,
        max_calls: int,
    ) -> None:
        # Further calls wait in the client. Calls that begin before the client knows this limit are reset.
        per_connection = ("grpc.max_concurrent_streams", max_calls // 2)
        self._server = grpc.aio.server(options=[*_OPTIONS, per_connection], maximum_concurrent_rpcs=max_calls)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, dict(handlers)),))
        bounded = BoundedServer(self._server, arrivals)
        health_pb2_grpc.add_HealthServicer_to_server(health_checks, bounded)
        names = (service, HEALTH, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), bounded)

    def bind(self, address: str) -> int:
        """Bind an address; see `Transport`."""
        return self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        await self._server.stop(grace)
