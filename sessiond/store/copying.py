"""Copying a store into an empty one, row by row, whatever the engines: what `sessionctl store copy` does.

Rows are copied as they are, because all tables have the same columns in both engines. A destination that is not
complete has the schema version `UNFINISHED`, so no server opens it. How far a copy has come is not recorded anywhere:
each table is filled in the order of its primary key, so a repeated copy continues after the last row it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol

from sessiond.domain.immutable import immutable
from sessiond.store.contract import StoreRefused
from sessiond.store.statements import ParameterStyle

__all__ = ["TABLES", "CopyEnd", "Counts", "Identity", "Key", "Progress", "Row", "Stage", "State", "Table", "copy_rows"]

Row = tuple[Any, ...]
Key = tuple[Any, ...]
_FIRST: Key = (-1,)


class State(StrEnum):
    """What a copy finds at its destination."""

    EMPTY = "empty"
    UNFINISHED = "unfinished"
    COMPLETE = "complete"


class Stage(StrEnum):
    """What a copy is doing."""

    COPYING = "copying"
    COMPARING = "comparing"


@immutable
class Table:
    """A table that is copied row by row.

    key    the columns of its primary key
    batch  how many rows are read, and written in one transaction
    """

    name: str
    key: tuple[str, ...]
    batch: int

    def ordered(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the table's columns in the order in which rows are copied: the key first."""
        return (*self.key, *sorted(set(columns) - set(self.key)))

    def key_of(self, row: Row) -> Key:
        """Return the key of a row."""
        return row[: len(self.key)]

    def select(self, columns: Sequence[str], after: Key, limit: int, style: ParameterStyle) -> tuple[str, Key]:
        """Return the statement that reads the next rows in the order of the key, and its parameters."""
        marks = ["?" if style is ParameterStyle.QUESTION_MARK else f"${n}" for n in range(1, len(after) + 1)]
        key = ", ".join(self.key[: len(after)])
        sql = (
            f"SELECT {', '.join(columns)} FROM {self.name} WHERE ({key}) > ({', '.join(marks)}) "  # noqa: S608 - ours
            f"ORDER BY {', '.join(self.key)} LIMIT {limit}"
        )
        return sql, after

    def select_last(self) -> str:
        """Return the statement that reads the last key."""
        order = ", ".join(f"{column} DESC" for column in self.key)
        return f"SELECT {', '.join(self.key)} FROM {self.name} ORDER BY {order} LIMIT 1"  # noqa: S608 - our own names

    def count(self) -> str:
        """Return the statement that counts the rows."""
        return f"SELECT count(*) FROM {self.name}"  # noqa: S608 - our own names


TABLES = (
    Table("sessions", ("log", "session_id"), 500),
    Table("session_labels", ("log", "session_id", "key"), 1000),
    # A value of session data, or a kept answer, can be large: this many bound the memory that a batch takes.
    Table("session_data", ("log", "session_id", "key"), 64),
    Table("answers", ("log", "answer_key"), 64),
    Table("events", ("log", "revision"), 500),
    Table("callers", ("log", "name"), 500),
)


@immutable
class Identity:
    """What makes a store the same authority in the same state. The first server to start on an unused store changes it.

    heads         (log, authority id, revision, horizon) of each log
    incarnations  (log, number, id, first revision) of each incarnation
    keys          (log, number, fingerprint, ...) of each key of the ring, the sealing key's number is 0
    """

    heads: tuple[Row, ...]
    incarnations: tuple[Row, ...]
    keys: tuple[Row, ...]

    HEAD_COLUMNS = ("log", "authority_id", "revision", "horizon")
    INCARNATION_COLUMNS = ("log", "number", "incarnation", "first_revision")
    KEY_COLUMNS = ("log", "number", "fingerprint", "state", "since", "sealed_until", "log_out", "wrapped", "moved")

    @property
    def authorities(self) -> set[bytes]:
        """Return the ids of the authorities."""
        return {head[1] for head in self.heads}


@immutable
class Progress:
    """How far a copy is: `done` of `total` rows of all tables in this stage; `table` is the one of the last batch."""

    stage: Stage
    table: str
    done: int
    total: int


@immutable
class Counts:
    """How many rows a table has at both ends."""

    table: str
    source: int
    destination: int


