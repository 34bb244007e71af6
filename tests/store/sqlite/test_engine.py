"""Properties of the SQLite engine: one process per file, clear refusals, numbered migrations, durable commits."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from pathlib import Path

import pytest

from sessiond.domain.values import Revision
from sessiond.store.contract import StoreFailed, StoreRefused
from sessiond.store.rows import event_row, session_row
from sessiond.store.sqlite.files import migrations
from sessiond.store.sqlite.store import SqliteStore
from sessiond.store.statements import load_statements
from tests.contracts import samples
from tests.contracts.store import append

_HOLD = """
import asyncio, sys
from pathlib import Path
from sessiond.store.sqlite.store import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    print("held", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await store.close()

asyncio.run(main())
"""


def fingerprint(folder: Path) -> dict[str, str]:
    """Return every file of a folder except the lock, with its bytes."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.suffix != ".lock"
    }


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that has the file open."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


async def refusal(path: Path) -> str:
    """Return the message with which the store refuses to open."""
    try:
        store = await SqliteStore.open(path)
    except StoreRefused as refused:
        return str(refused)
    await store.close()
    raise AssertionError(f"{path} was opened")


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """A file that another process has open is refused, and the message names the file and that process."""
    path = tmp_path / "sessiond.db"
    with holding(path) as holder:
        text = await refusal(path)
    assert str(path) in text
    assert f"process {holder.pid}:" in text


async def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """The file of a process that was killed can be opened at once."""
    path = tmp_path / "sessiond.db"
    with holding(path) as holder:
        holder.kill()
    store = await SqliteStore.open(path)
    await store.close()


async def test_a_second_store_of_one_process_is_refused(tmp_path: Path) -> None:
    """A second store on the same file is refused within one process too, and the first one keeps working."""
    path = tmp_path / "sessiond.db"
    store = await SqliteStore.open(path)
    try:
        assert "is in use by process" in await refusal(path)
        assert (await store.head()).revision == 0
        await append(store, samples.event(1))
    finally:
        await store.close()


