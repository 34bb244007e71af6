"""TCP proxies on loopback that delay, drop and black-hole what passes, at the moment that a test chooses."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from itertools import cycle
from urllib.parse import urlsplit, urlunsplit

__all__ = ["AtCommit", "PostgresProxy", "Proxy", "proxied"]

_PROTOCOL = 3 << 16
_CHUNK = 64 * 1024


class _Ended(Exception):
    """One side has closed the connection."""


class _Link:
    """One connection through a proxy: the task that serves it, and the streams to the client and to the target."""

    def __init__(self, task: asyncio.Task[None], client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.task = task
        self.client = client
        self.server = server
        self.stalled = False

    def close(self) -> None:
        """Reset the client's side. What was sent to the target before still reaches it."""
        self.client.transport.abort()
        self.server.close()


class Proxy:
    """Passes connections on to its targets, `(host, port)` each, by turns.

    request_delay, answer_delay  seconds that each piece of data waits, towards the target and back
    refuses                      whether new connections are closed at once
    accepted                     how many connections were accepted
    port                         where it listens, once it is started
    """

    def __init__(self, *targets: tuple[str, int]) -> None:
        self._targets = cycle(targets)
        self._flows = asyncio.Event()
        self._flows.set()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.request_delay = 0.0
        self.answer_delay = 0.0
        self.refuses = False
        self.accepted = 0
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Drop all connections, and accept no more."""
        if self._listener is not None:
            self._listener.close()
        for link in self._links:
            link.server.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def drop(self) -> None:
        """Drop every connection that is open now. What waits for its delay is lost."""
        for link in list(self._links):
            link.close()
            link.task.cancel()

    def black_hole(self) -> None:
        """Let nothing pass until `heal`: connections stay open, new ones are accepted, and no byte is lost."""
        self._flows.clear()

    def heal(self) -> None:
        """Let everything pass without a delay, what waits first, and accept new connections."""
        self.request_delay = self.answer_delay = 0.0
        self.refuses = False
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            await self._flows.wait()
            if self.refuses:
                return
            answers, server = await asyncio.open_connection(*next(self._targets))
            link = _Link(task, client, server)
            self._links.add(link)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(link, self._requests(reader), towards_target=True))
                    group.create_task(self._pump(link, _chunks(answers), towards_target=False))
            finally:
                self._links.discard(link)
                link.close()
        except* (OSError, _Ended, asyncio.CancelledError):
            pass  # cancelled by `drop` or `stop`
        finally:
            client.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, link: _Link, pieces: AsyncIterator[bytes], *, towards_target: bool) -> None:
        """Pass data on in one direction, each piece after its delay, until either side ends."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            with suppress(OSError):
                async for piece in pieces:
                    await waiting.put((loop.time() + self._delay(towards_target), piece))
            await waiting.put((loop.time() + self._delay(towards_target), b""))

        reading = asyncio.create_task(read())
        try:
            while True:
                due, piece = await waiting.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._flows.wait()
                await (self._request(link, piece) if towards_target else self._answer(link, piece))
        finally:
            reading.cancel()

    def _delay(self, towards_target: bool) -> float:
        return self.request_delay if towards_target else self.answer_delay

    def _requests(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        """Return what the client sends, in pieces."""
        return _chunks(reader)

    async def _request(self, link: _Link, piece: bytes) -> None:
        """Pass a piece on to the target. Raise `_Ended` for an empty one: the client has closed the connection."""
        await _pass_on(link.server, piece)

    async def _answer(self, link: _Link, piece: bytes) -> None:
        """Pass a piece on to the client, as `_request` does to the target."""
        await _pass_on(link.client, piece)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while chunk := await reader.read(_CHUNK):
        yield chunk


async def _pass_on(writer: asyncio.StreamWriter, piece: bytes) -> None:
    if not piece or writer.transport.is_closing():
        raise _Ended
    writer.write(piece)
    with suppress(ConnectionError):
        await writer.drain()


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


class PostgresProxy(Proxy):
    """Passes on the connections to a Postgres, message by message.

    at_commit  what to do with the next COMMIT; None: nothing
    commits    how many COMMITs were passed on or held back
    struck     set when `at_commit` was carried out
    """

    def __init__(self, *targets: tuple[str, int]) -> None:
        super().__init__(*targets)
        self.at_commit: AtCommit | None = None
        self.struck = asyncio.Event()
        self.commits = 0

    def strike(self, what: AtCommit) -> None:
        """Do this to the connection of the next COMMIT, once."""
        self.struck.clear()
        self.at_commit = what

    async def _requests(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        started = False
        with suppress(asyncio.IncompleteReadError):
            while True:
                kind = await reader.readexactly(1) if started else b""
                head = await reader.readexactly(4)
                body = await reader.readexactly(struct.unpack("!I", head)[0] - 4)
                started = started or struct.unpack("!I", body[:4])[0] == _PROTOCOL
                yield kind + head + body

    async def _request(self, link: _Link, piece: bytes) -> None:
        if piece[:1] == b"Q" and piece[5:] == b"COMMIT\0":
            self.commits += 1
            if self.at_commit is not None:
                await self._strike(link, piece)
                return
        await super()._request(link, piece)

    async def _answer(self, link: _Link, piece: bytes) -> None:
        if link.stalled:
            if not piece:
                await asyncio.Future()  # the client must not learn that the server closed the connection
            return
        await super()._answer(link, piece)

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
            link.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[PostgresProxy, str]]:
    """Run a proxy in front of the Postgres at a URL. Return it, and the URL through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    proxy = PostgresProxy((parts.hostname, parts.port or 5432))
    await proxy.start()
    try:
        address = f"{parts.username}@127.0.0.1:{proxy.port}" if parts.username else f"127.0.0.1:{proxy.port}"
        yield proxy, urlunsplit(parts._replace(netloc=address))
    finally:
        with suppress(OSError):
            await proxy.stop()
