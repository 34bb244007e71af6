"""A database of an older version is migrated completely or not at all, and keeps its content.

`golden/version_N.sql` is the dump of a database that the sessiond of schema version N wrote, with its pragmas. A
released migration is never edited, because databases that it was applied to would then have a different schema.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sessiond.domain.event import EventType
from sessiond.domain.query import SessionQuery
from sessiond.domain.session import Elevation, Ending, Session, SessionState
from sessiond.domain.values import (
    Authentication,
    Cause,
    CauseKind,
    ClientContext,
    Instant,
    Lifetimes,
    Millis,
    Revision,
    SessionId,
    VersionedData,
)
from sessiond.store.contract import Head, KeptAnswer, StoreRefused
from sessiond.store.sqlite.files import migrations
from sessiond.store.sqlite.store import SqliteStore
from tests.contracts import samples
from tests.contracts.store import ids, kept, living, put
from tests.support.clock import START

GOLDEN = {int(path.stem.split("_")[1]): path for path in (Path(__file__).parent / "golden").glob("version_*.sql")}
LOGOUT = Cause(CauseKind.REQUEST, "caller", "logout")
IDENTITY = bytes(range(16))


def _session(number: int, **fields: Any) -> Session:
    at = START + number
    session_id = SessionId(at.to_bytes(6, "big") + b"\x70\x00\x80" + bytes(6) + bytes([number]))
    return samples.session(at, id=session_id, digest=bytes([number]) * 32, **fields)


PLAIN = _session(1, idle_deadline=Instant(START + 1000))
FULL = _session(
    2,
    subject="bob ü 'quoted'",
    last_active=Instant(START + 50),
    idle_deadline=Instant(START + 2000),
    absolute_deadline=Instant(START + 3000),
    generation=7,
    generation_began=Instant(START + 40),
    rolled_digest=b"\xaa" * 32,
    rolled_at=Instant(START + 39),
    authentication=Authentication(2, ("pwd", "otp"), Instant(START + 38)),
    client=ClientContext("2001:db8::1", "Firefox", b"\xbb" * 32, "a device"),
    last_client=ClientContext("2001:db8::1", "Firefox"),  # nobody else could use the session
    data_version=3,
    data_bytes=17,
)
REVOKED = _session(3, ending=Ending(Instant(START + 60), LOGOUT))
EXPIRED = _session(
    4,
    application="shop",
    subject="",
    idle_deadline=Instant(START + 70),
    ending=Ending(Instant(START + 70), Cause(CauseKind.IDLE_TIMEOUT)),
)
ELEVATED = _session(
    5,
    persistent=True,
    elevation=Elevation(Authentication(3, ("hwk",), Instant(START + 5)), Instant(START + 500)),
)
LOGIN_PAGE = _session(6, subject="", login_page=True)
HELD = _session(7, must_authenticate=True)
LABELLED = _session(
    8,
    subject="carol",
    labels=(("device", "phone"), ("tenant", "acme")),
    lifetimes=Lifetimes(Millis(60_000)),
    old_token=3,
    client=ClientContext("203.0.113.9", "Firefox"),
    last_client=ClientContext("203.0.113.10", "Chrome"),
)
_FIRST = (PLAIN, FULL, REVOKED, EXPIRED)
_SECOND = (*_FIRST, ELEVATED, LOGIN_PAGE, HELD)
_THIRD = tuple(replace(one, revision=Revision(number)) for number, one in enumerate((*_SECOND, LABELLED), 1))
SESSIONS = {1: _FIRST, 2: _SECOND, 3: _THIRD, 4: _THIRD, 5: _THIRD, 6: _THIRD, 7: _THIRD}
ANSWER = KeptAnswer(b"k" * 32, b"p" * 32, b"sealed", Instant(START + 900))
_TIED = replace(ANSWER, session_id=PLAIN.id, generation=4)
ANSWERS = {1: [], 2: [ANSWER], 3: [_TIED], 4: [_TIED], 5: [_TIED], 6: [_TIED], 7: [_TIED]}
_TWO_RUNS = [Revision(1), Revision(len(_THIRD) + 3)]
RUNS = {1: [], 2: [], 3: [Revision(1)], 4: _TWO_RUNS, 5: [Revision(1)], 6: [Revision(1)], 7: _TWO_RUNS}
"""The first revisions of the recorded incarnations of the log, by schema version."""
_TABLE = "CREATE TABLE {} (theirs)"
IN_THE_WAY = {
    1: ("answers", _TABLE),
    2: ("incarnations", _TABLE),
    3: ("keys", _TABLE),
    4: ("old_sessions", _TABLE),
    5: ("earlier_csrf_at", "ALTER TABLE sessions ADD COLUMN {} INTEGER"),
    6: ("callers", _TABLE),
    7: ("sealed_until", "ALTER TABLE keys ADD COLUMN {} INTEGER"),
}
"""A table or column that the next migration creates, by schema version; if it exists, the migration fails."""

EACH = pytest.mark.parametrize("version", sorted(GOLDEN))


def put_back(path: Path, version: int) -> None:
    """Create the database of that version."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(GOLDEN[version].read_text(encoding="utf-8"))


