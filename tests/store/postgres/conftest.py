"""Fixtures for tests of the Postgres store: a store over an empty database, and a connection that sees its tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from sessiond.config.store_address import PostgresAddress
from sessiond.store.postgres.connections import Connection
from sessiond.store.postgres.store import PostgresStore


@pytest.fixture
async def store(database: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(PostgresAddress(database))
    yield store
    await store.close()


@pytest.fixture
async def closing() -> AsyncIterator[AsyncExitStack]:
    """Closes the stores that a test opens, also if it fails: with an open connection the event loop does not end."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def beside(database: str) -> AsyncIterator[Connection]:
    """A connection of the test to the same database."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()
