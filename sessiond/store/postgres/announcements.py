"""Hints between replicas that there are new events, by LISTEN and NOTIFY, off the write path.

A hint may be lost, come late, or never come (behind PgBouncer): replicas also look at the log from time to time.
NOTIFY takes a lock of the whole server at commit, so it is sent by itself, once for all commits since the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sessiond.store.postgres.connections import Connection, Connections
from sessiond.store.postgres.errors import DATABASE_ERRORS

__all__ = ["Announcements"]

_CHANNEL = "sessiond_events"
_RETRY_SECONDS = 1.0


class Announcements:
    """Sends and receives hints on a connection of its own, which it opens again when it is lost."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._due = asyncio.Event()
        self._hint: Callable[[], None] = lambda: None
        self._task: asyncio.Task[None] | None = None

    def announce(self) -> None:
        """Send a hint soon."""
        self._due.set()

    def start(self, hint: Callable[[], None]) -> None:
        """Begin to send and receive. `hint` is called for each hint of another replica."""
        self._hint = hint
        if self._connections.can_listen:
            self._task = asyncio.create_task(self._run(), name="announcements")

    async def stop(self) -> None:
        """Stop sending and receiving."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await self._connections.open()
                await self._serve(connection)
            except DATABASE_ERRORS:
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                if connection is not None:
                    connection.terminate()

    async def _serve(self, connection: Connection) -> None:
        mine = connection.get_server_pid()
        await connection.add_listener(_CHANNEL, lambda _, sender, *__: None if sender == mine else self._hint())
        connection.add_termination_listener(lambda _: self._due.set())
        self._hint()  # what was announced while there was no connection is unknown
        while not connection.is_closed():
            await self._due.wait()
            self._due.clear()
            await connection.execute(f"NOTIFY {_CHANNEL}")
