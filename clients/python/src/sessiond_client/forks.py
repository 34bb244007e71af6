"""Detects that the process has forked: gRPC's connections, threads and locks do not work in the child."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from sessiond_client.errors import ClientForked

__all__ = [
    "asyncio_closed",
    "asyncio_opened",
    "check",
    "check_new",
    "close_in_children",
    "fork_count",
    "in_grpc",
    "keep_in_children",
]

_fork_count = 0
_kept_in_children: WeakSet[Any] = WeakSet()
_open_asyncio: WeakSet[Any] = WeakSet()
_near_caches: WeakSet[Any] = WeakSet()
_calls_in_grpc: list[None] = []
"""An item for each call of a `Client` under way: appending and popping are atomic."""
_unusable = ""
_asyncio_unusable = ""
"""Why no client (`_unusable`) or no `AsyncClient` can be used in this process; empty if one can."""
_inherited: list[Any] = []
"""What the parent had open. The child keeps it alive: releasing it would wait for threads that it does not have."""


def fork_count() -> int:
    """How many forks separate the first process from this one: one more in each child."""
    return _fork_count


def check(count: int) -> None:
    """Raise `ClientForked` if the process has forked since `fork_count` returned this count."""
    if count != _fork_count:
        raise ClientForked(
            "this client was used before the process forked: create a new client in the child process",
            status="FAILED_PRECONDITION",
        )


def check_new(*, asynchronous: bool) -> None:
    """Raise `ClientForked` if gRPC would hang or crash in this process because of when its parent forked."""
    reason = _unusable or (_asyncio_unusable if asynchronous else "")
    if reason:
        raise ClientForked(reason, status="FAILED_PRECONDITION")


@contextmanager
def in_grpc() -> Iterator[None]:
    """Mark the calling thread as inside gRPC."""
    _calls_in_grpc.append(None)
    try:
        yield
    finally:
        if _calls_in_grpc:
            _calls_in_grpc.pop()


def asyncio_opened(holder: Any) -> None:
    """Note that an `AsyncClient` has opened a channel."""
    _open_asyncio.add(holder)


def asyncio_closed(holder: Any) -> None:
    """Note that an `AsyncClient` has closed all its channels: it no longer makes a fork unsafe."""
    _open_asyncio.discard(holder)


def keep_in_children(holder: Any) -> None:
    """Keep an object that holds a channel or a call alive in children."""
    _kept_in_children.add(holder)


def close_in_children(cache: Any) -> None:
    """Close a near cache that is fed in this process in children, because nobody feeds it there."""
    _near_caches.add(cache)


def _after_in_child() -> None:
    global _fork_count, _unusable, _asyncio_unusable  # noqa: PLW0603 - one per process, like the process's id
    _fork_count += 1
    for cache in [reference() for reference in set(getattr(_near_caches, "data", ()))]:
        if cache is not None:
            cache.close_for_good()
    if _calls_in_grpc:
        _calls_in_grpc.clear()
        _unusable = (
            "the parent process forked while another thread was making a gRPC call, so gRPC cannot be used here: fork"
            " between calls, or start processes by the method 'spawn'"
        )
    if getattr(_open_asyncio, "data", ()):
        _asyncio_unusable = (
            "the parent process forked with an open AsyncClient, so gRPC for asyncio cannot be used here: close it"
            " before the fork, use Client here, or start processes by the method 'spawn'"
        )
    # Copies the set's own references: iterating over the WeakSet itself fails if the parent was just changing it.
    references = set(getattr(_kept_in_children, "data", ()))
    _inherited.extend(item for item in (reference() for reference in references) if item is not None)


os.register_at_fork(after_in_child=_after_in_child)
