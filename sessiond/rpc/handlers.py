"""The edge: what surrounds each handler. Bytes to message, exceptions to status, nothing else gets out.

Wrapped around the handlers themselves rather than made as interceptors: those cost each call about as much again as
judging a token does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message

from sessiond.domain.errors import AuthorityError, Unavailable
from sessiond.rpc.status import INTERNAL, status_of
from sessiond.rpc.wire import parse
from sessiond.store.contract import StoreFailed

__all__ = ["not_served", "stream", "unary"]

_log = structlog.get_logger(__name__)
# Of a read: a change is refused by the journal. The sweeper meets the same failure within its interval, and tells it.
_STORE_FAILED = status_of(Unavailable("the store failed; the authority is stopping"))
Handler = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]
Shortcut = Callable[[bytes], Message | None]


def unary(
    name: str, request_type: type[Message], handler: Handler, shortcut: Shortcut | None = None
) -> grpc.RpcMethodHandler[Any, Any]:
    """A unary call's handler; a `shortcut` may answer before the message is read, or give None."""

    async def call(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            if shortcut is not None and (known := shortcut(raw)) is not None:
                return known.SerializeToString()
            response = await handler(parse(request_type, raw), context)
            return response.SerializeToString()  # type: ignore[no-any-return]
        except AuthorityError as error:
            await context.abort_with_status(status_of(error))
        except StoreFailed:
            await context.abort_with_status(_STORE_FAILED)
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - the edge is where everything is caught
            await _fail(name, context)
        raise AssertionError("abort returns never")

    return grpc.unary_unary_rpc_method_handler(call)


def stream(name: str, request_type: type[Message], handler: Handler) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of a call that answers with a stream; it writes messages to the context itself."""

    async def answer(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            await handler(parse(request_type, raw), context)
        except AuthorityError as error:
            await context.abort_with_status(status_of(error))
        except StoreFailed:
            await context.abort_with_status(_STORE_FAILED)
        except (grpc.aio.AbortError, grpc.aio.InternalError):
            raise
        except Exception:  # noqa: BLE001 - the edge is where everything is caught
            await _fail(name, context)

    async def call(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            await answer(raw, context)
        except grpc.aio.InternalError:
            # gRPC could not send: the caller has hung up, and nobody is left to be told. No fault of anyone's.
            _log.debug("caller gone", rpc=name)

    return grpc.unary_stream_rpc_method_handler(call, response_serializer=_serialize)


def not_served(name: str, *, client_streams: bool) -> grpc.RpcMethodHandler[Any, Any]:
    """A call of the contract that this version does not serve."""

    async def call(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served by this version")
        raise AssertionError("abort returns never")

    make = grpc.stream_stream_rpc_method_handler if client_streams else grpc.unary_unary_rpc_method_handler
    return make(call)


async def _fail(name: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    # The text of an unknown exception is for our log alone: gRPC would send it to the caller.
    _log.exception("call failed", rpc=name)
    await context.abort_with_status(INTERNAL)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
