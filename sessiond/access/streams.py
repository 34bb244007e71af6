"""The open streams of callers, which end when their caller is revoked or changed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any

from sessiond.domain.call import Caller
from sessiond.domain.errors import Unauthenticated

__all__ = ["OpenStreams"]


class OpenStreams:
    """Which tasks serve the streams of which callers."""

    def __init__(self) -> None:
        self._tasks: dict[str, set[asyncio.Task[Any]]] = {}
        self._ended: set[asyncio.Task[Any]] = set()

    async def serve(self, caller: Caller, serving: Coroutine[Any, Any, None]) -> None:
        """Serve a stream in the current task. Raises `Unauthenticated` if `end` is called for its caller meanwhile."""
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
            raise Unauthenticated("this caller was changed; call again with its credentials of now") from None
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
