"""The write path: one transaction at a time, run again after a conflict or a lost connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import asyncpg
import structlog

from sessiond.config.store_address import PostgresAddress
from sessiond.crypto.session_data import DataCipher
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Entropy, Revision
from sessiond.store.answers import AnswerBudget, AnswerDeletion
from sessiond.store.contract import Changes, Decision, Head, StoreUnavailable, Transaction
from sessiond.store.postgres.connections import Connection, Connections, drop
from sessiond.store.postgres.errors import DATABASE_ERRORS, Meaning, described, meaning_of
from sessiond.store.postgres.known_log import KnownLog
from sessiond.store.postgres.opening import begin_incarnation, incarnations_of
from sessiond.store.postgres.statements import STATEMENTS, own
from sessiond.store.postgres.transaction import PostgresTransaction
from sessiond.store.writes import Writes

__all__ = ["Writer"]

T = TypeVar("T")
_MARK_BYTES = 16
_PATIENCE = 3.0
"""Seconds for which a write is tried again. After a write that failed the next ones are tried once, until one works."""
_PAUSE = 0.05
_log = structlog.get_logger(__name__)


@immutable
class _Pending(Generic[T]):
    """A transaction of which everything but COMMIT has been carried out.

    is_empty  there is nothing to commit
    found     the row of the log's head when it began
    revision  the log's newest revision when it is committed
    """

    decision: Decision[T]
    deletion: AnswerDeletion | None
    is_empty: bool
    found: asyncpg.Record
    revision: Revision


class _LostInCommit(Exception):
    """The connection was lost during COMMIT: only the mark shows whether the transaction is committed."""

    def __init__(self, pending: _Pending[Any]) -> None:
        super().__init__("the connection was lost during COMMIT")
        self.pending = pending


class _RunAgain(Exception):
    """The write must run again: it needs the log's head after all, or a new incarnation has just begun."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__("the write must run again")
        self.quiet = quiet


