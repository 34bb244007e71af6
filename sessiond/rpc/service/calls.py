"""Shared parts of the service methods: decoding the common fields, and the decorator for calls that make a change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, wraps
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from sessiond.authority.authority import Authority
from sessiond.authority.results import AnswerSpec, ChangeResult, EncodedAnswer
from sessiond.domain.audit import Trail
from sessiond.domain.call import Call, Caller
from sessiond.domain.immutable import immutable
from sessiond.domain.position import Position
from sessiond.domain.values import Revision
from sessiond.rpc import decode
from sessiond.rpc.cursor import decode_consistency_token, encode_consistency_token
from sessiond.rpc.retries import request_id_of
from sessiond.system.ongoing import note
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Calls", "Change", "changing", "note_change"]

M = TypeVar("M", bound=Message)
R = TypeVar("R")
S = TypeVar("S", bound="_Service")
Request = Any


class Calls:
    """Decodes the fields that calls have in common: application, client and reason. Converts consistency tokens."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._identity = authority.parts.store.authority_id
        # The last token is cached, because most calls ask for the same revision.
        self._token = (Position(b"", Revision(-1)), "")

    def of(self, request: Request, caller: Caller) -> Call:
        """Return the call that a request makes. Raise `InvalidField` if a common field is invalid."""
        has_client, has_reason = _fields(request.DESCRIPTOR)
        seen = decode.client(request.client) if has_client and request.HasField("client") else None
        reason = decode.reason(request.reason) if has_reason and request.reason else ""
        call = self._authority.call(decode.application(request.application), caller, seen, reason)
        note(application=call.application)
        return call

    def validating(self, request: pb.ValidateSessionRequest, caller: Caller) -> Call:
        """Return the call that a validation makes. This is faster than `of`, and validations are far more frequent."""
        seen = decode.client(request.client) if request.HasField("client") else None
        return self._authority.call(decode.application(request.application), caller, seen)

    def at_least(self, text: str) -> Position | None:
        """Return the position of a consistency token; None if `text` is empty. Raise `InvalidField`."""
        return decode_consistency_token(text, self._identity) if text else None

    def consistency_token(self, wanted: Revision) -> str:
        """Return the consistency token of the state at a revision."""
        position = self._authority.parts.feed.position(wanted)
        if self._token[0] != position:
            self._token = (position, encode_consistency_token(self._identity, position))
        return self._token[1]


@cache
def _fields(descriptor: Any) -> tuple[bool, bool]:
    """Return whether a request type has the field `client`, and whether it has the field `reason`."""
    fields = descriptor.fields_by_name
    return "client" in fields, "reason" in fields


class _Service(Protocol):
    """A class whose methods use the decorator `changing`."""

    _calls: Calls


def _note_nothing(trail: Trail, result: object) -> None:
    """The default of `Change.note`."""


@immutable
class Change(Generic[R]):
    """One decoded change: `ask` calls the authority for it, and `fill` writes the result into the response.

    `note` says for the audit log what the change was.
    """

    ask: Callable[[AnswerSpec[R]], Awaitable[R | EncodedAnswer]]
    fill: Callable[[Any, R], None]
    note: Callable[[Trail, R], None] = _note_nothing


_ChangeDecoder = Callable[[S, Call, Any], Change[R]]
_ServiceMethod = Callable[[S, Any, Caller], Awaitable[Message | bytes]]


def changing(response_type: type[Message]) -> Callable[[_ChangeDecoder[S, R]], _ServiceMethod[S]]:
    """Return a decorator that turns a method which decodes a request into a `Change` into a service method.

    A retry with the same `request_id` gets the first response again, byte for byte.
    """

    def decorate(decode_change: _ChangeDecoder[S, R]) -> _ServiceMethod[S]:
        @wraps(decode_change)
        async def method(self: S, request: Any, caller: Caller) -> Message | bytes:
            call = self._calls.of(request, caller)
            change = decode_change(self, call, request)

            trail = caller.trail
            if trail is not None:
                trail.is_repeat = True  # unless a result is encoded

            def encode(result: R) -> Message:
                if trail is not None:
                    trail.is_repeat = False
                    change.note(trail, result)
                message = response_type()
                change.fill(message, result)
                return message

            reply: AnswerSpec[R] = AnswerSpec(
                lambda result: encode(result).SerializeToString(), request_id_of(call, request)
            )
            result = await change.ask(reply)
            return result.message if isinstance(result, EncodedAnswer) else encode(result)

        return method

    return decorate


def note_change(trail: Trail, changed: ChangeResult) -> None:
    """Say which session a change is about, and how it is now; or why nothing was changed."""
    session = changed.session
    if session is None:
        limited = "refused by the limit of concurrent sessions" if changed.limit is not None else ""
        trail.note("", limited or f"unchanged: {changed.verdict.value}")
        return
    who = f"subject {session.subject}" if session.subject else "a guest"
    state = f"generation {session.generation}, data version {session.data_version}"
    trail.note("", f"session {session.id} of {who}, {state}", 1)
