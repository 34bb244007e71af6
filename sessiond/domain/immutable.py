"""How values are declared: small immutable classes that are made many times for each call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

__all__ = ["immutable"]

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def immutable(cls: type[T]) -> type[T]:
    """Declare an immutable value: a dataclass with slots, equal and hashed by its fields; nobody changes one.

    The type checker refuses assignments to its fields, as it does for a frozen dataclass. Python does not: a frozen
    class takes five times as long to make an object of, and CreateSession makes twenty.
    """
    return dataclass(slots=True, unsafe_hash="__hash__" not in cls.__dict__)(cls)
