"""Waiting until the cache has applied everything that the authority knows: so that a caller sees its own changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from sessiond_client.errors import NotServed, PermissionDenied, SessiondError, Unauthenticated
from sessiond_client.following import StreamBroken
from sessiond_client.near_cache import NearCache
from sessiond_client.near_stream import Conversation
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Barrier"]

_log = structlog.get_logger(__name__)
ASK_AGAIN = 5.0
"""Seconds after which an authority that refused to be followed is asked again: it may have been upgraded."""


class Barrier(Conversation):
    """The conversation of a sidecar's cache with the authority, in which a caller's change can be waited for.

    The authority sends every event before it answers a renewal, so what was committed before the renewal is applied
    when its grant arrives. Callers that wait at the same time share a renewal.
    """

    def __init__(self, cache: NearCache[Any], name: str) -> None:
        super().__init__(cache, (), name)
        self._near = cache
        self._waiting: asyncio.Future[None] | None = None  # of callers whose renewal is not sent yet
        self._sent: tuple[int, asyncio.Future[None]] | None = None  # the nonce, and of callers that wait for its grant
        self._is_refused = False
        self.send: Callable[[pb.FollowRequest], None] = lambda _: None
        """Sends a message on the stream."""

    async def reached(self) -> None:
        """Wait until the cache has applied everything that is committed now, or is closed."""
        while (left := self._lease_left()) > 0:
            waiting = self._waiting
            if waiting is None:
                waiting = self._waiting = asyncio.get_running_loop().create_future()
                self._renew()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await asyncio.shield(waiting)
                return

    def received(self, message: pb.FollowResponse | None) -> list[pb.FollowRequest]:
        """See `Conversation.received`. gRPC gives None for bytes that are no message."""
        if message is None:
            raise StreamBroken("a message of the stream cannot be parsed")
        replies = super().received(message)
        self._is_refused = False
        if message.WhichOneof("item") == "grant" and self._sent is not None and message.grant.nonce >= self._sent[0]:
            (_, reached), self._sent = self._sent, None
            _settle(reached)
            self._renew()
        return replies

    def broken(self, error: SessiondError | None) -> float:
        """See `Conversation.broken`."""
        pause = super().broken(error)
        for reached in (self._waiting, None if self._sent is None else self._sent[1]):
            if reached is not None:
                _settle(reached)
        self._waiting = self._sent = None
        if not isinstance(error, (NotServed, PermissionDenied, Unauthenticated)):
            return pause
        if not self._is_refused:
            self._is_refused = True
            _log.warning(
                "not followed",
                status=error.status,
                reason=error.message,
                effect="every question goes to the authority",
            )
        return min(pause, ASK_AGAIN)

    def _lease_left(self) -> float:
        return (self._near.follower.lease.until - self.clock()) / 1000

    def _renew(self) -> None:
        if self._waiting is not None and self._sent is None:
            messages = self.due()
            self._sent, self._waiting = (messages[-1].renewal.nonce, self._waiting), None
            for message in messages:
                self.send(message)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
