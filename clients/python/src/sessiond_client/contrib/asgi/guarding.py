"""Ending a live connection (a WebSocket, an event stream) when its session ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sessiond_client.errors import SessiondError
from sessiond_client.guard import AsyncConnectionGuard, Closing, SessionOver
from sessiond_client.values import Session

__all__ = ["Guarded"]

_log = logging.getLogger("sessiond_client")
_watching: set[asyncio.Task[None]] = set()


class Guarded:
    """One call of the application, which is cancelled when the session of its connection ends.

    `closing` then says why. Nothing is watched before `watch` is called.
    """

    def __init__(self, guard: AsyncConnectionGuard) -> None:
        self.closing: Closing | None = None
        self._guard = guard
        self._task = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None

    def watch(self, session: Session) -> None:
        """Watch this session from now on. Does not wait, so that a connection begins without delay."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(session), name="sessiond: watch a connection")
            _watching.add(self._watching)  # the event loop itself keeps no task alive
            self._watching.add_done_callback(_watching.discard)

    def is_ours(self, error: asyncio.CancelledError) -> bool:
        """Whether this cancelled the call, and not the server. If so, the task goes on."""
        del error
        if self.closing is None or self._task is None:
            return False
        self._task.uncancel()
        return True

    def release(self) -> None:
        """The call has ended: stop watching. Does not wait: a server may cancel a call that goes on after its end."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, session: Session) -> None:
        watch: Any = None
        try:
            watch = await self._guard.watch(session)
            self.closing = await watch.closed()
        except SessionOver:
            self.closing = Closing.ENDED
        except SessiondError as error:
            # Such as a caller that may not subscribe: what cannot be watched must not stay open.
            _log.warning("a live connection cannot be watched, and is closed: %s", error)
            self.closing = Closing.BLIND
        finally:
            if watch is not None:
                watch.release()
        if self._task is not None:
            self._task.cancel()
