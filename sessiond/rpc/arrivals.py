"""Messages that are arriving: how many gRPC may hold in part, of one connection and of all together.

gRPC takes a message off its connection once somebody asks for it, and holds what has come so far. So every call asks
here first. While it waits for its turn it costs its stream's window, 64 KB, and not the 4 MB that a message may have.
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
    """How many messages may be arriving at once.

    total    from all connections together
    by_peer  from one connection, so that it cannot make the others wait
    seconds  how long a message may keep others waiting
    """

    total: int = 128
    by_peer: int = 16
    seconds: float = 2.0


_BOUNDS = ArrivalBounds()


class Arrivals:
    """Reads the messages of calls, a bounded number at a time; connections take turns.

    A message that takes longer than `seconds` while others wait is given up. Connections over a Unix socket look alike
    and are not bounded: the socket's mode says who may open one.
    """

    def __init__(self, bounds: ArrivalBounds = _BOUNDS) -> None:
        self._bounds = bounds
        self._count = 0
        self._by_peer: dict[str, int] = {}  # both with those whose turn it is and that have not begun yet
        self._arriving: dict[asyncio.Task[Any], tuple[str, float]] = {}  # from where, and since when
        self._given_up: set[asyncio.Task[Any]] = set()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    async def next(self, context: Context, peer: str) -> bytes | None:
        """Return the next message of a call from this connection; None if the caller has ended its side of the call.

        Raises `Overloaded` if it took too long while others waited.
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
        """Wait for this call's turn, which then counts as arriving."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        self._give_turns()  # those in front may have hung up
        self._watch()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._leave(peer)  # it was this call's turn
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
        """Give up what has been arriving for too long, and keeps others waiting."""
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
