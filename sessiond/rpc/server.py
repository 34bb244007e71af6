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
from sessiond.rpc.listening import bind, server_options
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["DEFAULT_MAX_CALLS", "SERVICE", "RpcServer", "is_local"]

DEFAULT_MAX_CALLS = 3_000
_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
SERVICE = _DESCRIPTOR.full_name


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
        self._server = grpc.aio.server(options=server_options(max_calls), maximum_concurrent_rpcs=max_calls)
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
        bound = bind(self._server, address, socket_mode)
        await self._server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return bound

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
