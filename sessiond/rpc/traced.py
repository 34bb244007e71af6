"""Tracing of calls: a span for each, with its status, application and verdict. Nothing here runs if tracing is off.

Handlers are wrapped, as for metrics; decision 44 says why OpenTelemetry's own interceptors are not used.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from sessiond.domain.call import Caller
from sessiond.rpc.call_stats import MethodStats, code_of
from sessiond.rpc.handlers import Method
from sessiond.system.ongoing import CALL_ID, Metadata, OngoingCall, Tracer, begin_call, note, sent_call_id
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["TracedMethod", "TracedStats", "begin_traced", "end_traced", "traced"]

_CANCELLED, _OK = "CANCELLED", "OK"
_MEMORY = "memory"
Context = grpc.aio.ServicerContext[Any, Any]


def begin_traced(tracer: Tracer, service: str, method: str, metadata: Metadata | None) -> OngoingCall:
    """Begin a call and its span."""
    sent = sent_call_id(value for key, value in metadata or () if key == CALL_ID)
    call = OngoingCall(sent, tracer.rpc(service, method, metadata))
    begin_call(call)
    return call


def end_traced(call: OngoingCall, code: str) -> None:
    """End the span of a call with the name of its status code."""
    if call.span is not None:
        call.span.note({"call_id": call.id})
        call.span.end(code)


def traced(
    handler: grpc.RpcMethodHandler[Any, Any], service: str, method: str, tracer: Tracer | None
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler of grpc.aio that traces the calls of another one. Its responses are written to the context."""
    if tracer is None:
        return handler
    inner = handler.stream_stream if handler.response_streaming else handler.stream_unary
    make: Any = (
        grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    )
    serve: Any = inner

    async def call(requests: Any, context: Context) -> Any:
        ongoing = begin_traced(tracer, service, method, cast("Metadata | None", context.invocation_metadata()))
        code = _CANCELLED
        try:
            response = await serve(requests, context)
            code = code_of(context, otherwise=_OK)
            return response
        except Exception:
            code = code_of(context)
            raise
        finally:
            end_traced(ongoing, _CANCELLED if getattr(context, "is_gone", False) else code)

    found: grpc.RpcMethodHandler[Any, Any] = make(call, handler.request_deserializer, handler.response_serializer)
    return found


class TracedMethod:
    """A method whose spans say what it has answered; see `Method`."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self.name = method.name
        self.streams = method.streams
        self.is_open = method.is_open
        self.turn_weight = method.turn_weight
        self._response_type = _response_with_verdict(method.name)

    def known(self, raw: bytes, caller: Caller) -> bytes | None:
        """Return the response if it is known without parsing the request."""
        known = self._method.known(raw, caller)
        if known is not None:
            note(session_from=_MEMORY)
            self._note_answer(known)
        return known

    async def respond(self, raw: bytes, caller: Caller, context: Any) -> bytes:
        """Respond to a request."""
        if self.name == "ValidateSession":
            note(session_from=_MEMORY)  # unless it is read from the store
        # The request is not kept in this frame: a stream may last for days.
        responding: Coroutine[Any, Any, bytes] = self._method.respond(raw, caller, context)
        del raw
        response = await responding
        self._note_answer(response)
        return response

    def _note_answer(self, response: bytes) -> None:
        if self._response_type is None:
            return
        try:
            message = self._response_type.FromString(response)
        except DecodeError:
            return
        note(verdict=pb.Verdict.Name(message.verdict).removeprefix("VERDICT_"))
        if "session" in message.DESCRIPTOR.fields_by_name and message.HasField("session"):
            note(application=message.session.application)


def _response_with_verdict(name: str) -> Any:
    """Return the type of a method's response if it has a verdict, else None."""
    found = getattr(pb, f"{name}Response", None)
    return found if found is not None and "verdict" in found.DESCRIPTOR.fields_by_name else None


class TracedStats:
    """The counts of a method for one call, whose span ends with it; see `MethodStats`."""

    def __init__(self, stats: MethodStats, call: OngoingCall) -> None:
        self._stats = stats
        self._call = call

    @property
    def sent(self) -> int:
        """Messages to callers."""
        return self._stats.sent

    @sent.setter
    def sent(self, count: int) -> None:
        self._stats.sent = count

    def begin(self) -> float:
        """Count a call that begins. Return the time, for `end`."""
        return self._stats.begin()

    def end(self, began: float, code: str = _OK) -> None:
        """Count a call that ends, and end its span."""
        self._stats.end(began, code)
        end_traced(self._call, code)
