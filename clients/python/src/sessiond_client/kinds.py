"""Restrictions on arguments beyond their Python type. Annotations use them; `arguments` checks them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

__all__ = ["AnyText", "Between", "Collection", "Each", "Int32", "Items", "Lenient", "Seconds", "UInt64"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Between:
    """A number from `least` to `most`."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Lenient:
    """Text from an untrusted client: lone surrogates and U+0000 are replaced by question marks, not refused."""


@dataclass(frozen=True, slots=True)
class Each:
    """Any iterable of the type, except `str` and `bytes`, whose items would be single characters."""


class Collection(Protocol[T_co]):
    """A collection other than `str`: type checkers distinguish the two by `__contains__`, which `str` restricts."""

    def __contains__(self, item: object, /) -> bool: ...
    def __iter__(self) -> Iterator[T_co]: ...
    def __len__(self) -> int: ...


Items = Annotated[Collection[T] | Iterator[T], Each()]
"""A list, tuple, set, generator or the like, but not a `str`; type checkers know that too."""

Int32 = Annotated[int, Between(-(2**31), 2**31 - 1)]
UInt64 = Annotated[int, Between(0, 2**64 - 1)]
Seconds = Annotated[float, Between(0, 10**9)]
AnyText = Annotated[str, Lenient()]
