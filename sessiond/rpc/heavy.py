"""Heavy messages: reading one freezes the server for as long as it takes, whatever is in it."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar
from weakref import WeakValueDictionary

from google.protobuf.message import Message

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


class HeavyMessages:
    """Reads the messages that are large: one at a time of each connection, with a rest after each that took long.

    The rest is the sender's: other connections' messages are read meanwhile, with a pause between as long as the
    reading took, so that half of the time is left to everybody else however many connections send them.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._senders: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def parse(self, message_type: type[M], raw: bytes, peer: str) -> M:
        """See `wire.parse`; `peer` is the connection that it came from."""
        sender = self._senders.get(peer)
        if sender is None:
            sender = self._senders[peer] = asyncio.Lock()
        async with sender:
            size, message, taken = len(raw), None, 0.0
            try:
                async with self._turn:
                    begun = time.perf_counter()
                    try:
                        message = parse(message_type, raw)
                    finally:
                        del raw
                        taken = time.perf_counter() - begun
                        if message is None or taken > _FREE:
                            await asyncio.sleep(taken)
            finally:
                if message is None or taken > _FREE:
                    await asyncio.sleep((taken + size * _RECEIVING) * _REST)
            return message
