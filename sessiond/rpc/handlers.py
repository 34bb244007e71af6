"""The wrapper around every service method: it parses the request, identifies the caller, and maps exceptions to status.

It wraps the methods directly and does not use gRPC interceptors, which would add about as much time to each call as
judging a token takes. `UnaryMethod` and `StreamMethod` turn the bytes of a request into a response or an exception;
every transport serves these. `on_grpcio` makes grpcio's handlers of them. With grpcio all calls are registered as calls
with request streams. For these, gRPC receives no message before the handler asks for it, so `Arrivals` can limit the
memory for incomplete messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field
from typing import Any, NoReturn, Protocol, cast

import grpc
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status

from sessiond.access.callers import Callers
from sessiond.access.identity import AuthContext
from sessiond.access.limits import Account, CallLimiter
from sessiond.access.streams import OpenStreams
from sessiond.access.turns import CHANGE, READ, Turns, Work, watched
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, InvalidField, LimitReached, Overloaded
from sessiond.domain.immutable import immutable
from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.auditing import AuditedCalls
from sessiond.rpc.failures import failure_of
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.heavy import HEAVY_BYTES, HeavyMessages
from sessiond.rpc.status import status_of
from sessiond.rpc.weights import weight_of, weights_by_application
from sessiond.rpc.wire import parse
from sessiond.system.ongoing import this_call

__all__ = [
    "FastPath",
    "Intake",
    "Method",
    "StreamMethod",
    "UnaryMethod",
    "bidirectional",
    "counted",
    "internal_error",
    "on_grpcio",
    "sent",
]

_NOT_COUNTED = nullcontext()
_REFUSAL = 0.001
"""Seconds."""
_READS = ("Validate", "Get", "List")
_log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]
UnaryHandler = Callable[[Any, Caller], Awaitable[Message | bytes]]
StreamHandler = Callable[[Any, Caller, Any], Coroutine[Any, Any, None]]
BidirectionalHandler = Callable[[AsyncIterator[Any], Caller, Context], Coroutine[Any, Any, None]]
FastPath = Callable[[Caller, bytes], Message | None]


@immutable
class Intake:
    """What a call passes before its message is parsed: who calls, its turn, and the limits on calls and messages.

    Other work gives way to the unary calls that are counted in `unary_calls`.
    """

    callers: Callers
    arrivals: Arrivals
    heavy: HeavyMessages
    open_streams: OpenStreams
    unary_calls: UnaryCalls
    limiter: CallLimiter = field(default_factory=CallLimiter)
    turns: Turns = field(default_factory=Turns)
    audited: AuditedCalls = field(default_factory=AuditedCalls)

    def begin(self, account: Account, weight: int) -> Awaitable[None] | None:
        """Begin a call, which lasts until `end`. Return what to wait for before its message is read; None: nothing.

        This, and what it returns, raise `Overloaded` and `LimitReached`.
        """
        refusal = None
        try:
            account.begin()
        except LimitReached as error:
            # To refuse a call takes almost as long as to answer it, so a flood of refusals takes turns as well.
            refusal, weight = error, READ
        try:
            turn = self.turns.begin(account.lane, weight)
        except Overloaded:
            if refusal is None:
                account.end()
            raise
        if turn is not None:
            return self._wait(turn, account, weight, refusal)
        if refusal is not None:
            self._refuse(account, refusal)
        return None

    async def _wait(
        self, turn: asyncio.Future[None], account: Account, weight: int, refusal: LimitReached | None
    ) -> None:
        try:
            await self.turns.wait(turn, account.lane, weight)
        except BaseException:
            if refusal is None:
                account.end()
            raise
        if refusal is not None:
            self._refuse(account, refusal)

    def _refuse(self, account: Account, refusal: LimitReached) -> NoReturn:
        """Raise a refusal. Its turn lasts a little longer, so that refusals take only a part of the time."""
        asyncio.get_running_loop().call_later(_REFUSAL, self.turns.end, account.lane, READ)
        raise refusal

    def end(self, account: Account, weight: int, work: Work | None = None) -> None:
        """End what has begun. `work` counts a call that was more than a cached answer."""
        account.end()
        if work is None:
            self.turns.end(account.lane, weight)
        else:
            work.end()

    def caller(self, name: str, context: Context) -> Caller:
        """Return the caller of a call of the method with this name. Raises `Unauthenticated` and `Unavailable`."""
        metadata = cast("Sequence[tuple[str, str | bytes]] | None", context.invocation_metadata())
        # Reading it costs microseconds, so only if there is something to read.
        proved = cast("AuthContext", context.auth_context()) if self.callers.reads_certificates else None
        return self.audited.identify(name, self.callers, context.peer(), metadata, proved)


def sent(raw: bytes | None) -> bytes:
    """Return the message of a call. Raise `InvalidField` if the caller sent none."""
    if raw is None:
        raise InvalidField("request", "is missing; send one message before ending the call")
    return raw


class Method(Protocol):
    """A method whose request is one message."""

    @property
    def name(self) -> str:
        """The name in the contract, for the log."""

    @property
    def streams(self) -> bool:
        """Whether the response is a stream. Its messages are written to the context then."""

    @property
    def is_open(self) -> bool:
        """Whether everyone may call it, without credentials."""

    @property
    def turn_weight(self) -> int:
        """What a call counts among those of its caller that are in work; see `Turns`."""

    def known(self, raw: bytes, caller: Caller) -> bytes | None:
        """Return the response if it is known without parsing the request; None if `respond` must decide."""

    def respond(self, raw: bytes, caller: Caller, context: Any) -> Coroutine[Any, Any, bytes]:
        """Respond to a request. `context` is the call, with the methods `write` and `abort` of grpc.aio's context.

        Return the response; for a stream, nothing. Raise `AuthorityError` to refuse the call.
        """


@immutable
class UnaryMethod:
    """A method with one response.

    `fast_path` may answer the raw request before it is parsed; it returns None to leave the call to `handler`.
    `authorizes`: whether `handler` checks itself what the caller may do.
    """

    name: str
    request_type: type[Message]
    handler: UnaryHandler
    heavy: HeavyMessages
    fast_path: FastPath | None = None
    limiter: CallLimiter | None = None
    streams: bool = False
    is_open: bool = False
    audited: AuditedCalls = field(default_factory=AuditedCalls)
    authorizes: bool = False

    @property
    def turn_weight(self) -> int:
        """What a call counts among those of its caller that are in work."""
        return READ if self.name.startswith(_READS) else CHANGE

    def known(self, raw: bytes, caller: Caller) -> bytes | None:
        """Return the response of the fast path, if there is one."""
        if self.fast_path is None or len(raw) >= HEAVY_BYTES or (known := self.fast_path(caller, raw)) is None:
            return None
        return known.SerializeToString()

    async def respond(self, raw: bytes, caller: Caller, context: Any) -> bytes:
        """Parse the request, and let the service respond."""
        message = await _parsed(self.request_type, raw, caller, self.heavy)
        role = None if self.authorizes else self.audited.authorize(self.name, message, caller)
        with counted(self.name, message, caller, self.limiter):
            if role is None:
                response = await self.handler(message, caller)
            else:
                response = await self.audited.carry_out(self.name, message, caller, role, self.handler)
        return response if isinstance(response, bytes) else response.SerializeToString()


@immutable
class StreamMethod:
    """A method that responds with a stream. `handler` writes the messages to the context."""

    name: str
    request_type: type[Message]
    handler: StreamHandler
    heavy: HeavyMessages
    open_streams: OpenStreams
    limiter: CallLimiter | None = None
    streams: bool = True
    is_open: bool = False
    audited: AuditedCalls = field(default_factory=AuditedCalls)

    @property
    def turn_weight(self) -> int:
        """What the begin of a stream counts among the calls of its caller that are in work."""
        return READ

    def known(self, raw: bytes, caller: Caller) -> bytes | None:
        """Return None: no stream is known in advance."""
        return None

    async def respond(self, raw: bytes, caller: Caller, context: Any) -> bytes:
        """Parse the request, and let the service write to the context."""
        message = await _parsed(self.request_type, raw, caller, self.heavy)
        if (role := self.audited.authorize(self.name, message, caller)) is not None:
            self.audited.begin(self.name, message, caller, role)
        raw = b""  # a stream may last for days
        with counted(self.name, message, caller, self.limiter):
            await self.open_streams.serve(caller, self.handler(message, caller, context))
        return b""


def on_grpcio(method: Method, intake: Intake) -> grpc.RpcMethodHandler[Any, Any]:
    """Return grpcio's handler of a method."""
    return _on_grpcio_streaming(method, intake) if method.streams else _on_grpcio_unary(method, intake)


