"""The open streams of callers, which end when their caller is revoked or changed, or what proved it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError

__all__ = ["OpenStreams"]

_LOOK_EVERY = 1.0
"""Seconds between two looks at streams whose callers are proved by something that expires."""


class OpenStreams:
    """Which tasks serve the streams of which callers.

    `refusal` returns the error with which a stream ends because its caller has changed since it was identified, or is
    not proved any more; None if neither is so.
    """

    def __init__(self, refusal: Callable[[Caller], AuthorityError | None]) -> None:
        self._refusal = refusal
        self._tasks: dict[str, set[asyncio.Task[Any]]] = {}
        self._ended: set[asyncio.Task[Any]] = set()
        self._expiring: dict[asyncio.Task[Any], Caller] = {}  # and those whose certificate may be withdrawn
        self._timer: asyncio.TimerHandle | None = None

    async def serve(self, caller: Caller, serving: Coroutine[Any, Any, None]) -> None:
        """Serve a stream in the current task.

        Raises the refusal if its caller has changed since it was identified, if `end` is called after a change, or when
        what proved the caller has expired.
        """
        if (refusal := self._refusal(caller)) is not None:
            # A call may send its first message long after its metadata: `end` did not find it then.
            serving.close()
            raise refusal
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        tasks = self._tasks.setdefault(caller.name, set())
        tasks.add(task)
        if caller.until is not None:
            self._expiring[task] = caller
            self._watch()
        try:
            await serving
        except asyncio.CancelledError:
            if task not in self._ended or (refusal := self._refusal(caller)) is None:
                raise  # the transport ends the call
            task.uncancel()
            raise refusal from None
        finally:
            self._ended.discard(task)
            self._expiring.pop(task, None)
            tasks.discard(task)
            if not tasks and self._tasks.get(caller.name) is tasks:
                del self._tasks[caller.name]

    def end(self, names: Collection[str]) -> None:
        """End the streams of these callers that have changed since they were identified."""
        for name in names:
            for task in self._tasks.get(name, set()) - self._ended:
                self._cancel(task)

    def look(self) -> None:
        """End the streams whose callers are not proved any more."""
        for task, caller in self._expiring.items():
            if task not in self._ended and self._refusal(caller) is not None:
                self._cancel(task)

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        self._ended.add(task)
        task.cancel()

    def _watch(self) -> None:
        # The authority's clock is not that of the event loop, so a single timer until the end would not do.
        if self._timer is None and self._expiring:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self.look()
        self._watch()
