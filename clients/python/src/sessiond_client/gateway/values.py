"""Session data as a mapping that knows what was changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from sessiond_client import json_data

__all__ = ["JSON", "Changes", "Codec", "SessionValues"]


class Codec(Protocol):
    """How the values of a session become bytes. One value for each key of the session data."""

    def encode(self, key: str, value: Any) -> bytes:
        """The bytes of a value. Must raise an exception that names the key if the value cannot be written."""
        ...

    def decode(self, key: str, data: bytes) -> Any:
        """The value. Must raise `ValueError` if the bytes are not of this form."""
        ...


class _Json:
    encode = staticmethod(json_data.encode_one)  # not methods: their frames would be part of tracebacks, with the value
    decode = staticmethod(json_data.decode_one)


JSON: Codec = _Json()
"""Each value as JSON, as `sessiond_client.json_data` writes it."""

_IMMUTABLE = (str, int, float, bool, bytes, type(None))
_UNREADABLE = object()


@dataclass(frozen=True, slots=True)
class Changes:
    """What must be written."""

    set: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    delete: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.delete)


class SessionValues(MutableMapping[str, Any]):
    """The data of one session, decoded value by value when it is read.

    Changes inside a value, such as `session["cart"].append("cup")`, count without being announced. A value that the
    codec cannot read was written by something else, and is treated as missing; it stays as it is until it is
    overwritten, or removed by `clear`.
    """

    def __init__(self, stored: Mapping[str, bytes] | None = None, codec: Codec = JSON) -> None:
        self._codec = codec
        self._stored: dict[str, bytes] = dict(stored or {})
        self._read: dict[str, Any] = {}
        self._assigned: set[str] = set()
        self._deleted: set[str] = set()
        self.accessed = False
        """Whether anything was read or written."""

    def __getitem__(self, key: str) -> Any:
        value = self._find(key)
        if value is _UNREADABLE:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"session data: a key is text, not {type(key).__name__}")
        self.accessed = True
        self._read[key] = value
        self._assigned.add(key)
        self._deleted.discard(key)

    def __delitem__(self, key: str) -> None:
        if self._find(key) is _UNREADABLE:
            raise KeyError(key)
        self._read.pop(key, None)
        self._deleted.add(key)

    def __iter__(self) -> Iterator[str]:
        self.accessed = True
        keys = [*self._stored, *(key for key in self._read if key not in self._stored)]
        return iter([key for key in keys if self._find(key) is not _UNREADABLE])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find(key) is not _UNREADABLE

    def __ior__(self, other: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        self.update(other)
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._stored)} stored values>"  # the subject's business, not a log's

    def clear(self) -> None:
        """Remove every value, also those that cannot be read here."""
        self.accessed = True
        self._read.clear()
        self._deleted = set(self._stored)

    def changes(self) -> Changes:
        """What differs from what is stored. Raises what the codec raises for a value that cannot be written."""
        written: dict[str, bytes] = {}
        for key, value in self._read.items():
            if key not in self._assigned and isinstance(value, _IMMUTABLE):
                continue
            try:
                data = self._codec.encode(key, value)
            except Exception:
                del value, written  # the frame is part of the traceback
                raise
            stored = self._stored.get(key)
            if data != stored and (stored is None or data != self._rewritten(key, stored)):
                written[key] = data
        return Changes(written, tuple(sorted(self._deleted & self._stored.keys())))

    def written(self, changes: Changes) -> None:
        """Note that these changes are stored now."""
        self._stored.update(changes.set)
        for key in changes.delete:
            self._stored.pop(key, None)
        self._assigned.clear()
        self._deleted.clear()

    def forget_all(self) -> None:
        """Drop what is stored and what was changed: nothing of it belongs to the session any more."""
        self._stored, self._read = {}, {}
        self._assigned.clear()
        self._deleted.clear()

    def as_unstored(self) -> None:
        """Note that the session in which this was stored is gone: everything that was read counts as new."""
        for key in self._stored:
            self._find(key)
        self._assigned = set(self._read)
        self._stored = {}
        self._deleted.clear()

    def found(self, stored: Mapping[str, bytes]) -> None:
        """Note what the session has stored, if that becomes known later. What was changed before is still written."""
        self._stored = dict(stored)

    def _find(self, key: str) -> Any:
        self.accessed = True
        if key in self._read:
            return self._read[key]
        if key in self._deleted or key not in self._stored:
            return _UNREADABLE
        try:
            value = self._codec.decode(key, self._stored[key])
        except ValueError:
            return _UNREADABLE
        self._read[key] = value
        return value

    def _rewritten(self, key: str, stored: bytes) -> bytes | None:
        """What is stored, as this codec writes it: another program may write the same JSON in another way."""
        try:
            return self._codec.encode(key, self._codec.decode(key, stored))
        except ValueError:
            return None
