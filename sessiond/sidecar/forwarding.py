"""Forwarding: every call goes to the authority as it came, byte for byte, unless the cache has its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import field
from functools import partial
from typing import Any, NamedTuple, cast

import grpc
import structlog
from grpc_status import rpc_status

from sessiond.domain.call import FORWARDED_KEY
from sessiond.domain.errors import AuthorityError, Overloaded, Unavailable
from sessiond.domain.immutable import immutable
from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.call_stats import CallStats, counting
from sessiond.rpc.failures import failure_of
from sessiond.rpc.handlers import sent
from sessiond.rpc.status import status_of
from sessiond.rpc.stream_limit import StreamLimit
from sessiond.rpc.traced import traced
from sessiond.sidecar.barrier import Barrier
from sessiond.sidecar.held import HeldBytes
from sessiond.sidecar.near import NearAnswers, has_signals
from sessiond.sidecar.upstream import Metadata, Reply, Upstream, passed_on
from sessiond.system.ongoing import CALL_ID, TRACE_HEADERS, Tracer, calling, note, this_call
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Forwarding", "Way"]

_log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]

_SERVICE = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
_VALIDATE = f"/{_SERVICE.full_name}/ValidateSession"
_CHANGES_NOTHING = {
    f"/{_SERVICE.full_name}/{name}"
    for name in (
        "ValidateSessions",
        "GetSession",
        "ListSessions",
        "GetSessionData",
        "ListActivity",
        "ListSourceLocks",
        "GetAuthority",
    )
}
"""Calls after which a caller expects to see no change of its own."""
_UNREACHABLE = Unavailable("the authority cannot be reached; try again soon")
_BROKEN = Unavailable("the authority ended the stream while a message was sent to it; try again soon")
_BROKEN_WRITE = "Internal error from Core"
"""How gRPC reports a write on a stream that the other side has ended. The real status is lost then."""
_STOPPING = Unavailable("the sidecar is shutting down; resume from the last cursor")


@immutable
class Way:
    """What a call passes on its way to the authority.

    write_timeout  how many seconds a caller may leave a message of a stream unread
    metadata       what is sent with each call beside the caller's own metadata, for a caller on that connection. Every
                   forwarded call must have something that says that it is one: else what the connection to the
                   authority proves would count for callers that prove nothing
    stats          counts the calls of the contract
    tracer         begins their spans; None: they are not traced
    """

    upstream: Upstream
    answers: NearAnswers
    barrier: Barrier
    arrivals: Arrivals
    limit: StreamLimit
    write_timeout: float
    metadata: Callable[[str], Metadata] = lambda _: ((FORWARDED_KEY, "sidecar"),)
    stats: CallStats = field(default_factory=CallStats)
    tracer: Tracer | None = None


class Forwarding(grpc.GenericRpcHandler):
    """Handles every call, whether this version knows it or not.

    To gRPC all calls have a stream of requests, as in `rpc.handlers`. A call that this version does not know is
    forwarded as one with streams in both directions: on the wire there is no difference.
    """

    def __init__(self, way: Way) -> None:
        self._way = way
        self._streams: set[Any] = set()
        self._reading: set[asyncio.Task[Exception | None]] = set()
        self._is_stopping = False
        self._held = HeldBytes()
        self._known = {f"/{_SERVICE.full_name}/{method.name}": self._handler(method) for method in _SERVICE.methods}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of a call."""
        method = str(details.method)
        known = self._known.get(method)
        if known is not None:
            return known
        return grpc.stream_stream_rpc_method_handler(_guarded(method, partial(self._stream, method)))

    def _handler(self, described: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of a method of the contract. Its calls are counted."""
        method = f"/{_SERVICE.full_name}/{described.name}"
        if described.client_streaming or described.server_streaming:
            kind = "bidi_stream" if described.client_streaming else "server_stream"
            make = grpc.stream_stream_rpc_method_handler
            call: Callable[[Context], Awaitable[Any]] = partial(self._stream, method)
        else:
            kind, make = "unary", grpc.stream_unary_rpc_method_handler
            call = self._validate if method == _VALIDATE else partial(self._call, method)
        service, name = _SERVICE.full_name, described.name
        handler = traced(make(_guarded(method, call)), service, name, self._way.tracer)
        return counting(handler, self._way.stats.of(service, name, kind))

    def stop(self) -> None:
        """End all streams with a status that asks the caller to resume."""
        self._is_stopping = True
        for call in tuple(self._streams):
            call.cancel()

    async def _validate(self, context: Context) -> bytes:
        answers = self._way.answers
        raw = sent(await self._way.arrivals.next(context, context.peer()))
        digest = answers.digest(raw, _metadata_of(context))
        known = answers.known(digest)
        if known is not None:
            if self._way.tracer is not None:
                note(answered_from="cache")
            return known
        question = answers.question(digest, raw)
        if question is None:
            return await _answered(context, await self._judged(context, raw))
        return await _answered(context, await answers.ask(question, partial(self._judged, context)))

    async def _call(self, method: str, context: Context) -> bytes:
        raw = sent(await self._way.arrivals.next(context, context.peer()))
        try:
            reply = await self._asked(method, context, raw)
        except grpc.aio.AioRpcError:
            # What it changed before it failed is applied too.
            await self._applied(method)
            raise
        await self._applied(method)
        return await _answered(context, reply)

    async def _applied(self, method: str) -> None:
        if method not in _CHANGES_NOTHING:
            await self._way.barrier.reached()

    async def _judged(self, context: Context, raw: bytes) -> Reply:
        """Ask for a validation. If it raises signals, it may have ended sessions."""
        reply = await self._asked(_VALIDATE, context, raw)
        if has_signals(reply.body):
            await self._way.barrier.reached()
        return reply

    async def _asked(self, method: str, context: Context, raw: bytes) -> Reply:
        with self._held.counted(context.peer(), len(raw)), calling(method) as trace:
            note(answered_from="authority")
            metadata = [*self._metadata(context), *trace]
            return await self._way.upstream.ask(method, raw, metadata, context.time_remaining())

    def _metadata(self, context: Context) -> Metadata:
        """Return what is sent to the authority: what the caller has sent, and by which id the call is known here."""
        received = _metadata_of(context)
        call = this_call(received)
        replaced = {CALL_ID} if call.span is None else {CALL_ID, *TRACE_HEADERS}
        kept = [(key, value) for key, value in passed_on(received) if key not in replaced]
        return [*kept, (CALL_ID, call.id), *self._way.metadata(context.peer())]

    async def _stream(self, method: str, context: Context) -> None:
        way, peer = self._way, context.peer()
        with way.limit.counted(peer):
            if self._is_stopping:
                raise _STOPPING
            span = this_call(_metadata_of(context)).span
            metadata = [*self._metadata(context), *(() if span is None else span.headers())]
            call = way.upstream.stream(method, metadata, context.time_remaining())
            self._streams.add(call)
            # Never cancelled: a read ends with its call, and gRPC leaks what a cancelled one has received.
            reading = asyncio.create_task(self._read(context, peer, call), name=f"{method}: read")
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)
            try:
                await self._respond(call, context)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # the caller has hung up
                if self._is_stopping:
                    raise _STOPPING from None
                refused = reading.result() if reading.done() else None
                # If nothing was refused here, the authority has cancelled the call.
                raise refused or await _error_of(call) from None
            except grpc.aio.InternalError:
                _log.debug("caller gone", rpc=method)
            finally:
                self._streams.discard(call)
                call.cancel()

    async def _read(self, context: Context, peer: str, call: Any) -> Exception | None:
        """Pass on what the caller sends, and its end. Returns why the call must end, if a limit says so."""
        try:
            raw: Any = await self._way.arrivals.next(context, peer)
            while raw is not None and raw is not grpc.aio.EOF:
                with self._held.counted(peer, len(raw)):
                    await call.write(raw)
                raw = await context.read()
            await call.done_writing()
        except (grpc.aio.AbortError, Overloaded) as error:
            call.cancel()
            return error
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - either call has ended; `_respond` finds out why
            call.cancel()
        return None

    async def _respond(self, call: Any, context: Context) -> None:
        is_first = True
        while (message := await call.read()) is not grpc.aio.EOF:
            if is_first and (initial := tuple(await call.initial_metadata())):
                await context.send_initial_metadata(initial)
            is_first = False
            try:
                # Not `wait_for`: on Python 3.11 it loses a cancellation that arrives when the write has finished.
                async with asyncio.timeout(self._way.write_timeout):
                    await context.write(message)
            except TimeoutError:
                raise Overloaded(
                    "the stream was not read in time; resume from the last cursor that was received"
                ) from None
        if trailing := tuple(await call.trailing_metadata()):
            context.set_trailing_metadata(trailing)


def _guarded(
    method: str, serve: Callable[[Context], Awaitable[Any]]
) -> Callable[[Any, Context], Coroutine[Any, Any, Any]]:
    """Return a handler that ends the call with the status of what `serve` raises."""

    async def call(_: Any, context: Context) -> Any:
        initial: Metadata = ()
        try:
            return await serve(context)
        except grpc.aio.AioRpcError as error:
            initial, status = tuple(error.initial_metadata()), _status_of(error)
        except AuthorityError as error:
            status = status_of(error, _metadata_of(context))
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            this_call(_metadata_of(context))
            status = rpc_status.to_status(failure_of(method))
        if initial:
            await context.send_initial_metadata(initial)
        await context.abort(status.code, status.details, tuple(status.trailing_metadata))
        raise AssertionError("abort never returns")

    return call


async def _answered(context: Context, reply: Reply) -> bytes:
    if reply.initial:
        await context.send_initial_metadata(reply.initial)
    if reply.trailing:
        context.set_trailing_metadata(reply.trailing)
    return reply.body


def _metadata_of(context: Context) -> Metadata:
    return cast("Metadata | None", context.invocation_metadata()) or ()


async def _error_of(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


class _Status(NamedTuple):
    code: grpc.StatusCode
    details: str
    trailing_metadata: Metadata


def _status_of(error: grpc.aio.AioRpcError) -> Any:
    """Return the status of a call to the authority, for the caller."""
    trailing = tuple(error.trailing_metadata())
    if error.code() is grpc.StatusCode.UNAVAILABLE and not trailing:
        return status_of(_UNREACHABLE)  # of gRPC itself; the authority's own has details
    if error.code() is grpc.StatusCode.INTERNAL and (error.details() or "").startswith(_BROKEN_WRITE):
        return status_of(_BROKEN)
    return _Status(error.code(), error.details() or "", trailing)
