"""Forward authentication at a sidecar: each question goes to the authority, and its answer back, as they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import grpc
from google.protobuf.message import DecodeError
from starlette.types import Scope

from sessiond.http.answers import Answer, refusal_in, try_again
from sessiond.http.calls import trace_headers
from sessiond.http.forward_auth import KEY_HEADER
from sessiond.http.forwarded import METHOD, answer_in, question
from sessiond.http.refusals import LoggedRefusals
from sessiond.system.ongoing import CALL_ID, calling, this_call

__all__ = ["Ask", "Relay"]

Ask = Callable[[str, bytes, Sequence[tuple[str, str | bytes]], float], Awaitable[bytes]]
"""Calls a method of the authority: its path, the message, the metadata, and the seconds until it must be answered.

Raises `grpc.aio.AioRpcError`.
"""
_SECONDS = 5.0
"""How long a question may take. Proxies wait for longer by default, and would answer with errors of their own."""
_LATER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
_KEY = KEY_HEADER.encode("ascii")


class Relay:
    """Forwards questions. Without an answer of the authority nobody passes: the proxy gets 503, or 500 if trying again
    does not help; the log has the reason then."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._refusals = LoggedRefusals()

    async def respond(self, scope: Scope) -> Answer:
        """Answer a question of a proxy. Its key is sent as a caller's, so the authority decides what it may ask."""
        path, sent = scope["path"], scope["headers"]
        metadata = [("authorization", value.decode("latin-1")) for name, value in sent if name == _KEY]
        headers = [(name, value) for name, value in sent if name != _KEY]
        if not all(value.isascii() and value.isprintable() for _, value in metadata):
            return self._refusals.because(f"{KEY_HEADER}: must be the key of a caller, as Bearer KEY")
        call = this_call()
        metadata.append((CALL_ID, call.id))
        if call.span is None:  # else the authority's span is a part of this one
            metadata += trace_headers(sent)
        message = question(path, scope["query_string"].decode("latin-1"), headers)
        try:
            with calling(METHOD) as trace:
                return answer_in(await self._ask(METHOD, message, [*metadata, *trace], _SECONDS))
        except grpc.aio.AioRpcError as error:
            if error.code() in _LATER:
                found = try_again()
            else:
                found = self._refusals.because(_REASONS.get(error.code(), error.details() or error.code().name))
        except (DecodeError, ValueError):
            found = self._refusals.because("the authority's answer cannot be read; upgrade the sidecar")
        return refusal_in(()) if path.endswith("/refusal") else found


_REASONS = {
    grpc.StatusCode.UNIMPLEMENTED: "the authority is older than the sidecar and does not answer proxies; upgrade it"
}
