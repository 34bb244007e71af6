"""Heavy messages: parsing a large message blocks the event loop until it is done."""

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
"""The size from which on a message is treated as heavy."""
_SENDER_PAUSE = 9
"""The pause before the next message of the same connection, as a multiple of the time that the last one took."""
_NO_PAUSE_BELOW = 0.001
"""Seconds. No pause follows a well-formed message that parses faster than this, such as a large batch of questions."""
_RECEIVE_SECONDS_PER_BYTE = 2e-9
"""The approximate time per byte that gRPC takes to receive a message before it is parsed here."""
_MAX_WAITING_BYTES = 128_000_000
"""The bytes of messages that may wait to be parsed, from all connections; one connection may have half of them."""


class _Sender:
    """One connection. Its messages are parsed one at a time."""

    def __init__(self) -> None:
        self.parsing = asyncio.Lock()
        self.waiting_bytes = 0

    def release(self) -> None:
        """Let the connection's next message be parsed."""
        self.parsing.release()


class HeavyMessages:
    """Parses heavy messages: one at a time for each connection, with a pause after each one that took long.

    The long pause applies to the sender's connection only; messages of other connections are parsed meanwhile. Between
    any two messages that took long there is a pause as long as the parsing took. So at least half of the time is left
    for all other work, no matter how many connections send heavy messages.
    """

    def __init__(self, max_waiting_bytes: int = _MAX_WAITING_BYTES) -> None:
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting_bytes = 0
        self._parsing = asyncio.Lock()
        self._senders: WeakValueDictionary[str, _Sender] = WeakValueDictionary()

    async def parse(self, message_type: type[M], raw: bytes, peer: str) -> M:
        """Parse a message as `wire.parse` does. `peer` identifies the connection that it was received on.

        Raise `Overloaded` if too many bytes are already waiting.
        """
        sender = self._senders.get(peer)
        if sender is None:
            sender = self._senders[peer] = _Sender()
        size = len(raw)
        most, most_of_sender = self._max_waiting_bytes, self._max_waiting_bytes // 2
        if self._waiting_bytes and (self._waiting_bytes + size > most or sender.waiting_bytes + size > most_of_sender):
            raise Overloaded("too many large messages are waiting; try again soon")
        self._waiting_bytes += size
        sender.waiting_bytes += size
        try:
            await sender.parsing.acquire()
            try:
                await self._parsing.acquire()
            except BaseException:
                sender.parsing.release()
                raise
        finally:
            self._waiting_bytes -= size
            sender.waiting_bytes -= size
        return self._parse(message_type, raw, sender)

    def _parse(self, message_type: type[M], raw: bytes, sender: _Sender) -> M:
        """Parse the message whose turn it is, and let others parse after the pauses.

        The pauses are not the caller's: it gets its result at once, and cannot shorten them by hanging up.
        """
        begun, message = time.perf_counter(), None
        try:
            message = parse(message_type, raw)
            return message
        finally:
            taken = time.perf_counter() - begun
            pauses = message is None or taken > _NO_PAUSE_BELOW
            receiving = len(raw) * _RECEIVE_SECONDS_PER_BYTE
            loop = asyncio.get_running_loop()
            loop.call_later(taken if pauses else 0, self._parsing.release)
            # The callback holds the sender, which is forgotten with its last message.
            loop.call_later((taken + receiving) * _SENDER_PAUSE if pauses else 0, sender.release)
