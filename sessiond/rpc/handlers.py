"""Handlers: what surrounds each call. Bytes to message, caller to identity, exceptions to status.

Wrapped around the handlers themselves rather than made as interceptors: those cost each call about as much again as
judging a token does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import grpc
import structlog
from google.protobuf.message import Message

from sessiond.access.callers import Callers
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError
from sessiond.rpc.heavy import HEAVY_BYTES, HeavyMessages
from sessiond.rpc.status import INTERNAL, status_of
from sessiond.rpc.wire import parse

__all__ = ["not_served", "stream", "unary"]

_log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]
UnaryHandler = Callable[[Any, Caller], Awaitable[Message | bytes]]
StreamHandler = Callable[[Any, Caller, Context], Awaitable[None]]
FastPath = Callable[[Caller, bytes], Message | None]


def _caller(callers: Callers, context: Context) -> Caller:
    metadata = cast("Sequence[tuple[str, str | bytes]] | None", context.invocation_metadata())
    return callers.identify(context.peer(), metadata)


def unary(
    name: str,
    request_type: type[Message],
    handler: UnaryHandler,
    callers: Callers,
    heavy: HeavyMessages,
    fast_path: FastPath | None = None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """A unary call's handler; a `fast_path` may answer before the message is read, or give None."""

    async def call(raw: bytes, context: Context) -> bytes:
        message: Message | None = None
        try:
            caller = _caller(callers, context)
            if fast_path is not None and (known := fast_path(caller, raw)) is not None:
                return known.SerializeToString()
            heavily = len(raw) >= HEAVY_BYTES
            message = await heavy.parse(request_type, raw, caller.peer) if heavily else parse(request_type, raw)
            answer = await handler(message, caller)
            return answer if isinstance(answer, bytes) else answer.SerializeToString()
        except AuthorityError as error:
            status = status_of(error)
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - here everything is caught
            status = _failed(name)
        # gRPC keeps what is raised now, and with it this frame, until the cycle collector comes.
        raw, message = b"", None
        await context.abort_with_status(status)
        raise AssertionError("abort never returns")

    return grpc.unary_unary_rpc_method_handler(call)


def stream(
    name: str, request_type: type[Message], handler: StreamHandler, callers: Callers, heavy: HeavyMessages
) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of a call that answers with a stream; it writes messages to the context itself."""

    async def answer(raw: bytes, context: Context) -> None:
        message: Message | None = None
        try:
            caller = _caller(callers, context)
            heavily = len(raw) >= HEAVY_BYTES
            message = await heavy.parse(request_type, raw, caller.peer) if heavily else parse(request_type, raw)
            await handler(message, caller, context)
            return
        except AuthorityError as error:
            status = status_of(error)
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise
        except Exception:  # noqa: BLE001 - here everything is caught
            status = _failed(name)
        raw, message = b"", None  # as above
        await context.abort_with_status(status)

    async def call(raw: bytes, context: Context) -> None:
        answered = answer(raw, context)
        raw = b""
        try:
            await answered
        except grpc.aio.InternalError:
            # gRPC could not send: the caller has hung up, and nobody is left to answer.
            _log.debug("caller gone", rpc=name)

    return grpc.unary_stream_rpc_method_handler(call, response_serializer=_serialize)


def not_served(name: str, *, client_streams: bool) -> grpc.RpcMethodHandler[Any, Any]:
    """A call of the contract that this version does not serve."""

    async def call(_: Any, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served by this version")
        raise AssertionError("abort never returns")

    make = grpc.stream_stream_rpc_method_handler if client_streams else grpc.unary_unary_rpc_method_handler
    return make(call)


def _failed(name: str) -> Any:
    # The text of an unknown exception is for our log alone: gRPC would send it to the caller.
    _log.exception("call failed", rpc=name)
    return INTERNAL


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
