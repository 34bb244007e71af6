"""Heavy messages: reading one freezes the server for as long as it takes, whatever is in it."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from sessiond.domain.errors import Overloaded
from sessiond.rpc.wire import parse

__all__ = ["HEAVY_BYTES", "HeavyMessages"]

M = TypeVar("M", bound=Message)
HEAVY_BYTES = 16 * 1024
_REST = 9
"""For how many times as long as it took to read one the same connection's next has to wait."""
_FREE = 0.001
"""Seconds. A good message that takes less than this is read without a rest: a large batch of questions."""
_RECEIVING = 2e-9
"""Seconds for each byte, about, that gRPC takes for a message before it gets here."""
_HELD = 128_000_000
"""Bytes of messages that may wait to be read, of all connections; of one connection half of them."""


class _Sender:
    """One connection: its messages are read one after the other."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.held = 0


class HeavyMessages:
    """Reads the messages that are large: one at a time of each connection, with a rest after each that took long.

    The rest is the sender's: other connections' messages are read meanwhile, with a pause between as long as the
    reading took, so that half of the time is left to everybody else however many connections send them.
    """

    def __init__(self, held: int = _HELD) -> None:
        self._most = held
        self._held = 0
        self._turn = asyncio.Lock()
        self._senders: WeakValueDictionary[str, _Sender] = WeakValueDictionary()

    async def parse(self, message_type: type[M], raw: bytes, peer: str) -> M:
        """See `wire.parse`; `peer` is the connection that it came from.

        Raises `Overloaded` if too many bytes of others wait already.
        """
        sender = self._senders.get(peer)
        if sender is None:
            sender = self._senders[peer] = _Sender()
        size = len(raw)
        if self._held and (self._held + size > self._most or sender.held + size > self._most // 2):
            raise Overloaded("too many large messages at once; try again soon")
        self._held += size
        sender.held += size
        waits = True
        try:
            async with sender.turn:
                message, taken = None, 0.0
                try:
                    async with self._turn:
                        begun = time.perf_counter()
                        try:
                            message = parse(message_type, raw)
                        finally:
                            del raw
                            waits = self._release(sender, size)
                            taken = time.perf_counter() - begun
                            if message is None or taken > _FREE:
                                await asyncio.sleep(taken)
                finally:
                    if message is None or taken > _FREE:
                        await asyncio.sleep((taken + size * _RECEIVING) * _REST)
                return message
        finally:
            if waits:
                self._release(sender, size)

    def _release(self, sender: _Sender, size: int) -> bool:
        self._held -= size
        sender.held -= size
        return False
