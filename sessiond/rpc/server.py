"""The gRPC server: the service with health checking and reflection, and with limits on every resource."""

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
    ("grpc.so_reuseport", 0),  # otherwise a second server could bind the same port without an error
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_metadata_size", 8 * 1024),
    # The part of a message that may arrive before the call asks for it (see `Arrivals`). gRPC must not enlarge it.
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_allowed_incoming_connections", 2_000),
    # Calls that wait to be accepted. Beyond these limits gRPC ends random calls as CANCELLED, as if by the caller.
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
    """Return whether only this machine can reach `address`: a Unix socket or a loopback address."""
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
    """A gRPC server for the SessionAuthority service. Call `start` to serve.

    `services` implement the calls of the contract as methods with the same names. A call without a method is refused
    with UNIMPLEMENTED. `fast_path` may answer a ValidateSession call before its message is parsed.
    Calls beyond `max_calls` at once, streams included, are refused with RESOURCE_EXHAUSTED, because each message may
    take 4 MB of memory until it is parsed. One connection may have at most half of `max_calls`.
    """

    def __init__(
        self,
        services: Sequence[object],
        callers: Callers,
        fast_path: FastPath | None = None,
        *,
        max_calls: int = DEFAULT_MAX_CALLS,
    ) -> None:
        # Further calls wait in the client. Calls that begin before the client knows this limit are reset.
        per_connection = ("grpc.max_concurrent_streams", max_calls // 2)
        self._server = grpc.aio.server(options=[*_OPTIONS, per_connection], maximum_concurrent_rpcs=max_calls)
        self._health = health.HealthServicer()
        arrivals = Arrivals()
        found = _handlers(services, Intake(callers, arrivals, HeavyMessages()), fast_path)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, found),))
        bounded = BoundedServer(self._server, arrivals)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, bounded)
        names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), bounded)

    async def start(self, address: str, socket_mode: int = 0o600) -> str:
        """Listen on `host:port` (port 0: any free port) or `unix:path`, and return the bound address.

        `socket_mode` is the mode of the Unix socket, which controls who may connect.
        Raise `CannotListen` if that is not possible.
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
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def announce_stop(self) -> None:
        """Make health checks report NOT_SERVING, while the server still accepts calls."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        await self._server.stop(grace)

    async def _set_health(self, status: Any) -> None:
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
        elif method.client_streaming:
            found[method.name] = handlers.bidirectional(method.name, request_type, handler, intake)
        elif method.server_streaming:
            found[method.name] = handlers.stream(method.name, request_type, handler, intake)
        else:
            fast = fast_path if method.name == "ValidateSession" else None
            found[method.name] = handlers.unary(method.name, request_type, handler, intake, fast)
    return found
