"""What the calls of every subject share: reading who asks, and carrying out a change from one description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, wraps
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from sessiond.authority.authority import Authority
from sessiond.authority.results import Kept, Reply
from sessiond.domain.call import Call, Caller
from sessiond.domain.immutable import immutable
from sessiond.domain.position import Position
from sessiond.domain.values import Revision
from sessiond.rpc import decode
from sessiond.rpc.cursor import decode_consistency_token, encode_consistency_token
from sessiond.rpc.retries import request_id_of
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Calls", "Change", "changing"]

M = TypeVar("M", bound=Message)
R = TypeVar("R")
S = TypeVar("S", bound="_Service")
Request = Any


class Calls:
    """What calls have in common: the application, the client, the reason; and consistency tokens, both ways."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._identity = authority.parts.store.authority_id
        # The newest token, for it is asked for again and again.
        self._token = (Revision(-1), "")

    def of(self, request: Request, caller: Caller) -> Call:
        """The call that a request makes. Raises `InvalidField`."""
        has_client, has_reason = _fields(request.DESCRIPTOR)
        seen = decode.client(request.client) if has_client and request.HasField("client") else None
        reason = decode.reason(request.reason) if has_reason and request.reason else ""
        return self._authority.call(decode.application(request.application), caller, seen, reason)

    def validating(self, request: pb.ValidateSessionRequest, caller: Caller) -> Call:
        """The same for a validation, which comes far more often."""
        seen = decode.client(request.client) if request.HasField("client") else None
        return self._authority.call(decode.application(request.application), caller, seen)

    def at_least(self, text: str) -> Position | None:
        """The position of a consistency token; None for no token. Raises `InvalidField`."""
        return decode_consistency_token(text, self._identity) if text else None

    def consistency_token(self, wanted: Revision) -> str:
        """The consistency token of the state at a revision."""
        feed = self._authority.parts.feed
        if self._token[0] != wanted:
            self._token = (wanted, encode_consistency_token(self._identity, feed.position(wanted)))
        return self._token[1]


@cache
def _fields(descriptor: Any) -> tuple[bool, bool]:
    """Whether requests of a call tell a client, and a reason."""
    fields = descriptor.fields_by_name
    return "client" in fields, "reason" in fields


class _Service(Protocol):
    """What a class must have whose calls are described by `changing`."""

    _calls: Calls


@immutable
class Change(Generic[R]):
    """One decoded change: how the authority is asked for it, and how its result is written into the answer."""

    ask: Callable[[Reply[R]], Awaitable[R | Kept]]
    fill: Callable[[Any, R], None]


def changing(
    answer: type[Message],
) -> Callable[[Callable[[S, Call, Any], Change[R]]], Callable[[S, Any, Caller], Awaitable[Message | bytes]]]:
    """Make a changing call from its description: a method that decodes a request to a `Change`.

    A call that was made before, with the same `request_id`, gets the first answer again, byte for byte.
    """

    def make(describe: Callable[[S, Call, Any], Change[R]]) -> Callable[[S, Any, Caller], Awaitable[Message | bytes]]:
        @wraps(describe)
        async def method(self: S, request: Any, caller: Caller) -> Message | bytes:
            call = self._calls.of(request, caller)
            change = describe(self, call, request)

            def encode(result: R) -> Message:
                message = answer()
                change.fill(message, result)
                return message

            reply: Reply[R] = Reply(lambda result: encode(result).SerializeToString(), request_id_of(call, request))
            result = await change.ask(reply)
            return result.message if isinstance(result, Kept) else encode(result)

        return method

    return make
