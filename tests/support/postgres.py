"""A real Postgres for tests: one server for each test process, and a new database for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from scripts.postgres import LocalPostgres

__all__ = [
    "OTHER_POSTGRES",
    "keep_copy",
    "new_database",
    "own_postgres",
    "put_back_copy",
    "running_postgres",
    "start_again",
]

OTHER_POSTGRES = "SESSIOND_TEST_POSTGRES_URL"
"""The variable with the URL of another Postgres to test with; its user must be allowed to create databases."""
_numbers = count(1)


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a Postgres, and return the URL of its administrative database."""
    other = os.environ.get(OTHER_POSTGRES)
    if other:
        yield other
        return
    with tempfile.TemporaryDirectory(prefix="sessiond-postgres-") as folder:
        os.chmod(folder, 0o755)
        # Nothing here survives the machine, so nothing has to reach the disk.
        server = LocalPostgres(Path(folder) / "server", fsync="off", full_page_writes="off")
        server.start()
        try:
            yield server.url()
        finally:
            server.stop()


@contextmanager
def own_postgres() -> Iterator[LocalPostgres]:
    """Run a Postgres that the test may stop, start and set back."""
    with tempfile.TemporaryDirectory(prefix="sessiond-postgres-") as folder:
        os.chmod(folder, 0o755)
        # A server that is killed leaves everything in the page cache, so nothing has to reach the disk here either.
        server = LocalPostgres(Path(folder) / "server", fsync="off")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def start_again(server: LocalPostgres) -> None:
    """Start a server that was stopped. Its port may be in use for a moment: ports of clients are chosen freely."""
    for _ in range(20):
        try:
            server.start()
        except RuntimeError as error:
            trouble = error
            time.sleep(0.2)
        else:
            return
    raise trouble


def keep_copy(server: LocalPostgres) -> None:
    """Keep a copy of the data folder of a server that is stopped."""
    subprocess.run(["cp", "-a", server.folder / "data", server.folder / "copy"], check=True)


def put_back_copy(server: LocalPostgres) -> None:
    """Put the copy in place of the data folder of a server that is stopped."""
    shutil.rmtree(server.folder / "data")
    (server.folder / "copy").rename(server.folder / "data")


async def new_database(url: str) -> str:
    """Create an empty database, and return its URL."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
