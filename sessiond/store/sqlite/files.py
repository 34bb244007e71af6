"""Opening the database file: create it with a safe mode, lock it, and check that it is ours before changing it."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sessiond.domain.key_ring import SealingKey, reconciled
from sessiond.store.contract import StoreRefused
from sessiond.store.migrations import check_version, load_migrations
from sessiond.store.rows import key_from_row, key_row
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.sqlite.connection import Connection
from sessiond.store.sqlite.file_lock import FileLock
from sessiond.store.statements import STATEMENTS, ParameterStyle

__all__ = [
    "APPLICATION_ID",
    "CHECKPOINT_PAGES",
    "check_file",
    "check_folder",
    "check_keys",
    "check_ours",
    "check_sealing_key",
    "hold_folder",
    "migrate",
    "migrations",
    "open_file",
    "read_version",
    "record_keys",
    "sealing_key_of",
    "set_pragmas",
    "version_of",
]

_STATEMENTS = STATEMENTS[ParameterStyle.QUESTION_MARK]
APPLICATION_ID = 0x73657373  # "sess": distinguishes our files from other SQLite databases
CHECKPOINT_PAGES = 4000
"""Four times SQLite's default: a page that many commits write is then copied into the database less often."""
_LOG_BYTES = 64 * 1024 * 1024  # the size that the write-ahead log may keep after a checkpoint
_KEYS_SINCE = 4  # the first schema version that records keys
_MAGIC = b"SQLite format 3\0"


def migrations() -> list[str]:
    """Return the numbered migrations in order."""
    return load_migrations("sessiond.store.sqlite")


def hold_folder(path: Path) -> FileLock:
    """Create the folder of the file if it is missing, and take the file's lock. Raise `StoreRefused`.

    A server whose store is elsewhere holds its data folder too, which has the key file and the last reload's report.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = path.parent.stat()
    except OSError as error:
        reason = "it exists and is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise StoreRefused(
            f"cannot create the data folder {path.parent}: {reason}; choose another with --data or `server.data`"
        ) from error
    check_folder(path.parent, folder.st_mode)
    lock = FileLock(path)
    lock.acquire()
    return lock


def check_folder(folder: Path, mode: int) -> None:
    """Raise `StoreRefused` if other users may change what is in a data folder with that mode."""
    if mode & 0o022:
        raise StoreRefused(f"other users can write to the data folder {folder}; run: chmod 700 {folder}")


def check_file(path: Path, handle: int) -> None:
    """Raise `StoreRefused` if the open file is no database, or if other users can access it. An empty one is right."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise StoreRefused(f"cannot use {path}: it is not a regular file; remove it")
    if found.st_mode & 0o077:
        raise StoreRefused(f"other users can access {path}; run: chmod 600 {path}")
    if os.read(handle, len(_MAGIC)) not in (b"", _MAGIC):
        # SQLite itself would treat a file of a few bytes as empty and overwrite it.
        raise StoreRefused(f"cannot use {path}: it is not a database; choose another data folder")


async def open_file(path: Path) -> tuple[Connection, FileLock]:
    """Open the file, or create it, and lock it. Raise `StoreRefused` without holding anything."""
    lock = hold_folder(path)
    try:
        # Created with mode 0600 before SQLite opens it: SQLite gives its log files the same mode.
        _create(path)
    except OSError as error:
        lock.release()
        raise StoreRefused(
            f"cannot open {path} for writing: {error.strerror}; correct that, or choose another data folder"
        ) from error
    except StoreRefused:
        lock.release()
        raise
    try:
        return await Connection.open(path), lock
    except sqlite3.Error as error:
        lock.release()
        raise StoreRefused(f"cannot open {path}: {error}; is the folder writable?") from error
    except BaseException:
        lock.release()  # cancelled
        raise


def _create(path: Path) -> None:
    """Create the database file if it is missing, and check it. Symbolic links are not followed."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        check_file(path, handle)
    finally:
        os.close(handle)


async def check_ours(db: Connection, path: Path) -> int:
    """Return the schema version. Raise `StoreRefused` for another program's database or a schema we cannot use."""
    version = await read_version(db, path)
    check_version(path, version, len(migrations()))
    return version