def _on_grpcio_unary(method: Method, intake: Intake) -> grpc.RpcMethodHandler[Any, Any]:
    arrivals, unary_calls, weight = intake.arrivals, intake.unary_calls, method.turn_weight

    async def call(_: Any, context: Context) -> bytes:
        raw, caller, account, work = b"", None, None, None
        try:
            caller = intake.caller(method.name, context)
            beginning = intake.limiter.account(caller)
            if (turn := intake.begin(beginning, weight)) is not None:
                await turn
            account = beginning
            unary_calls.begin()
            raw = sent(await arrivals.next(context, caller.peer))
            if (known := method.known(raw, caller)) is not None:
                return known
            work = Work(intake.turns, account.lane, weight)
            this_call(caller.metadata)
            return await watched(method.respond(raw, caller, context), work)
        except AuthorityError as error:
            status = status_of(error, context.invocation_metadata())
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            this_call(context.invocation_metadata())
            status = internal_error(method.name)
        finally:
            if account is not None:
                unary_calls.end()
                intake.end(account, weight, work)
        # gRPC keeps the exception that `abort` raises, and so this frame, until the next run of the cycle collector.
        # It must keep neither the message nor the metadata, which may have megabytes.
        raw, caller = b"", None
        await context.abort_with_status(status)
        raise AssertionError("abort never returns")

    return grpc.stream_unary_rpc_method_handler(call)


