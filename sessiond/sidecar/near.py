"""What a sidecar answers from memory: validations, found by the bytes of their requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b

import grpc
from google.protobuf.message import DecodeError

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Entropy
from sessiond.rpc.heavy import HEAVY_BYTES
from sessiond.sidecar.upstream import Metadata, Reply, passed_on
from sessiond_client.near_cache import Fill, NearCache, network_of
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["NearAnswers", "Question", "has_signals"]

Send = Callable[[bytes], Awaitable[Reply]]

_AT_LEAST = pb.ValidateSessionRequest.DESCRIPTOR.fields_by_name["at_least"].number << 3 | 2
_SAYS_NOTHING_OF_THE_CALLER = {"traceparent", "tracestate", "baggage", "x-request-id"}
"""Metadata that differs from call to call. Everything else may say who calls, so it is part of the question."""
_REFUSED_POSITION = (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT)


@immutable
class Question:
    """A validation whose answer may be kept. `network` is that of the client, as the authority would lock it."""

    digest: bytes
    raw: bytes
    network: str


class NearAnswers:
    """Validations from memory. The bytes of a request are the question, the bytes of the response the answer.

    A question is kept under a digest with a key of this process, so nothing here holds a token of a request. Only an
    answer that says for how long it may be reused is kept, and only if nothing that concerns it has changed meanwhile.
    """

    def __init__(self, cache: NearCache[bytes], entropy: Entropy) -> None:
        self._cache = cache
        self._key = entropy(32)
        self._asked: dict[bytes, asyncio.Event] = {}

    def digest(self, raw: bytes, metadata: Metadata | None) -> bytes:
        """Return the key of a question: of its bytes, and of everything that may say who asks."""
        callers = [item for item in passed_on(metadata) if item[0] not in _SAYS_NOTHING_OF_THE_CALLER]
        if not callers:
            return blake2b(raw, digest_size=16, key=self._key).digest()
        named = repr(sorted(map(repr, callers))).encode()  # has no NUL
        return blake2b(named + b"\0" + raw, digest_size=16, key=self._key, person=b"named").digest()

    def known(self, digest: bytes) -> bytes | None:
        """Return the answer, if the cache may answer and has it."""
        return self._cache.get(digest, None)

    def question(self, digest: bytes, raw: bytes) -> Question | None:
        """Return what to ask so that the answer can be kept; None if the authority itself must answer."""
        if len(raw) >= HEAVY_BYTES:
            return None
        try:
            request = pb.ValidateSessionRequest.FromString(raw)
            network = network_of(request.client.ip_address)
        except (DecodeError, ValueError):
            return None
        required = request.requirements
        if request.at_least or required.HasField("companion") or required.HasField("csrf"):
            return None
        return Question(digest, raw, network)

    async def ask(self, question: Question, send: Send) -> Reply:
        """Ask the authority and keep the answer if it may be kept. Of several equal questions, one is asked.

        Raises what `send` raises.
        """
        digest = question.digest
        flight = self._asked.get(digest)
        if flight is not None:
            await flight.wait()
            known = self.known(digest)
            return await self._filled(question, send) if known is None else Reply(known, (), ())
        flight = self._asked[digest] = asyncio.Event()
        try:
            return await self._filled(question, send)
        finally:
            del self._asked[digest]
            flight.set()

    async def _filled(self, question: Question, send: Send) -> Reply:
        fill = self._cache.begin(question.digest, None)
        if fill is None:
            return await send(question.raw)
        try:
            reply = await send(question.raw + _at_least(fill.at_least))
            self._keep(fill, question, reply.body)
            return reply
        except grpc.aio.AioRpcError as error:
            # Behind a balancer, the server that was asked may not know the log that is followed.
            if error.code() not in _REFUSED_POSITION:
                raise
        finally:
            self._cache.end(fill)
        return await send(question.raw)

    def _keep(self, fill: Fill, question: Question, body: bytes) -> None:
        try:
            response = pb.ValidateSessionResponse.FromString(body)
        except DecodeError:
            return  # the caller finds out
        if response.HasField("cacheable_for") and response.session.session_id:
            self._cache.keep(
                fill,
                body,
                session=response.session.session_id,
                application=response.session.application,
                network=question.network,
                ms=response.cacheable_for.ToMilliseconds(),
                size=len(body),
            )


def has_signals(body: bytes) -> bool:
    """Return whether a validation raised signals. The authority may have reacted by ending sessions."""
    try:
        return bool(pb.ValidateSessionResponse.FromString(body).signals)
    except DecodeError:
        return True


def _at_least(position: str) -> bytes:
    """Return the field `at_least`, to append to a request that does not have it."""
    value = position.encode()
    return bytes((_AT_LEAST, *_varint(len(value)))) + value


def _varint(number: int) -> list[int]:
    found = []
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return [*found, number]
