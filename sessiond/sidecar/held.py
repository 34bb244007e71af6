"""The limit on large messages that a sidecar holds while they are on their way to the authority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sessiond.domain.errors import Overloaded
from sessiond.rpc.heavy import HEAVY_BYTES

__all__ = ["HeldBytes"]


class HeldBytes:
    """Counts the bytes of messages from 16 KB on. At most half of `most` may be from one connection."""

    def __init__(self, most: int = 128_000_000) -> None:
        self._most = most
        self._by_peer: Counter[str] = Counter()

    @contextmanager
    def counted(self, peer: str, size: int) -> Iterator[None]:
        """Count a message for the duration of the block. Raises `Overloaded` if there are too many bytes."""
        if size < HEAVY_BYTES:
            yield
            return
        total, own = self._by_peer.total(), self._by_peer[peer]
        if total + size > self._most or own + size > self._most // 2:
            raise Overloaded("too many large messages are on their way to the authority; try again soon")
        self._by_peer[peer] += size
        try:
            yield
        finally:
            self._by_peer[peer] -= size
            if not self._by_peer[peer]:
                del self._by_peer[peer]
