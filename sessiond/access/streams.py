"""The open streams of callers, which end when their caller is revoked or changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from sessiond.domain.call import Caller
from sessiond.domain.errors import Unauthenticated

__all__ = ["OpenStreams"]

_CHANGED = "this caller was changed; call again with its credentials of now"


class OpenStreams:
    """Which tasks serve the streams of which callers. `is_current`: whether a caller has not changed since its call."""

    def __init__(self, is_current: Callable[[Caller], bool] = lambda _: True) -> None:
        self._is_current = is_current
        self._tasks: dict[str, set[asyncio.Task[Any]]] = {}
        self._ended: set[asyncio.Task[Any]] = set()

    async def serve(self, caller: Caller, serving: Coroutine[Any, Any, None]) -> None:
        """Serve a stream in the current task.

        Raises `Unauthenticated` if its caller has changed since it was identified, or if `end` is called for it.
        """
        if not self._is_current(caller):
            # A call may send its first message long after its metadata: `end` did not find it then.
            serving.close()
            raise Unauthenticated(_CHANGED)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        tasks = self._tasks.setdefault(caller.name, set())
        tasks.add(task)
        try:
            await serving
        except asyncio.CancelledError:
            if task not in self._ended:
                raise  # the transport ends the call
            task.uncancel()
            raise Unauthenticated(_CHANGED) from None
        finally:
            self._ended.discard(task)
            tasks.discard(task)
            if not tasks and self._tasks.get(caller.name) is tasks:
                del self._tasks[caller.name]

    def end(self, names: Collection[str]) -> None:
        """End the streams of these callers."""
        for name in names:
            for task in self._tasks.get(name, set()) - self._ended:
                self._ended.add(task)
                task.cancel()
