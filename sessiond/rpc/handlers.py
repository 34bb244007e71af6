"""Handlers: what surrounds each call. Bytes to message, caller to identity, exceptions to status.

Wrapped around the handlers themselves rather than made as interceptors: those cost each call about as much again as
judging a token does. To gRPC all calls are ones whose requests are streams: of those it takes no message before the
handler asks for it, and so `Arrivals` can bound how much is held of messages that are not whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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

__all__ = ["Intake", "not_served", "sent", "stream", "unary"]

_log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]
UnaryHandler = Callable[[Any, Caller], Awaitable[Message | bytes]]
StreamHandler = Callable[[Any, Caller, Context], Awaitable[None]]
FastPath = Callable[[Caller, bytes], Message | None]


@immutable
class Intake:
    """What a call goes through before its message is read: who calls, and the bounds on messages."""

    callers: Callers
    arrivals: Arrivals
    heavy: HeavyMessages

    def caller(self, context: Context) -> Caller:
        """Return who calls."""
        metadata = cast("Sequence[tuple[str, str | bytes]] | None", context.invocation_metadata())
        return self.callers.identify(context.peer(), metadata)


def sent(raw: bytes | None) -> bytes:
    """Return a call's one message. Raises `InvalidField` if the caller sent none."""
    if raw is None:
        raise InvalidField("request", "is missing: the call ended without a message")
    return raw


def unary(
    name: str,
    request_type: type[Message],
    handler: UnaryHandler,
    intake: Intake,
    fast_path: FastPath | None = None,
) -> grpc.RpcMethodHandler[Any, Any]:
    """A unary call's handler; a `fast_path` may answer before the message is read, or give None."""
    arrivals, heavy = intake.arrivals, intake.heavy

    async def call(_: Any, context: Context) -> bytes:
        raw, message = b"", None
        try:
            caller = intake.caller(context)
            raw = sent(await arrivals.next(context, caller.peer))
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

    return grpc.stream_unary_rpc_method_handler(call)


def stream(
    name: str, request_type: type[Message], handler: StreamHandler, intake: Intake
) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of a call that answers with a stream; it writes messages to the context itself."""
    arrivals, heavy = intake.arrivals, intake.heavy

    async def answer(context: Context) -> None:
        raw, message = b"", None
        try:
            caller = intake.caller(context)
            raw = sent(await arrivals.next(context, caller.peer))
            heavily = len(raw) >= HEAVY_BYTES
            message = await heavy.parse(request_type, raw, caller.peer) if heavily else parse(request_type, raw)
            raw = b""  # a stream may last for days
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

    async def call(_: Any, context: Context) -> None:
        try:
            await answer(context)
        except grpc.aio.InternalError:
            # gRPC could not send: the caller has hung up, and nobody is left to answer.
            _log.debug("caller gone", rpc=name)

    return grpc.stream_stream_rpc_method_handler(call, response_serializer=_serialize)


def not_served(name: str, *, client_streams: bool) -> grpc.RpcMethodHandler[Any, Any]:
    """A call of the contract that this version does not serve."""

    async def call(_: Any, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served by this version")
        raise AssertionError("abort never returns")

    make = grpc.stream_stream_rpc_method_handler if client_streams else grpc.stream_unary_rpc_method_handler
    return make(call)


def _failed(name: str) -> Any:
    # The text of an unknown exception is for our log alone: gRPC would send it to the caller.
    _log.exception("call failed", rpc=name)
    return INTERNAL


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