async def test_other_programs_of_sqlite_are_locked_out(tmp_path: Path) -> None:
    """While the store is open, no other SQLite connection can read its file."""
    path = tmp_path / "sessiond.db"
    store = await SqliteStore.open(path)
    try:
        with (
            closing(sqlite3.connect(path, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("SELECT * FROM sessions")
    finally:
        await store.close()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A database of a newer version is refused, the message names both versions, and no byte changes."""
    path = tmp_path / "sessiond.db"
    await (await SqliteStore.open(path)).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 1000")
    before = fingerprint(tmp_path)
    text = await refusal(path)
    assert "schema version 1000" in text
    assert f"versions up to {len(migrations())}" in text
    assert "newer sessiond" in text
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize(
    "content", [b"x", b"this is no database\n" * 100, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 5000]
)
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is not a database is refused by name, and no byte changes."""
    path = tmp_path / "sessiond.db"
    path.write_bytes(content)
    before = fingerprint(tmp_path)
    text = await refusal(path)
    assert str(path) in text
    assert "not a database" in text
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize("mark", ["CREATE TABLE theirs (x)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"])
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
async def test_another_programs_database_is_refused(tmp_path: Path, mark: str, mode: str) -> None:
    """Another program's SQLite database is refused, and no byte changes."""
    path = tmp_path / "sessiond.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA journal_mode = {mode}")
        other.execute(mark)
        other.execute("VACUUM")
    before = fingerprint(tmp_path)
    text = await refusal(path)
    assert str(path) in text
    assert "another program" in text
    assert fingerprint(tmp_path) == before


async def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    """If a data folder cannot be created, the message names it."""
    (tmp_path / "file").write_text("in the way")
    text = await refusal(tmp_path / "file" / "sub" / "sessiond.db")
    assert str(tmp_path / "file" / "sub") in text
    assert "cannot" in text


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write in")
async def test_an_unwritable_folder_is_refused() -> None:
    """If a data folder is not writable, the message names it."""
    text = await refusal(Path("/proc/sessiond.db"))
    assert "/proc" in text
    assert "cannot write" in text


async def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """A folder with the database's name is refused."""
    (tmp_path / "sessiond.db").mkdir()
    assert "cannot open" in await refusal(tmp_path / "sessiond.db")


async def test_a_refusal_leaves_the_lock(tmp_path: Path) -> None:
    """After a refusal, the same process can open the file once the cause is removed."""
    path = tmp_path / "sessiond.db"
    path.write_bytes(b"this is no database\n" * 100)
    await refusal(path)
    path.unlink()
    await (await SqliteStore.open(path)).close()


async def test_its_files_are_ours_alone(tmp_path: Path) -> None:
    """Only the owner can read the database and the files beside it."""
    store = await SqliteStore.open(tmp_path / "new" / "sessiond.db")
    try:
        await append(store, samples.event(1))
        for path in (tmp_path / "new", *(tmp_path / "new").iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    finally:
        await store.close()


async def test_pragmas_are_in_force(tmp_path: Path) -> None:
    """The file is locked exclusively, it is in WAL mode, and each commit waits for the disk."""
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    try:
        pragmas = {name: (await store._db.all(f"PRAGMA {name}"))[0][0] for name in ("locking_mode", "journal_mode")}
        assert pragmas == {"locking_mode": "exclusive", "journal_mode": "wal"}
        assert (await store._db.all("PRAGMA synchronous"))[0][0] == 2
    finally:
        await store.close()


def test_migrations_are_numbered_without_a_gap() -> None:
    """The file names of the migrations have the numbers 1, 2, 3 and so on, without a gap."""
    folder = files("sessiond.store.sqlite").joinpath("migrations")
    names = sorted(file.name for file in folder.iterdir())
    assert [int(name.split("_")[0]) for name in names] == list(range(1, len(names) + 1))
    assert all(name.endswith(".sql") for name in names)


def test_rows_stand_in_the_order_of_their_statements() -> None:
    """Rows that are inserted several at a time have their columns in the order of the statement's parameters."""
    statements = load_statements()
    assert statements["put_session"].names == tuple(session_row(samples.session(), None))
    assert statements["append_event"].names == tuple(event_row(samples.event(1)))


async def test_the_schema_is_the_sum_of_its_migrations(tmp_path: Path) -> None:
    """A new database has the newest version, and opening it again does not change its schema."""

    def schema() -> tuple[int, list[tuple[str, str]]]:
        with closing(sqlite3.connect(tmp_path / "sessiond.db")) as db:
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            return version, db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()

    await (await SqliteStore.open(tmp_path / "sessiond.db")).close()
    first = schema()
    await (await SqliteStore.open(tmp_path / "sessiond.db")).close()
    assert first == schema()
    assert first[0] == len(migrations())
    assert {"sessions", "session_data", "events", "log_head"} <= {name for name, _ in first[1]}


async def test_after_a_failure_the_store_refuses_everything(tmp_path: Path) -> None:
    """After a statement has failed the store refuses every call, because later successes could break its promises."""
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    try:
        await store._db.execute("DROP TABLE events")
        with pytest.raises(StoreFailed, match=r"sessiond\.db"):
            await store.events(Revision(0), 1)
        with pytest.raises(StoreFailed):
            await store.head()
        with pytest.raises(StoreFailed):
            await append(store, samples.event(1))
    finally:
        await store.close()


@pytest.mark.parametrize("steps", range(1, 8))
async def test_opening_may_be_cancelled(tmp_path: Path, steps: int) -> None:
    """If opening is cancelled at any step, the file can be opened again in the same process."""
    path = tmp_path / "sessiond.db"
    opening = asyncio.create_task(SqliteStore.open(path))
    for _ in range(steps):
        await asyncio.sleep(0)
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await (await opening).close()
    await (await SqliteStore.open(path)).close()