async def read_version(db: Connection, path: Path) -> int:
    """Lock the file, and return the schema version. Raise `StoreRefused` for another program's database."""
    await db.execute("PRAGMA locking_mode = EXCLUSIVE")
    return await db.run(partial(version_of, path=path))


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version. Raise `StoreRefused` for another program's database."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    foreign = application_id or version or connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    if application_id != APPLICATION_ID and foreign:
        raise StoreRefused(f"{path} is a SQLite database of another program; choose another data folder")
    return version


async def check_keys(db: Connection, path: Path, version: int, keys: StoreKeys) -> None:
    """Raise `StoreRefused` unless the recorded sealing key of this database is among these.

    Without this check a wrong key file, or an outdated copy of the right one, would log users out: their tokens would
    count as forged, and their addresses as sources of guesses.
    """
    if keys.fingerprints:  # otherwise there is nothing to compare
        recorded = await db.run(partial(sealing_key_of, version=version))
        check_sealing_key(path, recorded, keys.fingerprints, keys.name)


def sealing_key_of(connection: sqlite3.Connection, version: int) -> bytes | None:
    """Return the fingerprint of the recorded sealing key; None if the database does not record one yet."""
    row = None if version < _KEYS_SINCE else connection.execute(_STATEMENTS["read_sealing_key"].sql).fetchone()
    return None if row is None else bytes(row[0])


def check_sealing_key(path: Path, recorded: bytes | None, fingerprints: Sequence[bytes], name: str = "") -> None:
    """Raise `StoreRefused` unless the recorded sealing key is among these. `name`: what the keys come from."""
    if recorded is not None and recorded not in fingerprints:
        raise StoreRefused(
            f"{name or f'the key file beside {path}'} does not contain the key that this database was last written "
            f"with ({recorded.hex()[:8]}): it is a different file or an older copy. Restore the right key file, or use "
            "an empty data folder to start over"
        )


async def record_keys(db: Connection, keys: StoreKeys) -> tuple[Sequence[SealingKey], Sequence[SealingKey]]:
    """Record the key ring that this process holds. Return what was recorded before, and what is now."""
    recorded = [key_from_row(row) for row in await db.all(_STATEMENTS["read_keys"].sql)]
    now = reconciled(recorded, keys.known(recorded), keys.now, alone=True, may_promote=True)
    if now != recorded:
        await db.run(partial(_replace_keys, now))
    return recorded, now


def _replace_keys(keys: Sequence[SealingKey], connection: sqlite3.Connection) -> None:
    """Write the recorded ring in one transaction: a database never has a part of it."""
    put = _STATEMENTS["put_key"]
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_STATEMENTS["delete_keys"].sql)
    connection.executemany(put.sql, [put.bind(key_row(number, key)) for number, key in enumerate(keys)])
    connection.execute("COMMIT")


async def set_pragmas(db: Connection, version: int) -> None:
    """Make every commit durable, overwrite deleted data, and let unused space be released incrementally."""
    if version == 0:
        await db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only possible before the first table
    # The file must not retain deleted session data, values from before encryption was enabled, or kept answers.
    await db.execute("PRAGMA secure_delete = ON")
    await db.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
    await db.execute("PRAGMA journal_mode = WAL")
    await db.execute("PRAGMA synchronous = FULL")
    await db.execute("PRAGMA cache_size = -65536")
    await db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    await db.execute("PRAGMA trusted_schema = OFF")


async def migrate(db: Connection, version: int) -> None:
    """Migrate the schema from `version` to the newest, each step in its own transaction."""
    for number, step in enumerate(migrations()[version:], version + 1):
        await db.script(
            f"BEGIN IMMEDIATE; {step}\n"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        )
    # A write transaction takes the exclusive lock now rather than at the first change.
    await db.execute("BEGIN EXCLUSIVE")
    await db.execute("COMMIT")