class CopyEnd(Protocol):
    """One end of a copy: a store that nobody else uses meanwhile.

    Every method raises `StoreRefused`, or `StoreUnavailable` if a database does not respond.
    """

    name: str
    """What messages call it."""

    async def place(self) -> str:
        """Return what distinguishes this store from every other one, however it was addressed."""

    async def identity(self) -> Identity:
        """Return the identity of a store that is not empty."""

    async def columns(self, table: Table) -> Sequence[str]:
        """Return the names of a table's columns."""

    async def count(self, table: Table) -> int:
        """Return the number of rows of a table."""

    async def rows(self, table: Table, columns: Sequence[str], after: Key, limit: int) -> list[Row]:
        """Return the next rows after a key, in the order of the key."""

    async def last(self, table: Table) -> Key | None:
        """Return the last key of a table; None if it is empty."""

    async def state(self) -> State:
        """Return what is at the destination. Raise `StoreRefused` if it is none of our stores."""

    async def begin(self, identity: Identity) -> None:
        """Make an empty destination an unfinished copy, in one transaction."""

    async def add(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Add rows to an unfinished copy, in one transaction."""

    async def finish(self) -> None:
        """Make an unfinished copy a store that servers open."""


async def copy_rows(
    source: CopyEnd, destination: CopyEnd, report: Callable[[Progress], None], most: int | None = None
) -> list[Counts]:
    """Copy everything, or the rest of it; then compare every row. Return the number of rows of each table.

    If the destination is complete already and no server has used either end since, only compare.
    `most` limits the rows of a batch further. Raises `StoreRefused`; run it again after the cause has been removed.
    """
    identity, state = await source.identity(), await destination.state()
    if state is State.EMPTY:
        await destination.begin(identity)
    else:
        await _check_same(source, destination, identity, state)
    total = sum([await source.count(table) for table in TABLES])
    if state is not State.COMPLETE:
        done = sum([await destination.count(table) for table in TABLES])
        report(Progress(Stage.COPYING, "", done, total))
        for table in TABLES:
            columns = await _columns(source, destination, table)
            after = await destination.last(table) or _FIRST
            while rows := await source.rows(table, columns, after, _limit(table, most)):
                await destination.add(table, columns, rows)
                after, done = table.key_of(rows[-1]), done + len(rows)
                report(Progress(Stage.COPYING, table.name, done, total))
    counts = await _compare(source, destination, report, total, most)
    if await destination.identity() != identity:
        raise _differs(source, destination, "log_head")
    if state is not State.COMPLETE:
        await destination.finish()
    return counts


async def _check_same(source: CopyEnd, destination: CopyEnd, identity: Identity, state: State) -> None:
    """Raise `StoreRefused` unless the destination is a copy of this source that nobody has used since."""
    if await source.place() == await destination.place():
        raise StoreRefused(f"{source.name} and {destination.name} are the same store; name another destination")
    found = await destination.identity()
    if found.authorities != identity.authorities:
        raise StoreRefused(
            f"{destination.name} is not empty: it belongs to another authority. "
            "Use an empty database, or a data folder without a database"
        )
    if found == identity:
        return
    if state is State.UNFINISHED:
        raise StoreRefused(
            f"{source.name} has been used since the copy to {destination.name} began, so the copy cannot be continued. "
            "Empty the destination (drop the database, or delete sessiond.db), and copy again"
        )
    raise StoreRefused(
        f"{destination.name} is a copy of the same authority, but one of the two has been used since it was made. "
        "Decide which of them is the newer one; to copy again, use an empty destination"
    )


async def _compare(
    source: CopyEnd, destination: CopyEnd, report: Callable[[Progress], None], total: int, most: int | None
) -> list[Counts]:
    """Read every row at both ends. Raise `StoreRefused` at the first difference."""
    counts, done = [], 0
    report(Progress(Stage.COMPARING, "", done, total))
    for table in TABLES:
        columns, after = await _columns(source, destination, table), _FIRST
        while True:
            rows = await source.rows(table, columns, after, _limit(table, most))
            if await destination.rows(table, columns, after, _limit(table, most)) != rows:
                raise _differs(source, destination, table.name)
            if not rows:
                break
            after, done = table.key_of(rows[-1]), done + len(rows)
            report(Progress(Stage.COMPARING, table.name, done, total))
        found = Counts(table.name, await source.count(table), await destination.count(table))
        if found.source != found.destination:
            raise _differs(source, destination, table.name)
        counts.append(found)
    return counts


async def _columns(source: CopyEnd, destination: CopyEnd, table: Table) -> Sequence[str]:
    columns = table.ordered(await source.columns(table))
    if columns != table.ordered(await destination.columns(table)):
        raise AssertionError(f"the engines have different columns in `{table.name}`")
    return columns


def _limit(table: Table, most: int | None) -> int:
    return table.batch if most is None else min(most, table.batch)


def _differs(source: CopyEnd, destination: CopyEnd, table: str) -> StoreRefused:
    return StoreRefused(
        f"the rows of `{table}` in {destination.name} differ from those in {source.name}: something wrote to one of "
        "them. Empty the destination (drop the database, or delete sessiond.db), and copy again"
    )
