"""Arriving messages: a limit on the incomplete messages that gRPC buffers, per connection and in total.

gRPC receives a message once a handler asks for it, and buffers the part that has arrived so far. So every call asks
here first. A call that waits for its turn takes only the memory of its stream's window, 64 KB, and not the 4 MB that a
message may have.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Any, cast

import grpc

from sessiond.domain.errors import Overloaded
from sessiond.domain.immutable import immutable

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
        self._arriving: dict[asyncio.Task[Any], tuple[str, float]] = {}  # the connection, and the time of its begin
        self._given_up: set[asyncio.Task[Any]] = set()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    async def next(self, context: Context, peer: str) -> bytes | None:
        """Return the next message of a call on this connection; None if the caller has ended its side of the call.

        Raise `Overloaded` if the message took too long while others waited.
        """
        bounded = not peer.startswith("unix:")
        if bounded:
            own = self._by_peer.get(peer, 0)
            if self._count >= self._bounds.total or own >= self._bounds.by_peer or peer in self._waiting:
                await self._turn(peer)
            else:
                self._count += 1
                self._by_peer[peer] = own + 1
            task = cast("asyncio.Task[Any]", asyncio.current_task())
            self._arriving[task] = (peer, asyncio.get_running_loop().time())
        try:
            raw = await context.read()
        except asyncio.CancelledError:
            if not bounded or task not in self._given_up or task.uncancel():
                raise
            raise Overloaded("too many messages were arriving, and this one took too long; try again soon") from None
        finally:
            if bounded:
                del self._arriving[task]
                self._given_up.discard(task)
                self._leave(peer)
        return None if raw is grpc.aio.EOF else cast("bytes", raw)

    async def _turn(self, peer: str) -> None:
        """Wait for this call's turn. Its message then counts as arriving."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        self._give_turns()  # callers ahead may have disconnected
        self._watch()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._leave(peer)  # this call already had its turn
            raise

    def _leave(self, peer: str) -> None:
        self._count -= 1
        if left := self._by_peer[peer] - 1:
            self._by_peer[peer] = left
        else:
            del self._by_peer[peer]
        if self._waiting:
            self._give_turns()

    def _give_turns(self) -> None:
        for peer, waiting in list(self._waiting.items()):
            while waiting and waiting[0].cancelled():
                waiting.popleft()
            own = self._by_peer.get(peer, 0)
            if waiting and own < self._bounds.by_peer and self._count < self._bounds.total:
                self._count += 1
                self._by_peer[peer] = own + 1
                waiting.popleft().set_result(None)
                self._waiting.move_to_end(peer)
            if not waiting:
                del self._waiting[peer]

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._bounds.seconds / 4, self._give_up)

    def _give_up(self) -> None:
        """Cancel the calls whose message has been arriving for too long while others wait."""
        self._timer = None
        if not self._waiting:
            return
        oldest = asyncio.get_running_loop().time() - self._bounds.seconds
        full = self._count >= self._bounds.total
        for task, (peer, since) in list(self._arriving.items()):
            if since <= oldest and task not in self._given_up and (full or peer in self._waiting):
                self._given_up.add(task)
                task.cancel()
        self._watch()
