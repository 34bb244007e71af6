"""The server: the service on gRPC, with health checking and reflection, and with bounds on everything."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from sessiond.access.callers import Callers
from sessiond.rpc import handlers
from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.handlers import FastPath, Intake
from sessiond.rpc.heavy import HeavyMessages
from sessiond.rpc.libraries import BoundedServer
from sessiond.rpc.sockets import open_socket, prepare_socket, private_sockets, why_not
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["DEFAULT_MAX_CALLS", "SERVICE", "RpcServer", "is_local"]

DEFAULT_MAX_CALLS = 3_000
_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
SERVICE = _DESCRIPTOR.full_name

_OPTIONS = [
    ("grpc.so_reuseport", 0),  # else a second server on the port binds silently too
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_metadata_size", 8 * 1024),
    # How much of a message may come before the call asks for it (see `Arrivals`): this much, and not more by a guess.
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_allowed_incoming_connections", 2_000),
    # Calls that wait to be taken up: beyond these gRPC ends them at random, as CANCELLED, as if the caller had done it.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.http2.max_ping_strikes", 3),
]


def is_local(address: str) -> bool:
    """Whether only this machine can reach the address: a Unix socket or a loopback address."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RpcServer:
    """A gRPC server for one service, not started yet.

    `services` have the calls of the contract as methods, by their names; a call that none of them has is not served.
    `fast_path` may answer a ValidateSession before its message is read. Calls beyond `max_calls` at once, streams
    included, are refused with RESOURCE_EXHAUSTED: a message may take 4 MB until it is read. One connection may have
    half of them.
    """

    def __init__(
        self,
        services: Sequence[object],
        callers: Callers,
        fast_path: FastPath | None = None,
        *,
        max_calls: int = DEFAULT_MAX_CALLS,
    ) -> None:
        # What is more waits in the client, but for calls that begin before it knows this bound: these are reset.
        of_one = ("grpc.max_concurrent_streams", max_calls // 2)
        self._server = grpc.aio.server(options=[*_OPTIONS, of_one], maximum_concurrent_rpcs=max_calls)
        self._health = health.HealthServicer()
        arrivals = Arrivals()
        found = _handlers(services, Intake(callers, arrivals, HeavyMessages()), fast_path)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, found),))
        bounded = BoundedServer(self._server, arrivals)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, bounded)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), bounded)

    async def start(self, address: str, socket_mode: int = 0o600) -> str:
        """Listen on `host:port` (port 0: any) or `unix:path`; the address that was bound. Raises `CannotListen`.

        `socket_mode` is the mode of the Unix socket, which says who may connect.
        """
        if address.startswith("unix:"):
            prepare_socket(address.removeprefix("unix:"))
        try:
            with private_sockets():
                port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise why_not(address) from None
        if address.startswith("unix:"):
            open_socket(address.removeprefix("unix:"), socket_mode)
        await self._server.start()
        await self._tell(health_pb2.HealthCheckResponse.SERVING)
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def announce_stop(self) -> None:
        """Have health checks say that this server is going, while it still answers."""
        await self._tell(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open ones `grace` seconds, then end them."""
        await self._server.stop(grace)

    async def _tell(self, status: Any) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)


def _handlers(
    services: Sequence[object], intake: Intake, fast_path: FastPath | None
) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in _DESCRIPTOR.methods:
        handler = next((getattr(one, method.name) for one in services if hasattr(one, method.name)), None)
        request_type = getattr(pb, method.input_type.name)
        if handler is None:
            found[method.name] = handlers.not_served(method.name, client_streams=method.client_streaming)
        elif method.server_streaming:
            found[method.name] = handlers.stream(method.name, request_type, handler, intake)
        else:
            fast = fast_path if method.name == "ValidateSession" else None
            found[method.name] = handlers.unary(method.name, request_type, handler, intake, fast)
    return found
