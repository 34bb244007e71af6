"""Arriving messages: a limit on the incomplete messages that gRPC buffers, per connection and in total.

gRPC receives a message once a handler asks for it, and buffers the part that has arrived so far. So every call asks
here first. A call that waits for its turn takes only the memory of its stream's window, 64 KB, and not the 4 MB that a
message may have.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from typing import Any, cast

import grpc

from sessiond.domain.errors import Overloaded
from sessiond.domain.immutable import immutable
from sessiond.rpc.status import status_of

__all__ = ["ArrivalBounds", "Arrivals"]

Context = grpc.aio.ServicerContext[Any, Any]


@immutable
class ArrivalBounds:
    """The limits on messages that arrive at the same time.

    total    the number of messages from all connections
    by_peer  the number from one connection, so that it cannot make the others wait
    seconds  how long a message may take while others wait
    """

    total: int = 128
    by_peer: int = 16
    seconds: float = 2.0


_BOUNDS = ArrivalBounds()


class Arrivals:
    """Receives the messages of calls, a limited number at a time. Connections that wait take turns.

    A call whose message takes longer than `seconds` while others wait is refused. Connections over a Unix socket cannot
    be distinguished and are not limited; the socket's mode controls who may connect.
    """

    def __init__(self, bounds: ArrivalBounds = _BOUNDS) -> None:
        self._bounds = bounds
        self._count = 0
        self._by_peer: dict[str, int] = {}  # like the total, this includes calls that have their turn but not begun
        self._arriving: dict[Context, tuple[str, float]] = {}  # the connection, and the time of its begin
        self._aborts: set[asyncio.Task[None]] = set()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    async def next(self, context: Context, peer: str) -> bytes | None:
        """Return the next message of a call on this connection; None if the caller has ended its side of the call.

        Raise gRPC's AbortError if the message took too long while others waited: the call is RESOURCE_EXHAUSTED then.
        """
        bounded = not peer.startswith("unix:")
        if bounded:
            own = self._by_peer.get(peer, 0)
            if self._count >= self._bounds.total or own >= self._bounds.by_peer or peer in self._waiting:
                await self._turn(peer)
            else:
                self._count += 1
                self._by_peer[peer] = own + 1
            self._arriving[context] = (peer, asyncio.get_running_loop().time())
        try:
            raw = await context.read()
        finally:
            if bounded:
                self._arriving.pop(context, None)
                self._leave(peer)
        return None if raw is grpc.aio.EOF else cast("bytes", raw)

    async def _turn(self, peer: str) -> None:
        """Wait for this call's turn. Its message then counts as arriving."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        self._watch()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget_cancelled(peer)
            else:
                self._leave(peer)  # this call already had its turn
            raise

    def _forget_cancelled(self, peer: str) -> None:
        waiting = self._waiting.get(peer)
        while waiting and waiting[0].cancelled():
            waiting.popleft()
        if waiting is not None and not waiting:
            del self._waiting[peer]

    def _leave(self, peer: str) -> None:
        self._count -= 1
        if left := self._by_peer[peer] - 1:
            self._by_peer[peer] = left
        else:
            del self._by_peer[peer]
        if self._waiting:
            self._give_turns()

    def _give_turns(self) -> None:
        for peer in list(self._waiting):
            if self._count >= self._bounds.total:
                return
            self._forget_cancelled(peer)
            own, waiting = self._by_peer.get(peer, 0), self._waiting.get(peer)
            if waiting and own < self._bounds.by_peer:
                self._count += 1
                self._by_peer[peer] = own + 1
                waiting.popleft().set_result(None)
                self._waiting.move_to_end(peer)
                self._forget_cancelled(peer)

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._bounds.seconds / 4, self._give_up)

    def _give_up(self) -> None:
        """End the calls whose message has been arriving for too long while others wait."""
        self._timer = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._bounds.seconds
        full = self._count >= self._bounds.total
        for context, (peer, since) in list(self._arriving.items()):
            if since <= oldest and (full or peer in self._waiting):
                del self._arriving[context]
                # Not by cancelling the read: gRPC frees what has arrived only when the read ends by itself.
                abort = loop.create_task(_abort(context))
                self._aborts.add(abort)
                abort.add_done_callback(self._aborts.discard)
        self._watch()


async def _abort(context: Context) -> None:
    refusal = Overloaded("too many messages were arriving, and this one took too long; try again soon")
    with suppress(grpc.aio.AbortError, grpc.aio.InternalError, grpc.aio.UsageError):
        await context.abort_with_status(status_of(refusal, context.invocation_metadata()))
