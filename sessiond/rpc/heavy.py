"""Heavy messages: reading one freezes the server for as long as it takes, whatever is in it. They take turns."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

from google.protobuf.message import Message

from sessiond.rpc.wire import parse

__all__ = ["HEAVY_BYTES", "HeavyMessages"]

M = TypeVar("M", bound=Message)
HEAVY_BYTES = 16 * 1024
_REST = 9
"""For how many times as long as it took to read one the next has to wait: a tenth of the time is theirs at most."""
_FREE = 0.001
"""Seconds. A good message that takes less than this is read without a rest: a large batch of questions."""
_RECEIVING = 2e-9
"""Seconds for each byte, about, that gRPC takes for a message before it gets here."""


class HeavyMessages:
    """Reads the messages that are large, one after another, and rests after each that took long."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def parse(self, message_type: type[M], raw: bytes) -> M:
        """See `wire.parse`."""
        async with self._turn:
            begun, size = time.perf_counter(), len(raw)
            message = None
            try:
                message = parse(message_type, raw)
            finally:
                del raw
                taken = time.perf_counter() - begun
                if message is None or taken > _FREE:
                    await asyncio.sleep((taken + size * _RECEIVING) * _REST)
            return message
