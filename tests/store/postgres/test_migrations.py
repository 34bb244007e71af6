"""A database that an earlier sessiond wrote is opened with everything in it, and gets today's schema.

`golden/version_N.sql` is the dump of a database of schema version N. A released migration is never edited, because
databases that it was applied to would then have a different schema.
"""

from __future__ import annotations

import asyncpg
import pytest

from sessiond.config.store_address import PostgresAddress
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import SessionState
from sessiond.domain.values import Instant, Revision, VersionedData
from sessiond.store.contract import Head
from sessiond.store.migrations import load_migrations
from sessiond.store.postgres.connections import Connection
from sessiond.store.postgres.store import PostgresStore
from tests.contracts.store import ids, kept, living
from tests.store.postgres.golden_database import ANSWER, DATA, GOLDEN, HEAD, HORIZON, IDENTITY, SESSIONS, callers_of
from tests.store.sqlite.test_migrations import FULL
from tests.support.clock import START
from tests.support.postgres import new_database

MIGRATIONS = load_migrations("sessiond.store.postgres")
EACH = pytest.mark.parametrize("version", sorted(GOLDEN))
_SCHEMA = (
    """
    SELECT table_name, ordinal_position, column_name, udt_name, collation_name, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public'
    """,
    """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    """,
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
)


async def put_back(connection: Connection, version: int) -> None:
    """Create the database of that version."""
    await connection.execute(GOLDEN[version].read_text(encoding="utf-8"))


async def schema_of(connection: Connection) -> list[tuple[object, ...]]:
    """Return the columns, constraints and indexes of a database, without the table of the schema version."""
    rows = [tuple(row.values()) for query in _SCHEMA for row in await connection.fetch(query)]
    return sorted((row for row in rows if row[0] != "sessiond_schema"), key=repr)


def test_every_version_has_its_database() -> None:
    """Each schema version has a database that the sessiond of that version wrote."""
    assert sorted(GOLDEN) == list(range(1, len(MIGRATIONS) + 1))


@EACH
async def test_an_applied_migration_is_never_edited(
    postgres: str, database: str, beside: Connection, version: int
) -> None:
    """The migrations up to a version create exactly the schema that the sessiond of that version had."""
    await put_back(beside, version)
    assert await beside.fetchval("SELECT version FROM sessiond_schema") == version
    made = await asyncpg.connect(await new_database(postgres))
    try:
        for step in MIGRATIONS[:version]:
            await made.execute(step)
        assert await schema_of(made) == await schema_of(beside)
    finally:
        await made.close()


async def test_an_edited_migration_is_noticed(database: str, beside: Connection) -> None:
    """A column or an index that a migration did not have before shows in the comparison."""
    await put_back(beside, 1)
    before = await schema_of(beside)
    await beside.execute("ALTER TABLE sessions ALTER COLUMN generation DROP NOT NULL")
    after = await schema_of(beside)
    assert len(set(before) ^ set(after)) >= 2
    await beside.execute("CREATE INDEX another ON events (log, at)")
    assert len(await schema_of(beside)) == len(after) + 1


@EACH
async def test_a_database_of_each_version_opens_with_everything(
    database: str, beside: Connection, version: int
) -> None:
    """A database keeps its identity, log, sessions, history, data and kept answers, and begins a new incarnation."""
    await put_back(beside, version)
    store = await PostgresStore.open(PostgresAddress(database))
    try:
        assert store.authority_id == IDENTITY
        assert await store.head() == Head(Revision(HEAD), Revision(HORIZON))
        assert [run.first for run in store.incarnations] == [1, HEAD + 1]
        for session in SESSIONS:
            assert await store.session(session.id) == session
        events = await store.events(Revision(0), 100)
        assert [event.revision for event in events] == list(range(HORIZON + 1, HEAD + 1))
        assert [event.session_id for event in events[:-2]] == ids(SESSIONS[HORIZON:])
        assert await store.data(FULL.id) == VersionedData(DATA, 3)
        mine = [session for session in SESSIONS if session.subject == "ada" and session.ending is None]
        assert await living(store, ("default", "ada")) == mine
        query = SessionQuery("default", START, subject="ada", state=SessionState.REVOKED)
        assert await store.sessions(query) == [SESSIONS[2]]
        labelled = SessionQuery("default", START, labels=(("tenant", "acme"),))
        assert await store.sessions(labelled) == [SESSIONS[-1]]
        assert await store.due(Instant(START + 2000), 10) == ids(SESSIONS[:2])
        assert list(await store.callers()) == callers_of(version)
        assert await kept(store, ANSWER.key) == {ANSWER.key: ANSWER}
        assert [lease.replica for lease in await store.leases() if lease.replica] == [store.replica]
    finally:
        await store.close()


@EACH
async def test_a_database_of_each_version_gets_todays_schema(
    postgres: str, database: str, beside: Connection, version: int
) -> None:
    """After it was opened, a database has the same columns, constraints and indexes as a new one."""
    await put_back(beside, version)
    fresh = await new_database(postgres)
    for url in (database, fresh):
        await (await PostgresStore.open(PostgresAddress(url))).close()
    new = await asyncpg.connect(fresh)
    try:
        assert await schema_of(beside) == await schema_of(new)
    finally:
        await new.close()
