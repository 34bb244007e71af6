"""Page size: pages are limited in bytes as well as in entries, because gRPC clients refuse messages over 4 MiB."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

__all__ = ["PAGE_BYTES", "fitting"]

M = TypeVar("M", bound=Message)

PAGE_BYTES = 2 * 1024 * 1024


def fitting(messages: Iterable[M], most: int = PAGE_BYTES) -> list[M]:
    """Return the leading messages that take at most `most` bytes together, and at least the first one."""
    found: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize() + 8  # the field's own tag and length
        if found and size > most:
            break
        found.append(message)
    return found
