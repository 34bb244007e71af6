"""The open streams of callers, which end when their caller is revoked or changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError

__all__ = ["OpenStreams"]


class OpenStreams:
    """Which tasks serve the streams of which callers.

    `refusal` returns the error with which a stream ends because its caller has changed since it was identified; None if
    the caller has not changed.
    """

    def __init__(self, refusal: Callable[[Caller], AuthorityError | None]) -> None:
        self._refusal = refusal
        self._tasks: dict[str, set[asyncio.Task[Any]]] = {}
        self._ended: set[asyncio.Task[Any]] = set()

    async def serve(self, caller: Caller, serving: Coroutine[Any, Any, None]) -> None:
        """Serve a stream in the current task.

        Raises the refusal if its caller has changed since it was identified, or if `end` is called after a change.
        """
        if (refusal := self._refusal(caller)) is not None:
            # A call may send its first message long after its metadata: `end` did not find it then.
            serving.close()
            raise refusal
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        tasks = self._tasks.setdefault(caller.name, set())
        tasks.add(task)
        try:
            await serving
        except asyncio.CancelledError:
            if task not in self._ended or (refusal := self._refusal(caller)) is None:
                raise  # the transport ends the call
            task.uncancel()
            raise refusal from None
        finally:
            self._ended.discard(task)
            tasks.discard(task)
            if not tasks and self._tasks.get(caller.name) is tasks:
                del self._tasks[caller.name]

    def end(self, names: Collection[str]) -> None:
        """End the streams of these callers that have changed since they were identified."""
        for name in names:
            for task in self._tasks.get(name, set()) - self._ended:
                self._ended.add(task)
                task.cancel()
