"""Services from libraries (health checks, reflection), with our limits on messages."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from sessiond.access.turns import READ
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, InvalidField
from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.call_stats import CallStats, counting
from sessiond.rpc.handlers import Method, sent
from sessiond.rpc.heavy import HEAVY_BYTES
from sessiond.rpc.status import status_of
from sessiond.rpc.stream_limit import StreamLimit

__all__ = ["HEALTH", "BoundedServer", "health_methods"]

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
Context = grpc.aio.ServicerContext[Any, Any]
_MOST_STREAMS = 200
"""How many streams of each of these services may be open. Some are open to callers without credentials, who could
otherwise take all places that there are for calls."""


class BoundedServer:
    """A stand-in for a server to pass to a library's `add_..._to_server`. It adds the handlers with our limits."""

    def __init__(
        self,
        server: grpc.aio.Server,
        arrivals: Arrivals,
        stats: CallStats,
        identify: Callable[[Context], Caller] | None = None,
    ) -> None:
        """`identify` raises an `AuthorityError` for callers that may not call; None: everyone may."""
        self._server = server
        self._arrivals = arrivals
        self._stats = stats
        self._identify = identify
        self._streams = _stream_limit()

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add the handlers of a service."""
        self._server.add_generic_rpc_handlers(
            [_Bounded(handler, self._arrivals, self._identify, self._streams, self._stats) for handler in handlers]
        )

    def add_registered_method_handlers(self, name: str, handlers: Mapping[str, Any]) -> None:
        """Do nothing: these are the same handlers as the generic ones."""


def _stream_limit() -> StreamLimit:
    return StreamLimit(_MOST_STREAMS, "streams of this service")


def _parsed(found: Any, raw: bytes) -> Any:
    """Return the request. Libraries keep requests for as long as a stream lasts, so a large one is refused."""
    if len(raw) >= HEAVY_BYTES:
        raise InvalidField("request", f"has {len(raw)} bytes, at most {HEAVY_BYTES - 1} are allowed")
    try:
        return found.request_deserializer(raw)
    except DecodeError:
        raise InvalidField("request", "cannot be parsed") from None


class _Bounded(grpc.GenericRpcHandler):
    def __init__(
        self,
        handlers: grpc.GenericRpcHandler,
        arrivals: Arrivals,
        identify: Callable[[Context], Caller] | None,
        streams: StreamLimit,
        stats: CallStats,
    ) -> None:
        self._handlers = handlers
        self._arrivals = arrivals
        self._identify = identify
        self._streams = streams
        self._stats = stats

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        found: Any = self._handlers.service(details)
        if found is None:
            return None
        make: Any = grpc.stream_unary_rpc_method_handler
        if found.response_streaming:
            make = grpc.stream_stream_rpc_method_handler
        call = self._many(found) if found.request_streaming else self._one(found)
        handler: grpc.RpcMethodHandler[Any, Any] = make(call, response_serializer=found.response_serializer)
        _, service, method = details.method.split("/")
        kind = "bidi_stream" if found.request_streaming else "server_stream" if found.response_streaming else "unary"
        return counting(handler, self._stats.of(service, method, kind))

    def _check(self, context: Context) -> None:
        if self._identify is not None:
            self._identify(context)

    def _one(self, found: Any) -> Any:
        async def call(_: Any, context: Context) -> Any:
            try:
                self._check(context)
                request = _parsed(found, sent(await self._arrivals.next(context, context.peer())))
                if found.response_streaming:
                    with self._streams.counted(context.peer()), suppress(grpc.aio.InternalError):  # nobody reads it
                        return await found.unary_stream(request, context)
                answer = found.unary_unary(request, context)
                return await answer if inspect.isawaitable(answer) else answer
            except AuthorityError as error:
                await context.abort_with_status(status_of(error, context.invocation_metadata()))

        return call

    def _many(self, found: Any) -> Any:
        async def call(_: Any, context: Context) -> AsyncIterator[Any]:
            async def requests() -> AsyncIterator[Any]:
                while (raw := await self._arrivals.next(context, context.peer())) is not None:
                    yield _parsed(found, raw)

            try:
                self._check(context)
                with self._streams.counted(context.peer()):
                    async for response in found.stream_stream(requests(), context):
                        yield response
            except AuthorityError as error:
                await context.abort_with_status(status_of(error, context.invocation_metadata()))

        return call


def health_methods(servicer: health.HealthServicer) -> dict[str, Method]:
    """Return the methods of health checking, by path, for a transport that serves methods by itself."""
    collected = _Collected()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, collected)
    streams = _stream_limit()
    return {f"/{HEALTH}/{name}": _LibraryMethod(name, found, streams) for name, found in collected.handlers.items()}


class _Collected:
    """A stand-in for a server to pass to a library's `add_..._to_server`. It keeps the handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Do nothing: these are the same handlers as the registered ones."""

    def add_registered_method_handlers(self, name: str, handlers: Mapping[str, Any]) -> None:
        """Keep the handlers of a service."""
        self.handlers.update(handlers)


class _LibraryMethod:
    """A method of a library whose request is one message; see `Method`."""

    def __init__(self, name: str, found: Any, streams: StreamLimit) -> None:
        self.name = name
        self._streams = streams
        self.is_open = True
        self.turn_weight = READ
        self.streams = bool(found.response_streaming)
        self._found = found

    def known(self, raw: bytes, caller: Caller) -> bytes | None:
        """Return None: nothing is known in advance."""
        return None

    async def respond(self, raw: bytes, caller: Caller, context: Any) -> bytes:
        """Parse the request, and let the library respond."""
        request = _parsed(self._found, raw)
        if self.streams:
            with self._streams.counted(caller.peer):
                await self._found.unary_stream(request, context)
            return b""
        return bytes(self._found.response_serializer(await self._found.unary_unary(request, context)))
