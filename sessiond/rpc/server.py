"""The gRPC server: the service with health checking and reflection, over one of two transports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from sessiond.access.callers import Callers
from sessiond.access.limits import CallLimiter
from sessiond.access.turns import READ, Pace, Turns
from sessiond.domain.immutable import immutable
from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.auditing import AuditedCalls
from sessiond.rpc.call_stats import CallStats, counting
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.grpcio import GrpcioTransport
from sessiond.rpc.handlers import (
    FastPath,
    Intake,
    Method,
    StreamMethod,
    UnaryHandler,
    UnaryMethod,
    bidirectional,
    on_grpcio,
)
from sessiond.rpc.health import SERVICE, Health
from sessiond.rpc.heavy import HeavyMessages
from sessiond.rpc.libraries import health_methods
from sessiond.rpc.listening import bind
from sessiond.rpc.traced import TracedMethod, traced
from sessiond.system.ongoing import Tracer
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["DEFAULT_MAX_CALLS", "FurtherService", "RpcServer", "Shared", "Transport", "turns_for"]

DEFAULT_MAX_CALLS = 3_000
_DESCRIPTOR = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
_PACES = {"grpcio": Pace(), "native": Pace(in_work=8 * READ, at_once=4, in_a_row=16)}
"""On the native transport a call takes less time, and nothing holds calls back."""


class Transport(Protocol):
    """What carries the calls: HTTP/2 and gRPC for one address."""

    def bind(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Bind `host:port` or `unix:path` and return the port; with credentials, for TLS, which only grpcio has.

        Raise RuntimeError or OSError if that is impossible.
        """

    async def start(self) -> None:
        """Accept calls."""

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""


@immutable
class FurtherService:
    """A service beside that of the contract, all of whose methods are unary.

    name        its full name
    methods     the type of the request and the handler of each method, by name
    authorizes  whether the handlers check themselves what the caller may do, because the message does not say it
    """

    name: str
    methods: Mapping[str, tuple[type[Message], UnaryHandler]]
    authorizes: bool = False


@immutable
class Shared:
    """What a server and its services have in common.

    unary_calls  counts the unary calls that are under way, for services that give way to them
    limiter      has the limits of each caller and application
    turns        lets the calls of each caller begin. One for all servers of a process: a caller may use several
    stats        counts the calls
    tracer       begins the spans of calls; None: they are not traced
    """

    unary_calls: UnaryCalls = field(default_factory=UnaryCalls)
    limiter: CallLimiter = field(default_factory=CallLimiter)
    turns: Turns = field(default_factory=Turns)
    stats: CallStats = field(default_factory=CallStats)
    tracer: Tracer | None = None


