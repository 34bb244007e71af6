"""Bounded memory: what is kept of things that anybody can make any number of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Lru"]

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A map of at most `capacity` entries; the one that was used least recently goes first.

    Reading with `get` and writing with `put` count as use; `peek` and iteration do not.
    """

    __slots__ = ("_capacity", "_entries")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self._capacity = capacity
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        """The keys, the least recently used first. Nothing may be added or removed meanwhile."""
        return iter(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which counts as used now."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def peek(self, key: K) -> V | None:
        """The value; not a use."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, which counts as used now."""
        entries = self._entries
        entries[key] = value
        entries.move_to_end(key)
        if len(entries) > self._capacity:
            entries.popitem(last=False)

    def pop(self, key: K) -> V | None:
        """Forget a value; what it was."""
        return self._entries.pop(key, None)