def bidirectional(
    name: str, request_type: type[Message], handler: BidirectionalHandler, intake: Intake
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return grpcio's handler of a call with a stream in each direction.

    `handler` gets the caller's messages, parsed, as an iterator that ends when the caller ends its side, and writes its
    own to the context. A read must not be cancelled: it ends with the call. Only the first message counts as arriving
    (see `Arrivals`): the call may wait long for a later one, and would keep the turn of others. So the handler must
    limit how many of these streams are open.
    """

    async def messages(caller: Caller, context: Context) -> AsyncIterator[Message]:
        raw: Any = sent(await intake.arrivals.next(context, caller.peer))
        while raw is not grpc.aio.EOF:
            message = await _parsed(request_type, raw, caller, intake.heavy)
            if (role := intake.audited.authorize(name, message, caller)) is not None:
                intake.audited.begin(name, message, caller, role)
            yield message
            raw = await context.read()

    async def serve(caller: Caller, context: Context) -> None:
        await intake.open_streams.serve(caller, handler(messages(caller, context), caller, context))

    return _streaming(name, serve, intake)


def counted(name: str, message: Any, caller: Caller, limiter: CallLimiter | None) -> AbstractContextManager[None]:
    """Count a call beyond the one that its caller began: its weight, and the applications that it is about.

    Raise `LimitReached` if the limit of an application is reached.
    """
    if limiter is None:
        return _NOT_COUNTED
    if (more := weight_of(name, message) - 1) > 0:
        limiter.account(caller).charge(more)
    if not limiter.limits_applications:
        return _NOT_COUNTED
    return limiter.about(weights_by_application(name, message))


async def _parsed(request_type: type[Message], raw: bytes, caller: Caller, heavy: HeavyMessages) -> Message:
    return await heavy.parse(request_type, raw, caller.peer) if len(raw) >= HEAVY_BYTES else parse(request_type, raw)


def _on_grpcio_streaming(method: Method, intake: Intake) -> grpc.RpcMethodHandler[Any, Any]:
    async def serve(caller: Caller, context: Context) -> None:
        # The request is not kept in this frame: a stream may last for days.
        await method.respond(sent(await intake.arrivals.next(context, caller.peer)), caller, context)

    return _streaming(method.name, serve, intake)


def _streaming(
    name: str, serve: Callable[[Caller, Context], Awaitable[None]], intake: Intake
) -> grpc.RpcMethodHandler[Any, Any]:
    async def respond(context: Context) -> None:
        account = None
        try:
            caller = intake.caller(name, context)
            beginning = intake.limiter.account(caller)
            if (turn := intake.begin(beginning, READ)) is not None:
                await turn
            account = beginning
            # Later messages of a stream have limits of their own.
            intake.turns.end(account.lane, READ)
            this_call(caller.metadata)
            await serve(caller, context)
            return
        except AuthorityError as error:
            status = status_of(error, context.invocation_metadata())
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            this_call(context.invocation_metadata())
            status = internal_error(name)
        finally:
            if account is not None:
                account.end()
        await context.abort_with_status(status)

    async def call(_: Any, context: Context) -> None:
        try:
            await respond(context)
        except grpc.aio.InternalError:
            # gRPC could not send because the caller has disconnected.
            _log.debug("caller gone", rpc=name)

    return grpc.stream_stream_rpc_method_handler(call, response_serializer=_serialize)


def internal_error(name: str) -> Any:
    """Log the exception that is being handled, and return the status for the caller of that method."""
    return rpc_status.to_status(failure_of(name))


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
