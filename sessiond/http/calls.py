"""The id of a request over HTTP, taken from the header X-Request-Id and shown in the response; and its span."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from dataclasses import replace
from typing import Any

from starlette.types import Scope, Send

from sessiond.http.answers import Answer
from sessiond.system.ongoing import CALL_ID, OngoingCall, Tracer, begin_call, sent_call_id

__all__ = ["begin_request", "end_request", "identified", "IdentifyingSend", "trace_headers"]

_HEADER = CALL_ID.encode("ascii")
_FAILED = 500
_TRACE_FORMS = {
    b"traceparent": re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    b"tracestate": re.compile(rb"[\x20-\x7e]{1,512}"),
}


def begin_request(scope: Scope, route: str, tracer: Tracer | None) -> OngoingCall:
    """Begin the call that a request is. `route` is its path, without what clients choose."""
    sent = sent_call_id(value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER)
    call = OngoingCall(sent, None if tracer is None else tracer.http(scope["method"], route, scope["headers"]))
    begin_call(call)
    return call


def end_request(call: OngoingCall, status: int) -> None:
    """End the span of a request that was answered with this status."""
    if call.span is not None:
        call.span.note({"call_id": call.id})
        call.span.end(status)


def trace_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return the headers of W3C Trace Context that are in good form, for gRPC. Clients may send others."""
    forms = _TRACE_FORMS
    return [
        (name.decode("ascii"), value.decode("ascii"))
        for name, value in headers
        if name in forms and forms[name].fullmatch(value)
    ]


def identified(answer: Answer, call: OngoingCall) -> Answer:
    """Return an answer with the id of its request, if the request came with one, or something may be in the log."""
    if not call.is_named and answer.status < _FAILED:
        return answer
    return replace(answer, headers=(*answer.headers, (_HEADER, call.id.encode("ascii"))))


class IdentifyingSend:
    """`send` of ASGI, which adds the id as `identified` does, and keeps the status."""

    def __init__(self, send: Send, call: OngoingCall) -> None:
        self._send = send
        self._call = call
        self.status = _FAILED
        """The status of the response. As long as there is none, that of a failure."""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Send a message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._call.is_named or self.status >= _FAILED:
                identity = (_HEADER, self._call.id.encode("ascii"))
                message = {**message, "headers": [*message.get("headers", ()), identity]}
        await self._send(message)
