"""Pages that fit: bounded by bytes as well as by count, for clients refuse messages of more than 4 MiB."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

__all__ = ["PAGE_BYTES", "fitting"]

M = TypeVar("M", bound=Message)

PAGE_BYTES = 2 * 1024 * 1024


def fitting(messages: Iterable[M], most: int = PAGE_BYTES) -> list[M]:
    """The first of these that take no more than so many bytes together; at least one, if there is one."""
    found: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize() + 8  # the field's own tag and length
        if found and size > most:
            break
        found.append(message)
    return found
