"""The event stream."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import grpc

from sessiond.authority.reading import Reading
from sessiond.domain.call import Caller
from sessiond.domain.errors import InvalidField, Overloaded, Unavailable
from sessiond.domain.event import Event
from sessiond.rpc import decode, encode
from sessiond.rpc.cursor import decode_cursor, encode_cursor
from sessiond.rpc.stream_limit import StreamLimit
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["EventService"]

Context = grpc.aio.ServicerContext[Any, Any]


class EventService:
    """The call Subscribe.

    If a subscriber leaves a message unread for `write_timeout` seconds, its stream ends.
    """

    def __init__(self, reading: Reading, write_timeout: float, max_subscribers: int = 200) -> None:
        self._reading = reading
        self._write_timeout = write_timeout
        self._limit = StreamLimit(max_subscribers, "subscribers", "server.max_subscribers")

    async def Subscribe(self, request: pb.SubscribeRequest, caller: Caller, context: Context) -> None:
        """Stream the log."""
        with self._limit.counted(caller.peer):
            await self._stream(request, context, caller.name)

    async def _stream(self, request: pb.SubscribeRequest, context: Context, who: str) -> None:
        interval, wanted = decode.checkpoint_interval(request), decode.event_filter(request.filter)
        identity = self._reading.describe().authority_id
        cursor = decode_cursor(request.cursor, identity) if request.WhichOneof("from") == "cursor" else None
        if request.start not in (pb.STREAM_START_UNSPECIFIED, pb.STREAM_START_NOW, pb.STREAM_START_EARLIEST):
            raise InvalidField("start", f"{request.start} is not a value of StreamStart")
        earliest = request.start == pb.STREAM_START_EARLIEST
        items = await self._reading.subscribe(cursor, wanted, interval, earliest=earliest, who=who)
        async with aclosing(items):
            async for item in items:
                response = pb.SubscribeResponse(cursor=encode_cursor(identity, self._reading.position(item.revision)))
                if isinstance(item, Event):
                    encode.fill_event(response.event, item)
                else:
                    response.checkpoint.revision = item.revision
                try:
                    # Not `wait_for`: on Python 3.11 it loses a cancellation that arrives when the write has finished.
                    async with asyncio.timeout(self._write_timeout):
                        await context.write(response)
                except TimeoutError:
                    # Not `abort`: that waits until the subscriber has read what was sent before.
                    raise Overloaded(
                        "the subscriber did not read its stream in time; resume from the last cursor it processed"
                    ) from None
        raise Unavailable("the authority is shutting down; resume from the last cursor")
