"""Notices that the process has forked: gRPC's connections, threads and locks do not survive that in the child."""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakSet

from sessiond_client.errors import ClientForked

__all__ = ["check", "generation", "watch"]

_generation = 0
_watched: WeakSet[Any] = WeakSet()
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


def watch(holder: Any) -> None:
    """Keep an object that holds a channel or a call alive in children."""
    _watched.add(holder)


def _after_in_child() -> None:
    global _generation  # noqa: PLW0603 - one per process, like the process's id
    _generation += 1
    # A copy of the set's own references: to iterate over the WeakSet itself fails if the parent was about to change it.
    references = set(getattr(_watched, "data", ()))
    _inherited.extend(item for item in (reference() for reference in references) if item is not None)


os.register_at_fork(after_in_child=_after_in_child)