def turns_for(max_calls: int, transport: str) -> Turns:
    """Return the turns of callers on a transport."""
    # gRPC refuses all calls beyond `max_calls`, whoever makes them.
    return Turns(max_calls * 3 // 4, _PACES[transport])


class RpcServer:
    """A gRPC server for the SessionAuthority service. Call `start` to serve.

    `services` implement the calls of the contract as methods with the same names. A call without a method is refused
    with UNIMPLEMENTED. Each `FurtherService` among them is served beside the contract's.
    `fast_path` may answer a ValidateSession call before its message is parsed.
    Calls beyond `max_calls` at once, streams included, are refused with RESOURCE_EXHAUSTED, because each message may
    take 4 MB of memory until it is parsed. One connection may have at most half of `max_calls`.
    `shared` is what the services use as well.
    `transport` is `grpcio` or `native` (see `sessiond.rpc.native`).
    """

    def __init__(
        self,
        services: Sequence[object],
        callers: Callers,
        fast_path: FastPath | None = None,
        *,
        max_calls: int = DEFAULT_MAX_CALLS,
        transport: str = "grpcio",
        shared: Shared | None = None,
    ) -> None:
        self._health = Health()
        arrivals, shared = Arrivals(), shared or Shared(turns=turns_for(max_calls, transport))
        self._audited = AuditedCalls(callers.audit)
        intake = Intake(
            callers,
            arrivals,
            HeavyMessages(),
            callers.open_streams,
            shared.unary_calls,
            shared.limiter,
            shared.turns,
            self._audited,
        )
        further = [service for service in services if isinstance(service, FurtherService)]
        methods, others = _served(services, intake, fast_path)
        by_service = {SERVICE: methods} | {service.name: _methods(service, intake) for service in further}
        if shared.tracer is not None:
            by_service = {
                service: {name: TracedMethod(method) for name, method in served.items()}
                for service, served in by_service.items()
            }

        def watched(handler: grpc.RpcMethodHandler[Any, Any], service: str, name: str, kind: str) -> Any:
            return counting(traced(handler, service, name, shared.tracer), shared.stats.of(service, name, kind))

        found = {
            service: {
                name: watched(on_grpcio(method, intake), service, name, _kind(method))
                for name, method in served.items()
            }
            for service, served in by_service.items()
        }
        found[SERVICE] |= {name: watched(handler, SERVICE, name, "bidi_stream") for name, handler in others.items()}
        self._transport: Transport = GrpcioTransport(found, self._health.servicer, intake, max_calls, shared.stats)
        if transport == "native":
            # Imported here: the package that it needs is optional.
            from sessiond.rpc.native import NativeTransport

            by_path = health_methods(self._health.servicer)
            for service, served in by_service.items():
                by_path |= {f"/{service}/{name}": method for name, method in served.items()}
            self._transport = NativeTransport(by_path, intake, self._transport, max_calls, shared)

    async def start(
        self,
        address: str,
        socket_mode: int = 0o600,
        credentials: grpc.ServerCredentials | None = None,
        socket_group: str | None = None,
    ) -> str:
        """Listen on `host:port` (port 0: any free port) or `unix:path`, and return the bound address.

        `socket_mode` and `socket_group` are those of the Unix socket, which control who may connect. `credentials` are
        for TLS.
        Raise `CannotListen` if that is not possible.
        """
        bound = bind(partial(self._transport.bind, credentials=credentials), address, socket_mode, socket_group)
        await self._transport.start()
        await self._health.start()
        await self.report(is_ready=True)
        return bound

    async def report(self, *, is_ready: bool) -> None:
        """Set what health checks say, until the stop is announced: whether calls can be answered."""
        await self._health.report(is_ready=is_ready)

    async def announce_stop(self) -> None:
        """Make health checks report NOT_SERVING from now on, while the server still accepts calls."""
        await self._health.announce_stop()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        await self._transport.stop(grace)
        await self._audited.finish()


def _kind(method: Method) -> str:
    return "server_stream" if method.streams else "unary"


def _methods(service: FurtherService, intake: Intake) -> dict[str, Method]:
    return {
        name: UnaryMethod(
            name,
            request_type,
            handler,
            intake.heavy,
            limiter=intake.limiter,
            audited=intake.audited,
            authorizes=service.authorizes,
        )
        for name, (request_type, handler) in service.methods.items()
    }


def _served(
    services: Sequence[object], intake: Intake, fast_path: FastPath | None
) -> tuple[dict[str, Method], dict[str, grpc.RpcMethodHandler[Any, Any]]]:
    """Return the methods that every transport serves, and grpcio's handlers of the others, by name."""
    methods: dict[str, Method] = {}
    others: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in _DESCRIPTOR.methods:
        name, request_type = method.name, getattr(pb, method.input_type.name)
        handler = next((getattr(one, name) for one in services if hasattr(one, name)), None)
        if handler is None:
            continue
        if method.client_streaming:
            others[name] = bidirectional(name, request_type, handler, intake)
        elif method.server_streaming:
            methods[name] = StreamMethod(
                name, request_type, handler, intake.heavy, intake.open_streams, intake.limiter, audited=intake.audited
            )
        else:
            fast = fast_path if name == "ValidateSession" else None
            methods[name] = UnaryMethod(
                name, request_type, handler, intake.heavy, fast, intake.limiter, audited=intake.audited
            )
    return methods, others
