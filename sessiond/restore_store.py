"""Putting a backup in the place of a database: what `sessionctl restore` asks for. No server may use the folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

from sessiond.changes.revocation import RevokeMany
from sessiond.config.data_folder import database_in, key_file_in
from sessiond.crypto.key_file import BadKeyFile, read_key_ring
from sessiond.domain.call import Call, Caller
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import SignalType
from sessiond.domain.values import FIRST_ID, NOBODY, ClientContext, Instant, Millis, Revision, SessionId
from sessiond.eventlog.journal import Journal
from sessiond.store.contract import Store, StoreFailed, StoreRefused
from sessiond.store.migrations import check_version
from sessiond.store.sqlite.files import APPLICATION_ID, hold_folder, migrations, sealing_key_of
from sessiond.store.sqlite.store import SqliteStore
from sessiond.system.clock import Clock, SystemClock
from sessiond.system.ownership import give_to_owner

__all__ = ["Described", "Restored", "StoreRefused", "restore_store"]

_LAST_ID = SessionId(b"\xff" * 16)
_ROWS = 500
_TEMPORARY = "sessiond.restore"
_SUFFIXES = ("", "-wal", "-shm", "-journal")


@immutable
class Described:
    """What the backup says of itself: the id of its authority in hexadecimal digits, and its newest revision."""

    authority_id: str
    revision: Revision


@immutable
class Restored:
    """A restored database.

    live      how many sessions were live in the backup
    ended     how many of them the restore has ended
    revision  that of the newest event now
    moved     the folder that the files of the database before were moved to; None: there was none
    has_keys  whether the key file that belongs to it is there; otherwise there is none
    """

    live: int
    ended: int
    revision: Revision
    moved: Path | None
    has_keys: bool


async def restore_store(
    folder: Path,
    extract: Callable[[Path], Described],
    wants_end: Callable[[int], bool],
    *,
    replace: bool = False,
    clock: Clock | None = None,
) -> Restored:
    """Put the database of a backup into a data folder, with a new incarnation of its log.

    `extract` writes the database to the path that it gets, and returns what the backup says of itself; its exceptions
    propagate. `wants_end` gets the number of live sessions in it, and returns whether they are to end. With `replace` a
    database that is there is moved aside. Until the last step, the folder's own database is as before.

    Raises `StoreRefused`, with the remedy, if a server uses the folder, if there is a database and it may not be
    replaced, if the backup cannot be used, or if the key file does not belong to it.
    """
    clock, database = clock or SystemClock(), database_in(folder)
    async with AsyncExitStack() as stack:
        lock = hold_folder(database)
        stack.callback(lock.release)
        if _files_of(database) and not replace:
            raise StoreRefused(f"{database} exists; to move it aside and restore the backup, add --replace")
        temporary = folder / _TEMPORARY
        shutil.rmtree(temporary, ignore_errors=True)  # what an interrupted restore has left
        temporary.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        copy = database_in(temporary)
        described = await asyncio.to_thread(extract, copy)
        await asyncio.to_thread(_check, copy, described)
        has_keys = _has_keys(folder, copy)
        live, ended, revision = await _opened(copy, wants_end, clock)
        if len(_files_of(copy)) > 1:  # SQLite could not write its log into the database
            raise StoreRefused(f"the disk of {folder} failed; nothing there has changed")
        moved = _move_aside(database, clock) if _files_of(database) else None
        copy.rename(database)
        give_to_owner(database)
        _sync(folder)
    return Restored(live, ended, revision, moved, has_keys)


def _files_of(database: Path) -> Sequence[Path]:
    """Return the files of a database that exist."""
    names = [database.with_name(database.name + suffix) for suffix in _SUFFIXES]
    return [path for path in names if path.exists() or path.is_symlink()]


def _connected(copy: Path) -> sqlite3.Connection:
    """Open the database to read it, without the files that SQLite would make beside it."""
    return sqlite3.connect(f"{copy.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _check(copy: Path, described: Described) -> None:
    """Raise `StoreRefused` unless the file is a whole database of ours, and the one that the backup describes."""
    try:
        with closing(_connected(copy)) as db:
            application_id, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in _HEADER)
            if application_id != APPLICATION_ID:
                raise StoreRefused("the backup is not of sessiond")
            check_version(Path("the backup"), version, len(migrations()))
            found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            authority_id, revision = db.execute("SELECT authority_id, revision FROM log_head").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise StoreRefused(f"the backup is damaged: {error}") from None
    if found != "ok":
        raise StoreRefused(f"the backup is damaged: {found}")
    if (authority_id.hex(), revision) != (described.authority_id, described.revision):
        raise StoreRefused("the backup is damaged: its database is not the one that it describes")


_HEADER = ("application_id", "user_version")


def _has_keys(folder: Path, copy: Path) -> bool:
    """Return whether the key file is there. Raise `StoreRefused` if it does not belong to the backup."""
    path = key_file_in(folder)
    if not path.exists():
        return False
    try:
        fingerprints = read_key_ring(path).fingerprints()
    except BadKeyFile as error:
        raise StoreRefused(str(error)) from error
    with closing(_connected(copy)) as db:
        recorded = sealing_key_of(db, len(migrations()))
    if recorded is not None and recorded not in fingerprints:
        raise StoreRefused(
            f"the key file {path} does not contain the key that the backup was last written with "
            f"({recorded.hex()[:8]}). Put the key file there that belongs to the backup, and move this one away"
        )
    return True


async def _opened(copy: Path, wants_end: Callable[[int], bool], clock: Clock) -> tuple[int, int, Revision]:
    """Open the database as a server does, which begins an incarnation. End its sessions if that is wanted."""
    store = await SqliteStore.open(copy)
    try:
        live = [session_id async for session_id in _live(store)]
        count = len(live)
        wanted = count > 0 and await asyncio.to_thread(wants_end, count)
        ended = await _end(store, live, clock) if wanted else 0
        return count, ended, (await store.head()).revision
    finally:
        await store.close()


async def _live(store: Store) -> AsyncIterator[SessionId]:
    after = FIRST_ID
    while ages := await store.token_ages(after, _LAST_ID, _ROWS):
        for age in ages:
            if not age.ended:
                yield age.session_id
        after = ages[-1].session_id


async def _end(store: Store, live: Sequence[SessionId], clock: Clock) -> int:
    """Revoke these sessions, with an event for each. Return how many that were."""
    failures: list[StoreFailed] = []
    journal = Journal(store, clock, _StoreAlone(), lambda _: None, failures.append)
    caller, reason = Caller("authority"), "restored from a backup"
    ended = 0
    try:
        for start in range(0, len(live), _ROWS):
            found = [await store.session(session_id) for session_id in live[start : start + _ROWS]]
            by_application: dict[str, list[Session]] = {}
            for session in found:
                if session is not None:
                    by_application.setdefault(session.application, []).append(session)
            for application, sessions in by_application.items():
                # The policy decides only how long the ended sessions are kept; a server prunes them.
                call = Call(application, PRESETS["owasp-low"], caller, NOBODY, reason, has_client_context=False)
                ended += (await journal.submit(RevokeMany(call, sessions, by_subject=False))).result
    finally:
        await journal.close()
    return ended


def _move_aside(database: Path, clock: Clock) -> Path:
    """Move the files of a database into a new folder beside them, and return it."""
    time = datetime.fromtimestamp(clock.now() / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(100):
        folder = database.with_name(f"before-restore-{time}{f'-{number}' if number else ''}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        break
    else:
        raise StoreRefused(f"{folder} exists; move it away")
    give_to_owner(folder)
    # The log first: a database without its log is still one, and a log without its database is not.
    for path in reversed(_files_of(database)):
        path.rename(folder / path.name)
    _sync(folder)
    return folder


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _StoreAlone:
    """See `eventlog.work.Memory`: there is nothing beside the store."""

    def with_activity(self, session: Session) -> Session:
        return session

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        return False

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        return False

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        return False

    def is_new_old_token(self, session: Session, client: ClientContext, others: Sequence[ClientContext]) -> bool:
        return False

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Sequence[ClientContext]
    ) -> bool:
        return False
