"""The wrapper of aiosqlite, which is the only user of its private names; a new release may change them."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest

import sessiond
from sessiond.store.sqlite.connection import Connection

SERVER = Path(sessiond.__file__).parent
PRIVATE = {"_conn", "_execute"}


def still_running(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return the new threads that do not end."""
    new = set(threading.enumerate()) - before
    for thread in new:
        thread.join(5)
    return [thread for thread in new if thread.is_alive()]


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    connection = await Connection.open(tmp_path / "some.db")
    yield connection
    await connection.close()


async def test_a_function_runs_with_the_connection_on_its_thread(connection: Connection) -> None:
    """A function gets SQLite's own connection, runs on the thread of all statements, and its result is returned."""
    threads: list[int] = []

    def look(raw: sqlite3.Connection) -> list[tuple[int]]:
        threads.append(threading.get_ident())
        assert type(raw) is sqlite3.Connection
        raw.execute("CREATE TABLE t (n)")
        raw.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
        return [tuple(row) for row in raw.execute("SELECT n FROM t ORDER BY n")]

    assert await connection.run(look) == [(1,), (2,)]
    assert await connection.run(lambda _: threading.get_ident()) == threads[0] != threading.get_ident()
    assert [row["n"] for row in await connection.all("SELECT n FROM t ORDER BY n")] == [1, 2]
    # A sqlite3 connection refuses other threads, so the statement above ran on the same thread as the function.
    assert await connection.run(lambda raw: raw.in_transaction) is False


@pytest.mark.parametrize("fault", [sqlite3.OperationalError("injected"), ZeroDivisionError("injected")], ids=repr)
async def test_what_a_function_raises_comes_through(connection: Connection, fault: Exception) -> None:
    """An exception that the function raises reaches the caller, and the connection stays usable."""

    def fail(_: sqlite3.Connection) -> None:
        raise fault

    with pytest.raises(type(fault)) as raised:
        await connection.run(fail)
    assert raised.value is fault
    assert await connection.run(lambda raw: raw.execute("SELECT 1").fetchone()[0]) == 1


async def test_nothing_runs_beside_a_function(connection: Connection) -> None:
    """Statements that are requested while a function runs wait until it ends."""
    order: list[str] = []
    began, may_end = threading.Event(), threading.Event()

    def slow(raw: sqlite3.Connection) -> None:
        began.set()
        assert may_end.wait(30)
        raw.execute("CREATE TABLE t (n)")
        order.append("function")

    async def read() -> None:
        await connection.all("SELECT n FROM t")
        order.append("read")

    running = asyncio.create_task(connection.run(slow))
    await asyncio.to_thread(began.wait, 30)
    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.gather(running, reading)
    assert order == ["function", "read"]


async def test_transactions_are_ours_alone(connection: Connection) -> None:
    """Python begins no transaction by itself: a single statement is committed, and our own transactions stay open."""

    def write(raw: sqlite3.Connection) -> tuple[bool, bool]:
        raw.execute("CREATE TABLE t (n)")
        raw.execute("INSERT INTO t VALUES (1)")
        by_itself = raw.in_transaction
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("INSERT INTO t VALUES (2)")
        begun = raw.in_transaction
        raw.execute("ROLLBACK")
        return by_itself, begun

    assert await connection.run(write) == (False, True)
    assert [row[0] for row in await connection.all("SELECT n FROM t")] == [1]


async def test_a_file_that_cannot_be_opened_raises(tmp_path: Path) -> None:
    """If a file cannot be opened, SQLite's own error is raised, and no waiting thread is left behind."""
    before = set(threading.enumerate())
    with pytest.raises(sqlite3.OperationalError):
        await Connection.open(tmp_path / "nowhere" / "some.db")
    assert still_running(before) == []


async def test_closing_ends_the_thread(tmp_path: Path) -> None:
    """After closing, no thread of the connection is running."""
    before = set(threading.enumerate())
    connection = await Connection.open(tmp_path / "some.db")
    assert len(set(threading.enumerate()) - before) == 1
    await connection.close()
    assert still_running(before) == []


def test_the_private_names_are_there() -> None:
    """Aiosqlite has the two private names that the wrapper uses, in the way that it uses them."""
    assert isinstance(inspect.getattr_static(aiosqlite.Connection, "_conn"), property)
    assert inspect.iscoroutinefunction(aiosqlite.Connection._execute)
    assert list(inspect.signature(aiosqlite.Connection._execute).parameters)[:2] == ["self", "fn"]


def test_no_other_module_uses_private_names() -> None:
    """Only the wrapper imports aiosqlite, and only it uses private names of its connection."""
    imports, uses = set[str](), set[str]()
    for path in SERVER.rglob("*.py"):
        name = str(path.relative_to(SERVER))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom) and "aiosqlite" in ast.unparse(node):
                imports.add(name)
            if isinstance(node, ast.Attribute) and node.attr in PRIVATE:
                uses.add(name)
    assert imports == uses == {"store/sqlite/connection.py"}