def version_of(path: Path) -> int:
    """Return a database's schema version."""
    with closing(sqlite3.connect(path)) as db:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def schema_of(path: Path) -> list[tuple[str, str]]:
    """Return a database's tables and indexes."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def test_every_older_version_has_its_database() -> None:
    """Each schema version before the current one has a database written by the sessiond of that version."""
    assert sorted(GOLDEN) == list(range(1, len(migrations())))


@EACH
def test_an_applied_migration_is_never_edited(tmp_path: Path, version: int) -> None:
    """The migrations up to a version create exactly the schema that the sessiond of that version had."""
    old, made = tmp_path / "old.db", tmp_path / "made.db"
    put_back(old, version)
    assert version_of(old) == version
    with closing(sqlite3.connect(made)) as db:
        for step in migrations()[:version]:
            db.executescript(step)
    assert schema_of(old) == schema_of(made)


@EACH
async def test_a_database_of_an_older_version_opens_with_everything(tmp_path: Path, version: int) -> None:
    """An older database is migrated, and keeps its identity, log, sessions, history, data and kept answers."""
    path, sessions = tmp_path / "sessiond.db", SESSIONS[version]
    put_back(path, version)
    store = await SqliteStore.open(path)
    try:
        head = len(sessions) + 2
        assert store.authority_id == IDENTITY
        assert await store.head() == Head(Revision(head), Revision(2))
        for session in sessions:
            assert await store.session(session.id) == session
        events = await store.events(Revision(0), 100)
        assert [event.revision for event in events] == list(range(3, head + 1))
        assert [event.session_id for event in events[:-2]] == ids(sessions[2:])
        last = [(event.type, event.session_id, event.cause) for event in events[-2:]]
        assert last == [
            (EventType.SESSION_REVOKED, REVOKED.id, LOGOUT),
            (EventType.SESSION_EXPIRED, EXPIRED.id, LOGOUT),
        ]
        assert await store.data(FULL.id) == VersionedData({"cart": b"3 apples", "ü": b"\0\xff"}, 3)
        assert await store.due(Instant(START + 2000), 10) == [PLAIN.id, FULL.id]
        assert await store.prunable(Instant(START + 75), 10) == [REVOKED.id, EXPIRED.id]
        mine = [session for session in sessions if session.subject == "ada" and session.ending is None]
        assert await living(store, ("default", "ada")) == mine
        query = SessionQuery("default", START, subject="ada", state=SessionState.REVOKED)
        assert await store.sessions(query) == [sessions[2]]
        assert list(await store.callers()) == []
        assert await kept(store, ANSWER.key) == {answer.key: answer for answer in ANSWERS[version]}
        assert [run.first for run in store.incarnations] == [*RUNS[version], head + 1]
    finally:
        await store.close()
    assert version_of(path) == len(migrations())


@EACH
async def test_a_database_of_an_older_version_gets_todays_schema(tmp_path: Path, version: int) -> None:
    """After its migration an older database has the same tables and indexes as a new one."""
    old, fresh = tmp_path / "old.db", tmp_path / "fresh.db"
    put_back(old, version)
    for path in (old, fresh):
        await (await SqliteStore.open(path)).close()
    assert schema_of(old) == schema_of(fresh)


@EACH
async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, version: int) -> None:
    """A migration is applied completely or not at all; its error is reported, and the old version still works."""
    path, (name, create) = tmp_path / "sessiond.db", IN_THE_WAY[version]
    put_back(path, version)
    with closing(sqlite3.connect(path)) as db:
        db.execute(create.format(name))
    before = schema_of(path)
    with pytest.raises(StoreRefused, match=name):
        await SqliteStore.open(path)
    assert version_of(path) == version
    assert schema_of(path) == before


async def test_sessions_of_an_older_version_live_on(tmp_path: Path) -> None:
    """A session from before the migration has revision 0, so any change of it is newer; then labels can find it."""
    path = tmp_path / "sessiond.db"
    put_back(path, 1)
    store = await SqliteStore.open(path)
    try:
        stored = await store.session(PLAIN.id)
        assert stored is not None
        assert stored.revision == 0
        changed = replace(stored, labels=(("tenant", "acme"),), revision=Revision(7))
        await put(store, changed)
        query = SessionQuery("default", START, labels=changed.labels)
        assert await store.sessions(query) == [changed]
    finally:
        await store.close()
