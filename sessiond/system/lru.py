"""A bounded map, for keys that clients can create in any number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Lru"]

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A map of at most `capacity` entries. When it is full, the least recently used entry is removed.

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
        """Iterate over the keys, the least recently used first. Entries must not be added or removed meanwhile."""
        return iter(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value, or None if there is none. Counts as use."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def peek(self, key: K) -> V | None:
        """Return the value, or None if there is none. Does not count as use."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Store a value. Counts as use."""
        entries = self._entries
        entries[key] = value
        entries.move_to_end(key)
        if len(entries) > self._capacity:
            entries.popitem(last=False)

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()

    def pop(self, key: K) -> V | None:
        """Remove and return a value, or return None if there is none."""
        return self._entries.pop(key, None)
