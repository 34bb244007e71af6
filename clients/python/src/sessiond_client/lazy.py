"""Values whose fields are converted from a message when they are first read.

An application reads few fields of an answer, and converting all of them takes longer than everything else that the
client does for a validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["Lazy", "Readers", "complete", "lazily"]

V = TypeVar("V", bound="Lazy")

Readers = Mapping[str, Callable[[Any], Any]]
"""For each field of a value: the function that reads it from the message."""


_new, _set = object.__new__, object.__setattr__


class Lazy:
    """Base of a frozen dataclass with slots that `lazily` can make.

    Such a value cannot be told from one that was made with all of its fields: Python asks `__getattr__` for a slot that
    is not filled yet, so comparing, copying, pickling and showing it fill the slots that they need.
    """

    __slots__ = ("_source",)

    if not TYPE_CHECKING:  # a type checker would otherwise accept any attribute

        def __getattr__(self, name: str) -> Any:
            if name == "_source":  # a value that was made with all of its fields
                raise AttributeError(name)
            readers, message = self._source
            read = readers.get(name)
            if read is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = read(message)
            _set(self, name, value)
            return value


def lazily(kind: type[V], readers: Readers, message: Any) -> V:
    """A value that reads its fields from the message. It keeps the message, which must not change."""
    value = _new(kind)
    _set(value, "_source", (readers, message))
    return value


def complete(kind: type[V], readers: Readers, message: Any) -> V:
    """A value with all of its fields, which does not keep the message."""
    return kind(**{name: read(message) for name, read in readers.items()})
