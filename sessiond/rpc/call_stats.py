"""What a gRPC server counts about its calls: how many, with which status, and how long they took."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from time import perf_counter
from typing import Any

import grpc

from sessiond.system.distribution import SECONDS, Distribution

__all__ = ["CallStats", "MethodStats", "code_of", "counting"]

_CANCELLED, _OK, _UNKNOWN = "CANCELLED", "OK", "UNKNOWN"
Context = grpc.aio.ServicerContext[Any, Any]


class MethodStats:
    """The counts of one method. `kind` is unary, server_stream or bidi_stream."""

    __slots__ = ("_clock", "handled", "kind", "method", "received", "seconds", "sent", "service", "started")

    def __init__(self, service: str, method: str, kind: str, clock: Callable[[], float]) -> None:
        self.service = service
        self.method = method
        self.kind = kind
        self.started = 0
        """Calls that have begun."""
        self.received = 0
        """Messages from callers."""
        self.sent = 0
        """Messages to callers."""
        self.handled: Counter[str] = Counter()
        """Calls that have ended, by the name of their status code."""
        self.seconds = Distribution(SECONDS)
        """How long the calls that have ended took. For a stream: how long it was open."""
        self._clock = clock

    def begin(self) -> float:
        """Count a call that begins. Return the time, for `end`."""
        self.started += 1
        return self._clock()

    def end(self, began: float, code: str = _OK) -> None:
        """Count a call that ends."""
        self.handled[code] += 1
        self.seconds.add(self._clock() - began)


class CallStats:
    """The counts of all methods of the servers in a process. `clock` returns seconds, and never goes backwards."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._methods: dict[tuple[str, str], MethodStats] = {}

    def __iter__(self) -> Iterator[MethodStats]:
        return iter(self._methods.values())

    def of(self, service: str, method: str, kind: str) -> MethodStats:
        """Return the counts of a method. Servers that serve the same method share them."""
        known = self._methods.get((service, method))
        if known is None:
            known = self._methods[service, method] = MethodStats(service, method, kind, self._clock)
        return known


def counting(handler: grpc.RpcMethodHandler[Any, Any], stats: MethodStats) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler of grpc.aio that counts the calls of another one.

    `stats.kind` says what the method is in the contract: here unary methods may be registered as streams.
    """
    if handler.response_streaming:
        inner, make = (
            (handler.stream_stream, grpc.stream_stream_rpc_method_handler)
            if handler.request_streaming
            else (handler.unary_stream, grpc.unary_stream_rpc_method_handler)
        )
        call = _yielding(inner, stats) if inspect.isasyncgenfunction(inner) else _streaming(inner, stats)
    else:
        inner, make = (
            (handler.stream_unary, grpc.stream_unary_rpc_method_handler)
            if handler.request_streaming
            else (handler.unary_unary, grpc.unary_unary_rpc_method_handler)
        )
        call = _unary(inner, stats)
    counted: grpc.RpcMethodHandler[Any, Any] = make(call, handler.request_deserializer, handler.response_serializer)
    return counted


def _unary(inner: Any, stats: MethodStats) -> Any:
    async def call(requests: Any, context: Context) -> Any:
        began, code = stats.begin(), _CANCELLED
        try:
            response = await inner(requests, context)
            code = code_of(context, otherwise=_OK)
            stats.sent += 1
            return response
        except Exception:
            code = code_of(context)
            raise
        finally:
            stats.received += 1
            stats.end(began, code)

    return call


def _streaming(inner: Any, stats: MethodStats) -> Any:
    async def call(requests: Any, context: Context) -> None:
        began, code, counting_context = stats.begin(), _CANCELLED, _Counting(context, stats)
        try:
            await inner(requests, counting_context)
            code = code_of(context, otherwise=_OK)
        except Exception:
            code = code_of(context)
            raise
        finally:
            stats.end(began, _CANCELLED if counting_context.is_gone else code)

    return call


def _yielding(inner: Any, stats: MethodStats) -> Any:
    async def call(requests: Any, context: Context) -> AsyncIterator[Any]:
        began, code = stats.begin(), _CANCELLED
        try:
            async for response in inner(requests, context):
                yield response
                stats.sent += 1
            code = _OK
        except Exception:
            code = code_of(context)
            raise
        finally:
            stats.end(began, code)

    return call


class _Counting:
    """A call whose messages are counted."""

    def __init__(self, context: Context, stats: MethodStats) -> None:
        self._context = context
        self._stats = stats
        self.is_gone = False
        """Whether a message could not be sent: the caller has hung up."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        """Receive a message."""
        message = await self._context.read()
        if message is not grpc.aio.EOF:
            self._stats.received += 1
        return message

    async def write(self, message: Any) -> None:
        """Send a message."""
        try:
            await self._context.write(message)
        except grpc.aio.InternalError:
            self.is_gone = True
            raise
        self._stats.sent += 1


def code_of(context: Context, otherwise: str = _UNKNOWN) -> str:
    """Return the name of the status that a call was ended with."""
    code: Any = context.code()  # a number until somebody has set it
    return str(code.name) if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK else otherwise
