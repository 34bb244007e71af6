"""A Postgres database as one end of a copy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from sessiond.config.store_address import PostgresAddress
from sessiond.store.contract import StoreHeld, StoreRefused, StoreUnavailable
from sessiond.store.copying import TABLES, Identity, Key, Row, State, Table
from sessiond.store.migrations import UNFINISHED, check_version
from sessiond.store.postgres.connections import Connection, Connections
from sessiond.store.postgres.errors import DATABASE_ERRORS, Meaning, described, meaning_of
from sessiond.store.postgres.opening import create_schema_table, migrate, newest_version, read_version, set_version
from sessiond.store.postgres.statements import own
from sessiond.store.statements import ParameterStyle

__all__ = ["PostgresEnd"]

T = TypeVar("T")
_SECONDS = 600.0
"""The most that one statement may take: counting the rows of a large table needs more time than a call has."""
_SETTINGS = {
    # Between two statements the other end is at work.
    "idle_in_transaction_session_timeout": f"{_SECONDS:.0f}s",
    "statement_timeout": f"{_SECONDS:.0f}s",
    "lock_timeout": "4s",
}
_BEGIN = "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{value}'" for name, value in _SETTINGS.items())])
_LOCKED = (*(table.name for table in TABLES), "log_head", "incarnations", "keys", "replicas")
_CONCURRENT = (asyncpg.UniqueViolationError, asyncpg.DuplicateTableError, asyncpg.InFailedSQLTransactionError)
"""What the database answers if two copies to one database run at the same time."""


class PostgresEnd:
    """See `CopyEnd`. Create one with `open_source` or `open_destination`."""

    def __init__(self, address: PostgresAddress, connection: Connection) -> None:
        self.name = str(address)
        self._address = address
        self._db = connection

    @classmethod
    async def open_source(cls, address: PostgresAddress) -> PostgresEnd:
        """Open a database to copy from, and keep every replica from changing it.

        Raises `StoreRefused` (`StoreHeld` while replicas use it) or `StoreUnavailable`.
        """
        end = await cls._open(address)
        try:
            await end._guarded(end._hold)
        except BaseException:
            await end.close()
            raise
        return end

    @classmethod
    async def open_destination(cls, address: PostgresAddress) -> PostgresEnd:
        """Open a database to copy to. Raises `StoreRefused` or `StoreUnavailable`."""
        return await cls._open(address)

    @classmethod
    async def _open(cls, address: PostgresAddress) -> PostgresEnd:
        try:
            return cls(address, await Connections(address).open())
        except DATABASE_ERRORS as error:
            raise _explained(address, error) from error

    async def close(self) -> None:
        """Close the connection. What is not committed is rolled back, and locks are released."""
        self._db.terminate()

    # Reading

    async def place(self) -> str:
        """See `CopyEnd`."""
        (head,) = await self._all(own("see_head").sql)
        return f"database {head[-1]}"

    async def identity(self) -> Identity:
        """See `CopyEnd`."""
        return Identity(
            await self._all(_select("log_head", Identity.HEAD_COLUMNS)),
            await self._all(_select("incarnations", Identity.INCARNATION_COLUMNS)),
            await self._all(_select("keys", Identity.KEY_COLUMNS)),
        )

    async def columns(self, table: Table) -> Sequence[str]:
        """See `CopyEnd`."""
        sql = (
            "SELECT attname FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        return [name for (name,) in await self._all(sql, (table.name,))]

    async def count(self, table: Table) -> int:
        """See `CopyEnd`."""
        ((count,),) = await self._all(table.count())
        return int(count)

    async def rows(self, table: Table, columns: Sequence[str], after: Key, limit: int) -> list[Row]:
        """See `CopyEnd`."""
        sql, parameters = table.select(columns, after, limit, ParameterStyle.NUMBERED)
        return list(await self._all(sql, parameters))

    async def last(self, table: Table) -> Key | None:
        """See `CopyEnd`."""
        return next(iter(await self._all(table.select_last())), None)

    # Writing

    async def state(self) -> State:
        """See `CopyEnd`."""

        async def read() -> int:
            async with self._transaction():
                return await self._version()

        version = await self._guarded(read)
        if version == 0:
            return State.EMPTY
        if version == UNFINISHED:
            return State.UNFINISHED
        check_version(self._address, version, newest_version())
        if version < newest_version():
            raise StoreRefused(f"{self._address} is not empty; use an empty database")
        return State.COMPLETE

    async def begin(self, identity: Identity) -> None:
        """See `CopyEnd`."""

        async def create() -> None:
            async with self._transaction():
                await create_schema_table(self._db, self._address)
                # As replicas do when they start: only one of us finds the database empty.
                await self._db.execute("LOCK TABLE sessiond_schema IN EXCLUSIVE MODE")
                if await read_version(self._db, self._address) != 0:
                    raise StoreHeld(f"{self._address} was empty, and another process has just begun to use it")
                await migrate(self._db, 0)
                await set_version(self._db, UNFINISHED)
                head = own("copy_head")
                for row in identity.heads:
                    await self._db.execute(head.sql, *head.bind(dict(zip(Identity.HEAD_COLUMNS, row, strict=True))))
                await self._insert("incarnations", Identity.INCARNATION_COLUMNS, identity.incarnations)
                await self._insert("keys", Identity.KEY_COLUMNS, identity.keys)

        await self._guarded(create)

    async def add(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """See `CopyEnd`."""
        if any("\0" in value for row in rows for value in row if isinstance(value, str)):
            raise StoreRefused(
                f"a row of `{table.name}` contains the character U+0000, which Postgres cannot store and sessiond no "
                "longer accepts. End the sessions in question, and copy after their retention and that of the events"
            )

        async def insert() -> None:
            async with self._transaction():
                await self._insert(table.name, columns, rows)

        await self._guarded(insert)

    async def finish(self) -> None:
        """See `CopyEnd`."""

        async def finish() -> None:
            async with self._transaction():
                # Without statistics the planner would guess, until autovacuum comes round.
                await self._db.execute(f"ANALYZE {', '.join(table.name for table in TABLES)}", timeout=_SECONDS)
                await set_version(self._db, newest_version())

        await self._guarded(finish)

    # The engine

    async def _hold(self) -> None:
        """Check the source, and lock its tables until the connection is closed."""
        await self._db.execute(_BEGIN)
        version = await self._version()
        check_version(self._address, version, newest_version())
        if version == 0:
            raise StoreRefused(f"{self._address} has no sessiond store; is it the right database?")
        if version < newest_version():
            raise StoreRefused(
                f"{self._address} has schema version {version}, and this sessiond has {newest_version()}: start "
                "`sessiond serve` on it once, which migrates it, stop it, and copy again"
            )
        await self._check_unused()  # before the lock, which would hold up the calls of a replica
        try:
            # Also for replicas without a lease: one that was suspended for long might write when it continues.
            await self._db.execute(f"LOCK TABLE {', '.join(_LOCKED)} IN SHARE MODE")
        except asyncpg.LockNotAvailableError as error:
            raise StoreHeld(f"{self._address} is in use: something writes to it. Stop every replica first") from error
        await self._check_unused()

    async def _check_unused(self) -> None:
        names = [row["name"] for row in await self._db.fetch(own("live_replicas").sql)]
        if names:
            raise StoreHeld(
                f"{self._address} is in use by {len(names)} of its replicas ({'; '.join(sorted(names))}). Stop them; "
                "one that was killed counts for a few seconds more"
            )

    async def _version(self) -> int:
        if await self._db.fetchval("SELECT to_regclass('sessiond_schema')") is not None:
            return await read_version(self._db, self._address)
        if await self._db.fetchval("SELECT to_regclass('sessions')") is not None:
            raise StoreRefused(f"{self._address} has a table `sessions` of another program; use another database")
        return 0

    async def _all(self, sql: str, parameters: Sequence[object] = ()) -> tuple[Row, ...]:
        async def read() -> list[asyncpg.Record]:
            if self._db.is_in_transaction():
                return await self._db.fetch(sql, *parameters, timeout=_SECONDS)
            # Only in a transaction PgBouncer keeps the several messages of a statement on one connection.
            async with self._transaction():
                return await self._db.fetch(sql, *parameters, timeout=_SECONDS)

        return tuple([tuple(row) for row in await self._guarded(read)])

    async def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        await self._db.copy_records_to_table(table, records=rows, columns=columns, timeout=_SECONDS)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        await self._db.execute(_BEGIN)
        try:
            yield
        except BaseException:
            self._db.terminate()  # rolls back; the copy ends here
            raise
        await self._db.execute("COMMIT")

    async def _guarded(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            return await operation()
        except _CONCURRENT as error:
            raise StoreHeld(f"another copy to {self._address} is running, or began meanwhile") from error
        except DATABASE_ERRORS as error:
            raise _explained(self._address, error) from error


def _select(table: str, columns: Sequence[str]) -> str:
    return f"SELECT {', '.join(columns)} FROM {table} ORDER BY 1, 2"  # noqa: S608 - our own names


def _explained(address: PostgresAddress, error: BaseException) -> StoreRefused | StoreUnavailable:
    if isinstance(error, asyncpg.InternalClientError):
        # So asyncpg fails if the connection is lost in the middle of COPY.
        return StoreUnavailable(f"{address} does not respond: the connection was lost")
    if meaning_of(error) is Meaning.BROKEN:
        return StoreRefused(f"cannot use {address}: {described(error)}")
    return StoreUnavailable(f"{address} does not respond: {described(error)}")
