"""Looking at a database file that no server uses: nothing is created, locked or changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant
from sessiond.store.contract import StoreRefused
from sessiond.store.migrations import check_version
from sessiond.store.sqlite.files import check_file, check_sealing_key, migrations, sealing_key_of, version_of
from sessiond.store.statements import STATEMENTS, ParameterStyle

__all__ = ["DatabaseFacts", "look_at_database"]


@immutable
class DatabaseFacts:
    """What was found.

    version, newest  the schema version of the file, and that of this sessiond; a server migrates an older one
    pending_bytes    the size of the write-ahead log that the next start reads: the last server was killed
    sealing_since    since when the recorded sealing key seals, in milliseconds; None: that is not known
    """

    version: int
    newest: int
    pending_bytes: int
    sealing_since: Instant | None


def look_at_database(path: Path, fingerprints: Sequence[bytes], name: str = "") -> DatabaseFacts:
    """Look at the file. Raise `StoreRefused`, with the remedy, if a server would, or if the file cannot be read.

    `fingerprints`: of the keys that a server would use; empty: they are not compared. `name`: where they come from.
    What is in the write-ahead log is not seen: SQLite could read that only by writing to the folder.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise StoreRefused(f"cannot read {path}: {error.strerror}; run this as the server's user or as root") from error
    try:
        check_file(path, handle)
    finally:
        os.close(handle)
    log = path.with_name(path.name + "-wal")
    pending = log.stat().st_size if log.exists() else 0
    # `immutable`: SQLite neither locks the file nor creates others beside it.
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            version = version_of(connection, path)
            newest = len(migrations())
            check_version(path, version, newest)
            if fingerprints and not pending:
                check_sealing_key(path, sealing_key_of(connection, version), fingerprints, name)
            since = _sealing_since(connection) if version == newest else None
    except sqlite3.Error as error:
        raise StoreRefused(
            f"cannot read {path}: {error}; restore a backup if a start of the server fails too"
        ) from error
    return DatabaseFacts(version, newest, pending, since)


def _sealing_since(connection: sqlite3.Connection) -> Instant | None:
    row = connection.execute(STATEMENTS[ParameterStyle.QUESTION_MARK]["read_keys"].sql).fetchone()
    return None if row is None or row[2] is None else Instant(row[2])
