"""A database of an older version becomes one of today's, whole or not at all, and keeps what is in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from sessiond.domain.values import ClientContext, Instant, Millis, Revision
from sessiond.store.contract import Head, StoreRefused
from sessiond.store.rows import event_row, session_row
from sessiond.store.sqlite.files import migrations
from sessiond.store.sqlite.store import SqliteStore
from tests.contracts import samples
from tests.contracts.store import data_of, living
from tests.support.clock import START

CLIENT = ClientContext("192.0.2.1", "Firefox", bytes(32), "a device")
LIVE = samples.session(idle_deadline=START + 10, client=CLIENT)
ENDED = samples.session(ending=samples.ending(START))
TODAY = replace(LIVE, last_client=ClientContext(CLIENT.ip_address, CLIENT.user_agent))
"""The live session as it is after the migration: nobody else can have used it."""
FIRST_EVENTS = [samples.event(1, session_id=LIVE.id), samples.event(2, session_id=ENDED.id), samples.event(3)]


def version_one(path: Path) -> bytes:
    """Make a database as the first sessiond left it, with sessions, data and events in it; its identity."""
    rows = [("sessions", session_row(LIVE, None)), ("sessions", session_row(ENDED, Millis(5)))]
    rows += [("events", event_row(event)) for event in FIRST_EVENTS]
    rows += [("session_data", {"session_id": bytes(LIVE.id), "key": "cart", "value": b"3 apples"})]
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(migrations()[0])
        db.execute("PRAGMA application_id = 0x73657373")
        db.execute("PRAGMA user_version = 1")
        for table, row in rows:
            columns = {column[1] for column in db.execute(f"PRAGMA table_info({table})")}
            kept = {column: value for column, value in row.items() if column in columns}
            names, marks = ", ".join(kept), ", ".join("?" * len(kept))
            db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(kept.values()))
        db.execute("UPDATE log_head SET revision = 3")
        db.commit()
        identity: bytes = db.execute("SELECT authority_id FROM log_head").fetchone()[0]
    return identity


def version_of(path: Path) -> int:
    """A database's schema version."""
    with closing(sqlite3.connect(path)) as db:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


async def test_a_database_of_the_first_version_opens_with_everything(tmp_path: Path) -> None:
    """A database of schema version 1 becomes the newest, and keeps identity, log, sessions, history and data."""
    path = tmp_path / "sessiond.db"
    identity = version_one(path)
    store = await SqliteStore.open(path)
    try:
        assert store.authority_id == identity
        assert await store.head() == Head(Revision(3), Revision(0))
        assert await store.events(Revision(0), 10) == FIRST_EVENTS
        assert await store.session(LIVE.id) == TODAY
        assert await store.session(ENDED.id) == ENDED
        assert await data_of(store, LIVE.id) == {"cart": b"3 apples"}
        assert await store.due(Instant(START + 10), 10) == [LIVE.id]
        assert await store.prunable(Instant(START + 5), 10) == [ENDED.id]
        assert [run.first for run in store.incarnations] == [4]
        assert await living(store, ("default", "ada")) == [TODAY]
    finally:
        await store.close()
    assert version_of(path) == len(migrations())


async def test_a_database_of_the_first_version_gets_todays_schema(tmp_path: Path) -> None:
    """After its migration a database of schema version 1 has the same tables and indexes as a fresh one."""

    def schema(path: Path) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(path)) as db:
            return db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()

    old, fresh = tmp_path / "old.db", tmp_path / "fresh.db"
    version_one(old)
    for path in (old, fresh):
        await (await SqliteStore.open(path)).close()
    assert schema(old) == schema(fresh)


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A migration is done whole or not at all: what stands in its way is told, and the old version can go on."""
    path = tmp_path / "sessiond.db"
    version_one(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE answers (theirs)")
        before = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    with pytest.raises(StoreRefused, match="answers"):
        await SqliteStore.open(path)
    assert version_of(path) == 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall() == before
