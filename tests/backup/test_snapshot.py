"""A snapshot of the embedded store: one state of it, while commits go on."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond.domain.errors import BackupRefused, Overloaded
from sessiond.store.contract import Snapshot
from sessiond.store.sqlite import snapshot as snapshots
from sessiond_client import AsyncClient
from tests.support.server import sqlite_of

OPEN = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM log_head').fetchall()"


async def content_of(snapshot: Snapshot) -> bytes:
    """Everything that is left of a snapshot."""
    parts = []
    while part := await snapshot.read(65_536):
        parts.append(part)
    return b"".join(parts)


async def commit(client: AsyncClient, times: int, size: int = 100) -> None:
    """Commit so many sessions with data of this size, which random bytes could not be smaller than."""
    await asyncio.gather(*(client.create(subject="ada", data={"cart": bytes(size)}) for _ in range(times)))


def revision_in(database: bytes, folder: Path) -> int:
    """The newest revision in a database, which is whole."""
    file = folder / "copy.db"
    file.write_bytes(database)
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found: int = db.execute("SELECT revision FROM log_head").fetchone()[0]
        assert db.execute("SELECT max(revision), count(*) FROM events").fetchone() == (found, found)
        return found


def can_open(database: Path) -> bool:
    """Whether another process can open a database."""
    return subprocess.run([sys.executable, "-c", OPEN, database], capture_output=True, check=False).returncode == 0


async def test_one_state(app: App, tmp_path: Path) -> None:
    """A snapshot has what was committed before it and nothing later, although the log is longer than a checkpoint's."""
    store = sqlite_of(app)
    async with AsyncClient(app.address) as client:
        await commit(client, 20)
        snapshot = await store.snapshot()
        beginning = await snapshot.read(8192)
        # More pages than the write-ahead log may have before a checkpoint writes them into the file.
        await commit(client, 500, size=60_000)
        assert (store._file.log.stat().st_size) > 2 * 4000 * 4096 // 2
        database = beginning + await content_of(snapshot)
        assert (len(database), sha256(database).digest()) == (snapshot.facts.size, snapshot.sha256)
        assert revision_in(database, tmp_path) == snapshot.facts.revision == 20
        await snapshot.close()
        before = store._file.log.stat().st_size
        await commit(client, 500, size=60_000)
        assert store._file.log.stat().st_size < before + 30_000_000, "the log is written into the database again"


async def test_without_protection_the_file_changes(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """If checkpoints went on, the same commits would change the file while it is read."""
    monkeypatch.setattr(snapshots, "CHECKPOINT_PAGES", 4000)
    store = sqlite_of(app)
    async with AsyncClient(app.address) as client:
        await commit(client, 20)
        snapshot = await store.snapshot()
        await store._db.run(snapshots.thaw)
        before = sha256(store._path.read_bytes()).digest()
        await commit(client, 500, size=60_000)
        assert sha256(store._path.read_bytes()).digest() != before
        await snapshot.close()


async def test_the_database_stays_locked(app: App) -> None:
    """After a snapshot no other process can open the database, although closing a handle of it drops all locks."""
    store = sqlite_of(app)
    for _ in range(2):
        snapshot = await store.snapshot()
        await content_of(snapshot)
        await snapshot.close()
    assert not can_open(store._path)
    store._path.open("rb").close()
    assert can_open(store._path), "this is how the locks would be lost"


async def test_one_at_a_time(app: App) -> None:
    """A second snapshot is refused until the first one is closed."""
    store = sqlite_of(app)
    first = await store.snapshot()
    with pytest.raises(BackupRefused, match="another backup is under way"):
        await store.snapshot()
    await first.close()
    second = await store.snapshot()
    await second.close()


async def test_the_log_is_bounded(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that is read too slowly ends when the write-ahead log has grown too large."""
    monkeypatch.setattr(snapshots, "_LEAST_LOG", 1_000_000)
    store = sqlite_of(app)
    async with AsyncClient(app.address) as client:
        snapshot = await store.snapshot()
        await snapshot.read(4096)
        await commit(client, 40, size=60_000)
        with pytest.raises(Overloaded, match="not read fast enough"):
            await snapshot.read(4096)
        await snapshot.close()


async def test_a_closed_store(app: App) -> None:
    """A snapshot whose store is closed reads nothing, and closing it raises nothing."""
    store = sqlite_of(app)
    snapshot = await store.snapshot()
    await app.stop()
    with pytest.raises(Exception, match="cannot be read: it is closed"):
        await snapshot.read(4096)
    await snapshot.close()
