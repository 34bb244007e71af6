"""A TCP proxy in front of Postgres that cuts, delays and swallows what passes, at the moment that a test chooses."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

__all__ = ["AtCommit", "Proxy", "proxied"]

_PROTOCOL = 3 << 16
_CHUNK = 65_536


class AtCommit(StrEnum):
    """What happens to the connection of the next COMMIT.

    CUT_BEFORE    the server never gets COMMIT, and learns at once that the connection is closed
    STALL_BEFORE  the server never gets COMMIT, and does not learn that the client is gone
    CUT_AFTER     the server gets COMMIT; the client's connection is closed before the answer
    SWALLOW       the server gets COMMIT; the answer never arrives, and the connection stays open
    """

    CUT_BEFORE = "cut before COMMIT"
    STALL_BEFORE = "stalled before COMMIT"
    CUT_AFTER = "cut after COMMIT"
    SWALLOW = "answer of COMMIT swallowed"


class _Link:
    """One connection through the proxy: the streams to the client and to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.stalled = False

    def cut(self) -> None:
        """Close both sides. What was sent to the server before still reaches it."""
        self.client.transport.abort()
        self.server.close()


class Proxy:
    """Passes on the connections to one Postgres.

    delay      seconds by which everything that passes is delayed, in each direction
    refuses    whether new connections are closed at once
    at_commit  what to do with the next COMMIT; None: nothing
    commits    how many COMMITs were passed on or held back
    accepted   how many connections were accepted
    struck     set when `at_commit` was carried out
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._open = asyncio.Event()
        self._open.set()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.delay = 0.0
        self.refuses = False
        self.at_commit: AtCommit | None = None
        self.struck = asyncio.Event()
        self.commits = 0
        self.accepted = 0
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        assert self._listener is not None
        self._listener.close()
        self.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close every connection that is open now."""
        for link in list(self._links):
            link.cut()

    def swallow(self) -> None:
        """Pass nothing on until `restore`; connections stay open, and new ones are accepted. Nothing is lost."""
        self._open.clear()

    def restore(self) -> None:
        """Pass everything on again, and accept new connections."""
        self.refuses = False
        self._open.set()

    def strike(self, what: AtCommit) -> None:
        """Do this to the connection of the next COMMIT, once."""
        self.struck.clear()
        self.at_commit = what

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            await self._open.wait()
            if self.refuses:
                return
            answers, server = await asyncio.open_connection(self._host, self._port)
            link = _Link(client, server)
            self._links.add(link)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._requests(reader, link))
                    group.create_task(self._answers(answers, link))
            finally:
                self._links.discard(link)
                link.cut()
        except* (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            client.transport.abort()
            self._tasks.discard(task)

    async def _requests(self, reader: asyncio.StreamReader, link: _Link) -> None:
        """Pass on the client's messages one by one."""
        started = False
        while True:
            kind = await reader.readexactly(1) if started else b""
            head = await reader.readexactly(4)
            body = await reader.readexactly(struct.unpack("!I", head)[0] - 4)
            started = started or struct.unpack("!I", body[:4])[0] == _PROTOCOL
            await self._pause()
            if kind == b"Q" and body == b"COMMIT\0":
                self.commits += 1
                if self.at_commit is not None:
                    await self._strike(link, kind + head + body)
                    continue
            link.server.write(kind + head + body)
            await link.server.drain()

    async def _answers(self, answers: asyncio.StreamReader, link: _Link) -> None:
        while chunk := await answers.read(_CHUNK):
            await self._pause()
            if not link.stalled:
                link.client.write(chunk)
                await link.client.drain()
        if link.stalled:
            await asyncio.Future()  # the client must not learn that the server closed the connection
        raise ConnectionResetError("the server closed the connection")

    async def _strike(self, link: _Link, commit: bytes) -> None:
        what, self.at_commit = self.at_commit, None
        link.stalled = True
        if what in (AtCommit.CUT_AFTER, AtCommit.SWALLOW):
            link.server.write(commit)
            await link.server.drain()
        self.struck.set()
        if what is AtCommit.STALL_BEFORE:
            link.client.transport.abort()
            await asyncio.Future()  # until the proxy stops: the server's side stays open
        if what is not AtCommit.SWALLOW:
            link.cut()

    async def _pause(self) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        await self._open.wait()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Run a proxy in front of the Postgres at a URL. Return it, and the URL through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    proxy = Proxy(parts.hostname, parts.port or 5432)
    await proxy.start()
    try:
        address = f"{parts.username}@127.0.0.1:{proxy.port}" if parts.username else f"127.0.0.1:{proxy.port}"
        yield proxy, urlunsplit(parts._replace(netloc=address))
    finally:
        with suppress(OSError):
            await proxy.stop()
