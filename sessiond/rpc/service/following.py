"""The stream of changes for caches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc

from sessiond.authority.authority import Authority
from sessiond.authority.following import Granted, News, Started, Stream
from sessiond.domain.call import Caller
from sessiond.domain.errors import InvalidField, Overloaded, Unavailable
from sessiond.domain.event import Event, EventType
from sessiond.domain.position import Position
from sessiond.domain.values import Cause, CauseKind
from sessiond.rpc import decode, encode
from sessiond.rpc.cursor import decode_cursor, encode_cursor
from sessiond.rpc.stream_limit import StreamLimit
from sessiond.system.lru import Lru
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["FollowService"]

Context = grpc.aio.ServicerContext[Any, Any]
_BATCHES_KEPT = 64
_NO_CAUSE = Cause(CauseKind.CONFIGURATION)


class FollowService:
    """The call Follow. A cache that leaves a message unread for `write_timeout` seconds loses its stream."""

    def __init__(self, authority: Authority, write_timeout: float, max_streams: int = 200) -> None:
        self._following = authority.following
        self._feed = authority.parts.feed
        self._identity = authority.parts.store.authority_id
        self._write_timeout = write_timeout
        self._limit = StreamLimit(max_streams, "caches that follow", "server.max_subscribers")
        self._reading: set[asyncio.Task[None]] = set()
        self._batches: Lru[tuple[bytes | int, ...], bytes] = Lru(_BATCHES_KEPT)

    async def Follow(self, requests: AsyncIterator[pb.FollowRequest], caller: Caller, context: Context) -> None:
        """Stream the log to a cache."""
        # Before the stream counts: a caller that is refused before its first message may not see why.
        start = await anext(requests)
        with self._limit.counted(caller.peer):
            if start.WhichOneof("item") != "start":
                raise InvalidField("start", "must be set in the first message, and in no other")
            applications, name = decode.follow_start(start.start)
            cursor = self._position("start.cursor", start.start.cursor) if start.start.cursor else None
            position = await self._following.position(cursor)
            with self._following.stream(position, applications, name, caller.name) as stream:
                # Never cancelled: a read ends with its call, and gRPC leaks what a cancelled one has received.
                reading = asyncio.create_task(self._read(requests, stream), name="follow: read")
                self._reading.add(reading)
                reading.add_done_callback(self._reading.discard)
                await self._write(stream, context)
                if stream.is_ended:
                    return
        raise Unavailable("the authority is shutting down; follow again from the last cursor")

    async def _read(self, requests: AsyncIterator[pb.FollowRequest], stream: Stream) -> None:
        try:
            async for request in requests:
                match request.WhichOneof("item"):
                    case "applied":
                        stream.acknowledge(self._position("applied.cursor", request.applied.cursor))
                    case "renewal":
                        stream.renew(request.renewal.nonce)
                    case "release":
                        stream.release()
                    case "start":
                        raise InvalidField("start", "must be set in the first message only")
                    case _:
                        raise InvalidField("item", "is missing; send an acknowledgement, a renewal or a release")
            stream.end()
        except Exception as error:  # noqa: BLE001 - the writer raises it, and maps it to a status
            stream.end(error)

    def _position(self, field: str, cursor: str) -> Position:
        return decode_cursor(cursor, self._identity, field, "drop everything that is kept, and follow without a cursor")

    async def _write(self, stream: Stream, context: Context) -> None:
        number = 0
        async with aclosing(stream.messages()) as messages:
            async for message, acknowledge in messages:
                number += 1
                cursor = encode_cursor(self._identity, self._feed.published(stream.position))
                response = pb.FollowResponse(cursor=cursor, number=number, acknowledge=acknowledge)
                body = b""
                match message:
                    case Started():
                        response.started.incarnation = message.incarnation.hex()
                        response.started.policies_fingerprint = message.fingerprint
                    case Granted():
                        response.grant.nonce = message.nonce
                        encode.set_duration(response.grant.duration, message.duration)
                    case News() if message.events:
                        body = self._batch(message.events)
                    case News():
                        response.checkpoint.revision = stream.position
                try:
                    # Not `wait_for`: on Python 3.11 it loses a cancellation that arrives when the write has finished.
                    async with asyncio.timeout(self._write_timeout):
                        # One encoded message after another is their combination.
                        await context.write(response.SerializeToString() + body)
                except TimeoutError:
                    # Not `abort`: that waits until the cache has read what was sent before, and keeps its stream.
                    raise Overloaded(
                        "the cache did not read its stream in time; follow again from the last cursor it applied"
                    ) from None

    def _batch(self, events: Sequence[Event]) -> bytes:
        """Return events, encoded. Caches that are equally far ahead share the bytes."""
        # The revisions name the events, except if the end of the log was lost; then the incarnation differs.
        key: tuple[bytes | int, ...] = (self._feed.incarnation.id, *(event.revision for event in events))
        body = self._batches.get(key)
        if body is None:
            body = encode.batch_message([_without_cause(event) for event in events])
            self._batches.put(key, body)
        return body


def _without_cause(event: Event) -> Event:
    """Return an event as caches may see it: which caller or key has changed is not their business."""
    hidden = event.type in (EventType.CALLER_CHANGED, EventType.KEY_RING_CHANGED)
    return replace(event, cause=_NO_CAUSE) if hidden else event
