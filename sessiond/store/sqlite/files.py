"""The database file: made with the right mode, locked, and known to be ours before anything in it is changed."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from sessiond.store.contract import StoreRefused
from sessiond.store.sqlite.connection import Connection
from sessiond.store.sqlite.file_lock import FileLock
from sessiond.store.statements import STATEMENTS

__all__ = ["check_keys", "check_ours", "migrate", "migrations", "open_file", "record_keys", "set_pragmas"]

_APPLICATION_ID = 0x73657373  # "sess": tells our files from other SQLite databases
_LOG_BYTES = 64 * 1024 * 1024  # what the write-ahead log may keep after a checkpoint
_KEYS_SINCE = 4  # the schema version that records keys
_MAGIC = b"SQLite format 3\0"


def migrations() -> list[str]:
    """The numbered migrations, in order: the first takes schema version 0 to 1, and so on."""
    folder = files("sessiond.store.sqlite").joinpath("migrations")
    return [file.read_text(encoding="utf-8") for file in sorted(folder.iterdir(), key=lambda file: file.name)]


async def open_file(path: Path) -> tuple[Connection, FileLock]:
    """Open or make the file, locked. Raises `StoreRefused`, and then nothing is held."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = path.parent.stat()
    except OSError as error:
        reason = "something else is there" if isinstance(error, FileExistsError) else error.strerror
        raise StoreRefused(
            f"cannot make the data folder {path.parent}: {reason}; choose another with --data or `server.data`"
        ) from error
    if folder.st_mode & 0o022:
        raise StoreRefused(f"others may write in the data folder {path.parent}: chmod 700 {path.parent}")
    lock = FileLock(path)
    lock.acquire()
    try:
        # Ours alone from the start: SQLite gives its log files the same mode.
        beginning = _beginning(path)
    except OSError as error:
        lock.release()
        raise StoreRefused(f"cannot open {path} for writing: {error.strerror}") from error
    except StoreRefused:
        lock.release()
        raise
    if beginning not in (b"", _MAGIC):
        lock.release()  # SQLite itself would take a file of a few bytes for an empty one, and write over it
        raise StoreRefused(f"cannot use {path}: it is not a database; name another file")
    try:
        return await Connection.open(path), lock
    except sqlite3.Error as error:
        lock.release()
        raise StoreRefused(f"cannot open {path}: {error}; is the folder writable?") from error


def _beginning(path: Path) -> bytes:
    """The first bytes of the database file, which is made if it is not there. Follows no symbolic link."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise StoreRefused(f"cannot use {path}: it is not a regular file")
        if found.st_mode & 0o077:
            raise StoreRefused(f"others may read {path}: chmod 600 {path}")
        return os.read(handle, len(_MAGIC))
    finally:
        os.close(handle)


async def check_ours(db: Connection, path: Path) -> int:
    """The schema version. Raises `StoreRefused` for another program's database or a newer schema."""
    await db.execute("PRAGMA locking_mode = EXCLUSIVE")
    application_id = (await db.all("PRAGMA application_id"))[0][0]
    version: int = (await db.all("PRAGMA user_version"))[0][0]
    foreign = application_id or version or await db.all("SELECT 1 FROM sqlite_schema LIMIT 1")
    if application_id != _APPLICATION_ID and foreign:
        raise StoreRefused(f"{path} is a SQLite database of another program; name another file")
    newest = len(migrations())
    if version > newest:
        raise StoreRefused(
            f"{path} has schema version {version}, this sessiond knows versions up to {newest}: "
            "run the newer sessiond, or restore a backup from before the upgrade"
        )
    return version


async def check_keys(db: Connection, path: Path, version: int, fingerprints: Sequence[bytes]) -> None:
    """Raise `StoreRefused` unless the key that seals new tokens of this database is among these.

    Otherwise a wrong key file, or an older copy of the right one, would log users out and count them as guessers.
    """
    if version < _KEYS_SINCE or not fingerprints:
        return  # a database from before keys were recorded, or nothing to compare
    rows = await db.all(STATEMENTS["read_sealing_key"].sql)
    if rows and rows[0]["fingerprint"] not in fingerprints:
        raise StoreRefused(
            f"the key file beside {path} does not hold the key that this database was last written with "
            f"({rows[0]['fingerprint'].hex()[:8]}): it is another one or an older copy. Restore the right key file, "
            "or serve from an empty folder to start over"
        )


async def record_keys(db: Connection, fingerprints: Sequence[bytes]) -> None:
    """Record the key ring, the sealing key first."""
    await db.all(STATEMENTS["forget_keys"].sql)
    put = STATEMENTS["put_key"]
    for number, fingerprint in enumerate(fingerprints):
        await db.all(put.sql, put.bind({"number": number, "fingerprint": fingerprint}))


async def set_pragmas(db: Connection, version: int) -> None:
    """Durable at every commit; what is dropped is overwritten, and its space can be given back bit by bit."""
    if version == 0:
        await db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only possible before the first table
    # The data of a session that has ended, plain values from before encryption, and kept answers must not stay behind.
    await db.execute("PRAGMA secure_delete = ON")
    await db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    await db.execute("PRAGMA journal_mode = WAL")
    await db.execute("PRAGMA synchronous = FULL")
    await db.execute("PRAGMA cache_size = -65536")
    # Four times SQLite's own: a page that many commits write is carried over to the file once for all of them.
    await db.execute("PRAGMA wal_autocheckpoint = 4000")
    await db.execute("PRAGMA trusted_schema = OFF")


async def migrate(db: Connection, version: int) -> None:
    """Bring the schema from that version to the newest, a transaction a step."""
    for number, step in enumerate(migrations()[version:], version + 1):
        await db.script(
            f"BEGIN IMMEDIATE; {step}\n"
            f"PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        )
    # A write takes the exclusive lock now rather than at the first change.
    await db.execute("BEGIN EXCLUSIVE")
    await db.execute("COMMIT")
