"""Connections to Postgres: a pool for reads, one connection for the writer, and what both have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from sessiond.config.store_address import PostgresAddress
from sessiond.store.contract import StoreUnavailable
from sessiond.store.postgres.errors import DATABASE_ERRORS, Meaning, described, meaning_of

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

__all__ = ["MAX_READERS", "Connection", "Connections"]

MAX_READERS = 8
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = 5.0
"""Seconds after which a statement without an answer is given up, and its connection with it."""
_SETTINGS = {
    # A replica that was stopped or cut off in the middle of a transaction must not hold the log's head for long.
    "idle_in_transaction_session_timeout": "3s",
    "statement_timeout": "10s",
    "lock_timeout": "4s",
}
_BEGIN = "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in _SETTINGS.items())])


class Connections:
    """Opens connections to one database, and keeps some for reads, at most `most` of them."""

    def __init__(self, address: PostgresAddress, most: int = MAX_READERS) -> None:
        self._address = address
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(most)
        self._closed = False

    @property
    def can_listen(self) -> bool:
        """Return whether a connection can receive notifications."""
        return not self._address.pgbouncer

    async def open(self) -> Connection:
        """Open a connection to the server that takes writes. Raises one of `DATABASE_ERRORS`.

        All servers are tried at the same time: one that does not answer must not hold up the others.
        """
        attempts = {asyncio.create_task(self._connect(url)): url for url in self._address.servers}
        pending = set(attempts)
        try:
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    if attempt.exception() is None:
                        del attempts[attempt]
                        return attempt.result()
            raise _together({url: attempt.exception() for attempt, url in attempts.items()})
        finally:
            await _abandon(attempts)

    async def _connect(self, url: str) -> Connection:
        # PgBouncer has connections of its own to the server: what is set or prepared on one is not there on the next.
        # It also chooses the server itself.
        behind = self._address.pgbouncer
        try:
            connection: Connection = await asyncpg.connect(
                url,
                timeout=_CONNECT_SECONDS,
                command_timeout=_ANSWER_SECONDS,
                statement_cache_size=0 if behind else 200,
                server_settings={} if behind else {"application_name": "sessiond", **_SETTINGS},
                # A standby may be behind: it must answer nothing, though it would answer reads.
                target_session_attrs=None if behind else SessionAttribute.read_write,
            )
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise ConnectionError("is a standby, or read-only") from error
        return connection

    async def begin(self, connection: Connection) -> None:
        """Begin a transaction with the timeouts of `_SETTINGS`."""
        await connection.execute(_BEGIN)

    async def change(self, sql: str, parameters: Sequence[Any], *, durable: bool = True) -> None:
        """Carry out one change in a transaction of its own; repeating it must do no harm. Raises as `rows` does.

        If it is not `durable`, the change may be lost in a crash of the server.
        """
        for attempt in (1, 2):
            try:
                async with self._reader(fresh=attempt > 1) as connection, connection.transaction():
                    if not durable:
                        await connection.execute("SET LOCAL synchronous_commit = off")
                    await connection.execute(sql, *parameters)
                    return
            except DATABASE_ERRORS as error:
                if meaning_of(error) is Meaning.BROKEN:
                    raise
                if attempt > 1 or isinstance(error, TimeoutError):
                    raise StoreUnavailable(f"{self._address} does not respond: {described(error)}") from error

    async def rows(self, sql: str, parameters: Sequence[Any]) -> list[asyncpg.Record]:
        """Return the rows of one statement. Raises `StoreUnavailable`, or the database's error if it rejects it.

        A connection that turns out to be broken is replaced once: the server may have been restarted since.
        """
        for attempt in (1, 2):
            try:
                async with self._reader(fresh=attempt > 1) as connection:
                    if not self._address.pgbouncer:
                        return list(await connection.fetch(sql, *parameters))
                    async with _pinned(connection):
                        return list(await connection.fetch(sql, *parameters))
            except DATABASE_ERRORS as error:
                what = meaning_of(error)
                if what is Meaning.BROKEN:
                    raise
                if attempt > 1 or isinstance(error, TimeoutError):
                    raise StoreUnavailable(f"{self._address} does not respond: {described(error)}") from error
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close the connections for reads."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            await drop(connection)

    @asynccontextmanager
    async def _reader(self, *, fresh: bool) -> AsyncIterator[Connection]:
        """Lend a connection for one read. After any error it is closed and not used again."""
        async with self._free:
            if fresh:
                for connection in self._idle:
                    connection.terminate()  # they are as old as the one that was broken
                self._idle.clear()
            connection = self._idle.pop() if self._idle else await self.open()
            try:
                yield connection
            except BaseException:
                connection.terminate()
                raise
            if self._closed or connection.is_closed():
                connection.terminate()
            else:
                self._idle.append(connection)


@asynccontextmanager
async def _pinned(connection: Connection) -> AsyncIterator[None]:
    """Run statements in one transaction, so that PgBouncer sends them to one server. Raises on a standby."""
    try:
        await connection.execute("BEGIN READ WRITE")
    except asyncpg.FeatureNotSupportedError as error:
        raise asyncpg.ReadOnlySQLTransactionError(str(error)) from error
    yield  # after an error the connection is closed
    await connection.execute("COMMIT")


async def _abandon(attempts: Iterable[asyncio.Task[Connection]]) -> None:
    """End attempts to connect whose connections are not needed."""
    for attempt in attempts:
        attempt.cancel()
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        if not isinstance(outcome, BaseException):
            outcome.terminate()


def _together(failures: Mapping[str, BaseException | None]) -> BaseException:
    """Return one error for the failures of all servers, by their URLs."""
    errors = [error for error in failures.values() if error is not None]
    if len(errors) == 1 or all(meaning_of(error) is Meaning.BROKEN for error in errors):
        return errors[0]
    texts = [
        f"{urlsplit(url).netloc.rpartition('@')[2]}: {described(error)}"
        for url, error in failures.items()
        if error is not None
    ]
    return ConnectionError("; ".join(texts))


async def drop(connection: Connection) -> None:
    """Close a connection, politely if the server still answers."""
    try:
        await connection.close(timeout=1)
    except DATABASE_ERRORS:
        connection.terminate()
