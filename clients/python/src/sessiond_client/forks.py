"""Notices that the process has forked: gRPC's connections, threads and locks do not survive that in the child."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from sessiond_client.errors import ClientForked

__all__ = ["asyncio_closed", "asyncio_opened", "calling", "check", "check_new", "generation", "watch"]

_generation = 0
_watched: WeakSet[Any] = WeakSet()
_open_asyncio: WeakSet[Any] = WeakSet()
_calling: list[None] = []
"""An item for each call of a `Client` under way: appending and popping are atomic."""
_lost = ""
_asyncio_lost = ""
"""Why no client, or no `AsyncClient`, can be used in this process; empty if one can."""
_inherited: list[Any] = []
"""What the parent had open. A child keeps it alive: to release it would wait for threads that the child has not got."""


def generation() -> int:
    """How often this process and its ancestors have forked, each counted in the child."""
    return _generation


def check(born: int) -> None:
    """Raise `ClientForked` in a child of the process that was in this generation."""
    if born != _generation:
        raise ClientForked(
            "this client was used before the process forked: make a new client in the child process",
            status="FAILED_PRECONDITION",
        )


def check_new(*, asynchronous: bool) -> None:
    """Raise `ClientForked` if gRPC would hang or crash in this process, as the fork came at a bad moment."""
    reason = _lost or (_asyncio_lost if asynchronous else "")
    if reason:
        raise ClientForked(reason, status="FAILED_PRECONDITION")


@contextmanager
def calling() -> Iterator[None]:
    """A thread is inside gRPC."""
    _calling.append(None)
    try:
        yield
    finally:
        if _calling:
            _calling.pop()


def asyncio_opened(holder: Any) -> None:
    """An `AsyncClient` has opened a channel."""
    _open_asyncio.add(holder)


def asyncio_closed(holder: Any) -> None:
    """An `AsyncClient` has closed all its channels: a fork is safe again."""
    _open_asyncio.discard(holder)


def watch(holder: Any) -> None:
    """Keep an object that holds a channel or a call alive in children."""
    _watched.add(holder)


def _after_in_child() -> None:
    global _generation, _lost, _asyncio_lost  # noqa: PLW0603 - one per process, like the process's id
    _generation += 1
    if _calling:
        _calling.clear()
        _lost = (
            "gRPC does not survive a fork while other threads make calls, as in the parent of this process: fork"
            " between calls, or start processes by the method 'spawn'"
        )
    if getattr(_open_asyncio, "data", ()):
        _asyncio_lost = (
            "gRPC for asyncio does not survive a fork, and the parent process had an open AsyncClient: close it before"
            " the fork, use Client here, or start processes by the method 'spawn'"
        )
    # A copy of the set's own references: to iterate over the WeakSet itself fails if the parent was about to change it.
    references = set(getattr(_watched, "data", ()))
    _inherited.extend(item for item in (reference() for reference in references) if item is not None)


os.register_at_fork(after_in_child=_after_in_child)