class Writer:
    """Writes on a connection of its own, and begins a new incarnation of `log` if its end may have been lost."""

    def __init__(
        self,
        connections: Connections,
        address: PostgresAddress,
        replica: bytes,
        entropy: Entropy,
        answers: AnswerBudget,
        log: KnownLog,
    ) -> None:
        self._connections = connections
        self._address = address
        self._replica = replica
        self._entropy = entropy
        self._answers = answers
        self._log = log
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._responds = True

    async def write(
        self, decide: Callable[[Transaction], Awaitable[Decision[T]]], cipher: DataCipher | None, *, quiet: bool
    ) -> T:
        """Carry out one write; see `Store.write`.

        Raises `StoreUnavailable`, or the database's error if it rejects a statement.
        """
        async with self._turn:
            try:
                answer = await self._write(decide, cipher, quiet=quiet)
            except StoreUnavailable:
                self._responds = False
                raise
            self._responds = True
            return answer

    async def close(self, *names: str) -> None:
        """Run the named statements about this replica, and close the connection."""
        with suppress(*DATABASE_ERRORS):  # other replicas notice when the lease runs out
            connection = self._connection = self._connection or await self._connections.open()
            for name in names:
                statement = own(name)
                await connection.execute(statement.sql, *statement.bind({"replica": self._replica}))
            await drop(connection)
        self._discard()

    async def _write(
        self, decide: Callable[[Transaction], Awaitable[Decision[T]]], cipher: DataCipher | None, *, quiet: bool
    ) -> T:
        loop, attempts = asyncio.get_running_loop(), 0
        give_up = loop.time() + (_PATIENCE if self._responds else 0)
        while True:
            mark = self._entropy(_MARK_BYTES)
            try:
                return self._done(await self._attempt(decide, cipher, mark, quiet=quiet))
            except _RunAgain as again:
                quiet = again.quiet
                continue
            except _LostInCommit as lost:
                trouble: BaseException = lost
                if await self._is_committed(mark, loop.time() + _PATIENCE):
                    answer: T = self._done(lost.pending)
                    return answer
            except DATABASE_ERRORS as error:
                trouble = error
                if meaning_of(error) is Meaning.BROKEN:
                    raise
            attempts += 1
            # The time alone is no reason to give up after one attempt: this process may have been stopped meanwhile, or
            # the server took its time to tell that the transaction is not committed.
            is_last = attempts > 1 or not self._responds or isinstance(trouble, TimeoutError)
            if is_last and loop.time() >= give_up:
                raise StoreUnavailable(f"{self._address} does not respond: {described(trouble)}") from trouble
            if attempts == 1:
                _log.info("write is tried again", reason=described(trouble))
            await asyncio.sleep(_PAUSE)

    def _done(self, pending: _Pending[T]) -> T:
        if pending.deletion is not None:
            pending.deletion.done()
        self._log.saw(pending.found, pending.revision)
        return pending.decision.answer

    async def _attempt(
        self,
        decide: Callable[[Transaction], Awaitable[Decision[T]]],
        cipher: DataCipher | None,
        mark: bytes,
        *,
        quiet: bool,
    ) -> _Pending[T]:
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = self._connection = await self._connections.open()
        try:
            await self._connections.begin(connection)
            pending = await self._carry_out(connection, decide, cipher, mark, quiet=quiet)
            if pending.is_empty:
                await connection.execute("ROLLBACK")
                return pending
        except DATABASE_ERRORS:
            self._discard()
            raise
        except BaseException:
            await self._roll_back(connection)
            raise
        try:
            if await connection.execute("COMMIT") != "COMMIT":
                raise AssertionError("the database rolled the transaction back")
        except DATABASE_ERRORS as error:
            self._discard()
            if meaning_of(error) is Meaning.AWAY:
                raise _LostInCommit(pending) from error
            raise
        return pending

    async def _carry_out(
        self,
        connection: Connection,
        decide: Callable[[Transaction], Awaitable[Decision[T]]],
        cipher: DataCipher | None,
        mark: bytes,
        *,
        quiet: bool,
    ) -> _Pending[T]:
        newest = self._log.newest
        row = await connection.fetchrow(own("see_head" if quiet else "take_head").sql)
        if row is None:
            raise AssertionError("the log has no head")
        head = Head(Revision(row["revision"]), Revision(row["horizon"]))
        if self._log.is_set_back(row, newest):
            if quiet:
                raise _RunAgain(quiet=False)
            # Committed by itself, so that every position that follows from this write is in the new incarnation.
            set_back = row["lineage"] == row["lineage_now"]
            await begin_incarnation(connection, head.revision, head.horizon, self._entropy, set_back=set_back)
            await connection.execute("COMMIT")
            _log.warning("new incarnation of the log", revision=head.revision, newest=newest)
            raise _RunAgain(quiet=quiet)
        if not self._log.is_current(row):
            self._log.enter(row, await incarnations_of(connection))
        decision = await decide(PostgresTransaction(connection, cipher, head))
        if quiet and not _is_quiet(decision.changes):
            raise _RunAgain(quiet=False)
        writes = Writes(decision.changes, cipher, head, STATEMENTS)
        for sql, parameters in writes:
            if len(parameters) == 1:
                await connection.execute(sql, *parameters[0])
            else:
                await connection.executemany(sql, parameters)
        deletion = self._answers.for_changes(decision.changes)
        if deletion is not None:
            await _delete_answers(connection, deletion)
        is_empty = not (writes or deletion)
        if not is_empty and not quiet:
            statement = own("mark_commit")
            await connection.execute(statement.sql, *statement.bind({"replica": self._replica, "mark": mark}))
        return _Pending(decision, deletion, is_empty, row, writes.head.revision)

    async def _is_committed(self, mark: bytes, give_up: float) -> bool:
        """Return whether the transaction with this mark was committed. Raises `StoreUnavailable` if that stays unknown.

        A quiet transaction leaves no mark, and counts as not committed: carrying it out again changes nothing.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection = await self._connections.open()
                try:
                    await self._connections.begin(connection)
                    # Waits for the transaction in question, if the server is still committing it.
                    await connection.execute(own("take_head").sql)
                    found = own("read_mark")
                    row = await connection.fetchrow(found.sql, *found.bind({"replica": self._replica}))
                    # After a crash a server shows what only its own disk has. This commit waits until the synchronous
                    # standby has everything up to here; only then may the other one count as committed.
                    await connection.execute("COMMIT")
                    return row is not None and row["mark"] == mark
                finally:
                    connection.terminate()
            except DATABASE_ERRORS as error:
                if loop.time() >= give_up:
                    raise StoreUnavailable(f"{self._address} does not respond: {described(error)}") from error
                await asyncio.sleep(_PAUSE)

    async def _roll_back(self, connection: Connection) -> None:
        try:
            await connection.execute("ROLLBACK")
        except DATABASE_ERRORS:
            self._discard()

    def _discard(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _is_quiet(changes: Changes) -> bool:
    return not (
        changes.sessions or changes.data or changes.events or changes.answers or changes.moved or changes.horizon
    )


async def _delete_answers(connection: Connection, deletion: AnswerDeletion) -> None:
    expired, early = STATEMENTS["delete_expired_answers"], STATEMENTS["evict_answers"]
    deletion.deleted(await connection.fetch(expired.sql, *expired.bind(deletion.expired)))
    if deletion.exceeds:
        deletion.deleted(await connection.fetch(early.sql, *early.bind(deletion.early)))
