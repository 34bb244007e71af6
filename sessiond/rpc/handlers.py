"""The wrapper around every service method: it parses the request, identifies the caller, and maps exceptions to status.

It wraps the methods directly and does not use gRPC interceptors, which would add about as much time to each call as
judging a token takes. All calls are registered with gRPC as calls with request streams. For these, gRPC receives no
message before the handler asks for it, so `Arrivals` can limit the memory for incomplete messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import grpc
import structlog
from google.protobuf.message import Message

from sessiond.access.callers import Callers
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, InvalidField
from sessiond.domain.immutable import immutable
from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.heavy import HEAVY_BYTES, HeavyMessages
from sessiond.rpc.status import INTERNAL, status_of
from sessiond.rpc.wire import parse

__all__ = ["Intake", "bidirectional", "not_served", "sent", "stream", "unary"]

_log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]
UnaryHandler = Callable[[Any, Caller], Awaitable[Message | bytes]]
StreamHandler = Callable[[Any, Caller, Context], Awaitable[None]]
BidirectionalHandler = Callable[[AsyncIterator[Any], Caller, Context], Awaitable[None]]
FastPath = Callable[[Caller, bytes], Message | None]


@immutable
class Intake:
    """What a call passes before its message is parsed: the identification of its caller, and the limits on messages."""

    callers: Callers
    arrivals: Arrivals
    heavy: HeavyMessages

    def caller(self, context: Context) -> Caller:
        """Return the caller of a call."""
        metadata = cast("Sequence[tuple[str, str | bytes]] | None", context.invocation_metadata())
        return self.callers.identify(context.peer(), metadata)


def sent(raw: bytes | None) -> bytes:
    """Return the message of a call. Raise `InvalidField` if the caller sent none."""
    if raw is None:
        raise InvalidField("request", "is missing; send one message before ending the call")
    return raw


def unary(
    name: str,
    request_type: type[Message],
    handler: UnaryHandler,
    intake: Intake,
    fast_path: FastPath | None = None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the gRPC handler of a unary call.

    `fast_path` may answer the raw request before it is parsed; it returns None to leave the call to `handler`.
    """
    arrivals, heavy = intake.arrivals, intake.heavy

    async def call(_: Any, context: Context) -> bytes:
        raw, message = b"", None
        try:
            caller = intake.caller(context)
            raw = sent(await arrivals.next(context, caller.peer))
            heavily = len(raw) >= HEAVY_BYTES
            if fast_path is not None and not heavily and (known := fast_path(caller, raw)) is not None:
                return known.SerializeToString()
            message = await heavy.parse(request_type, raw, caller.peer) if heavily else parse(request_type, raw)
            response = await handler(message, caller)
            return response if isinstance(response, bytes) else response.SerializeToString()
        except AuthorityError as error:
            status = status_of(error)
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            status = _internal_error(name)
        # gRPC keeps the exception that `abort` raises, and so this frame, until the next run of the cycle collector.
        raw, message = b"", None
        await context.abort_with_status(status)
        raise AssertionError("abort never returns")

    return grpc.stream_unary_rpc_method_handler(call)


def stream(
    name: str, request_type: type[Message], handler: StreamHandler, intake: Intake
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the gRPC handler of a call that responds with a stream. `handler` writes the messages to the context."""

    async def serve(caller: Caller, context: Context) -> None:
        raw = sent(await intake.arrivals.next(context, caller.peer))
        message = await _parsed(request_type, intake, caller, raw)
        del raw  # a stream may last for days
        await handler(message, caller, context)

    return _streaming(name, serve, intake)


def bidirectional(
    name: str, request_type: type[Message], handler: BidirectionalHandler, intake: Intake
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the gRPC handler of a call with a stream in each direction.

    `handler` gets the caller's messages, parsed, as an iterator that ends when the caller ends its side, and writes its
    own to the context. A read must not be cancelled: it ends with the call. Only the first message counts as arriving
    (see `Arrivals`): the call may wait long for a later one, and would keep the turn of others. So the handler must
    limit how many of these streams are open.
    """

    async def messages(caller: Caller, context: Context) -> AsyncIterator[Message]:
        yield await _parsed(request_type, intake, caller, sent(await intake.arrivals.next(context, caller.peer)))
        while (raw := await context.read()) is not grpc.aio.EOF:
            yield await _parsed(request_type, intake, caller, raw)

    async def serve(caller: Caller, context: Context) -> None:
        await handler(messages(caller, context), caller, context)

    return _streaming(name, serve, intake)


async def _parsed(request_type: type[Message], intake: Intake, caller: Caller, raw: bytes) -> Message:
    if len(raw) >= HEAVY_BYTES:
        return await intake.heavy.parse(request_type, raw, caller.peer)
    return parse(request_type, raw)


def _streaming(
    name: str, serve: Callable[[Caller, Context], Awaitable[None]], intake: Intake
) -> grpc.RpcMethodHandler[Any, Any]:
    async def respond(context: Context) -> None:
        try:
            await serve(intake.caller(context), context)
            return
        except AuthorityError as error:
            status = status_of(error)
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise
        except Exception:  # noqa: BLE001 - the last place to turn an exception into a status
            status = _internal_error(name)
        await context.abort_with_status(status)

    async def call(_: Any, context: Context) -> None:
        try:
            await respond(context)
        except grpc.aio.InternalError:
            # gRPC could not send because the caller has disconnected.
            _log.debug("caller gone", rpc=name)

    return grpc.stream_stream_rpc_method_handler(call, response_serializer=_serialize)


def not_served(name: str, *, client_streams: bool) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that refuses a call of the contract which this version does not implement."""

    async def call(_: Any, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served by this version")
        raise AssertionError("abort never returns")

    make = grpc.stream_stream_rpc_method_handler if client_streams else grpc.stream_unary_rpc_method_handler
    return make(call)


def _internal_error(name: str) -> Any:
    # The text of an unexpected exception may only go to the log; gRPC would send it to the caller.
    _log.exception("call failed", rpc=name)
    return INTERNAL


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
