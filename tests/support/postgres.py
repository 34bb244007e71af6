"""A real Postgres for tests: one server for each test process, and a new database for each test."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from scripts.postgres import LocalPostgres

__all__ = ["OTHER_POSTGRES", "new_database", "running_postgres"]

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


async def new_database(url: str) -> str:
    """Create an empty database, and return its URL."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
