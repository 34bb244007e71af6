"""Questions of proxies that a sidecar forwards over gRPC, and their answers: HTTP in the messages of `google.rpc`.

So proxies beside a sidecar get the authority's own answers, with TLS on the way, and the sidecar needs no policies.
"""

from __future__ import annotations

from typing import Any

from google.rpc.http_pb2 import HttpRequest, HttpResponse

from sessiond.domain.call import Caller
from sessiond.domain.errors import InvalidField
from sessiond.http.answers import Answer
from sessiond.http.forward_auth import CALL, PATHS, ForwardAuth
from sessiond.http.questions import Headers
from sessiond.rpc.server import FurtherService

__all__ = ["METHOD", "answer_in", "question", "service"]

_SERVICE = "sessiond.http.ForwardAuth"
METHOD = f"/{_SERVICE}/{CALL}"


def service(auth: ForwardAuth) -> FurtherService:
    """Return the service, for the server of an authority."""

    async def check(request: Any, caller: Caller) -> Any:
        path, _, query = request.uri.partition("?")
        if path not in PATHS:
            raise InvalidField("uri", f"must have one of the paths {', '.join(PATHS)}")
        raw = [
            (one.key.encode("latin-1", "replace"), one.value.encode("latin-1", "replace")) for one in request.headers
        ]
        found = await auth.answer(path, query, Headers(raw), caller)
        pairs = [{"key": name.decode("latin-1"), "value": value.decode("latin-1")} for name, value in found.headers]
        return HttpResponse(status=found.status, headers=pairs, body=found.body)

    return FurtherService(_SERVICE, {CALL: (HttpRequest, check)}, authorizes=True)


def question(path: str, query: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the message of a question that was asked at this path."""
    pairs = [{"key": name.decode("latin-1"), "value": value.decode("latin-1")} for name, value in headers]
    uri = f"{path}?{query}" if query else path
    raw: bytes = HttpRequest(method="GET", uri=uri, headers=pairs).SerializeToString()
    return raw


def answer_in(raw: bytes) -> Answer:
    """Return the answer in a message. Raises `DecodeError` or `ValueError` if it is none."""
    message = HttpResponse.FromString(raw)
    if not 200 <= message.status < 600:
        raise ValueError("no status of HTTP")
    pairs = [(one.key.encode("latin-1"), one.value.encode("latin-1")) for one in message.headers]
    return Answer(message.status, pairs, message.body)
