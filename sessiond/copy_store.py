"""Moving an authority to another store: what `sessionctl store copy` asks for.

Beside the configuration, this module and `restore_store` are all that `sessionctl` imports of the server.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum
from pathlib import Path

from sessiond.config.data_folder import key_file_in
from sessiond.config.store_address import PostgresAddress
from sessiond.crypto.key_file import BadKeyFile, copy_key_file, load_key_ring
from sessiond.domain.immutable import immutable
from sessiond.store.contract import StoreRefused, StoreUnavailable
from sessiond.store.copying import Counts, Identity, Progress, Stage, copy_rows
from sessiond.store.postgres.copying import PostgresEnd
from sessiond.store.sqlite.copying import SqliteEnd
from sessiond.system.ownership import give_to_owner

__all__ = [
    "Copied",
    "Counts",
    "KeyFile",
    "Place",
    "Progress",
    "Stage",
    "StoreRefused",
    "StoreUnavailable",
    "copy_store",
]

Place = Path | PostgresAddress
"""A data folder with a SQLite database, or a Postgres database."""


class KeyFile(StrEnum):
    """What is left to do about the key file.

    COPIED   it was copied into the destination's data folder
    PRESENT  the destination's data folder has the right one already
    NEEDED   the data folder of each server of the destination needs a copy of it before the server starts
    """

    COPIED = "copied"
    PRESENT = "present"
    NEEDED = "needed"


@immutable
class Copied:
    """A complete copy.

    authority_id, revision, horizon  those of the source and of its copy
    counts                           the numbers of rows of each table
    key_file                         what is left to do about the key file
    """

    authority_id: bytes
    revision: int
    horizon: int
    counts: Sequence[Counts]
    key_file: KeyFile


async def copy_store(
    source: Place, destination: Place, report: Callable[[Progress], None], most: int | None = None
) -> Copied:
    """Copy an authority with its sessions, events and positions to an empty store. Run it again to continue.

    `most` limits the rows of a transaction further than usual. Raises `StoreRefused`, with the remedy, if an end cannot
    be used or is in use, and `StoreUnavailable` if a database does not respond.
    """
    try:
        async with AsyncExitStack() as stack:
            origin = await _open(source, PostgresEnd.open_source, SqliteEnd.open_source)
            stack.push_async_callback(origin.close)
            identity = await origin.identity()
            if isinstance(source, Path):
                _check_keys(source, identity, origin.name)
            target = await _open(destination, PostgresEnd.open_destination, SqliteEnd.open_destination)
            stack.push_async_callback(target.close)
            if isinstance(destination, Path) and key_file_in(destination).exists():
                _check_keys(destination, identity, origin.name)
            counts = await copy_rows(origin, target, report, most)
            key_file = _bring_keys(source, destination)
    except BadKeyFile as error:
        raise StoreRefused(str(error)) from error
    _, authority_id, revision, horizon = identity.heads[0]
    return Copied(authority_id, revision, horizon, counts, key_file)


async def _open(
    place: Place,
    open_postgres: Callable[[PostgresAddress], Awaitable[PostgresEnd]],
    open_sqlite: Callable[[Path], Awaitable[SqliteEnd]],
) -> PostgresEnd | SqliteEnd:
    return await (open_sqlite(place) if isinstance(place, Path) else open_postgres(place))


def _check_keys(folder: Path, identity: Identity, name: str) -> None:
    """Raise `StoreRefused` unless the key file has the key that the source was last written with."""
    path = key_file_in(folder)
    fingerprints = load_key_ring(path, os.urandom, may_create=False).fingerprints()
    for log, number, fingerprint, *_ in identity.keys:
        if (log, number) == (0, 0) and fingerprint not in fingerprints:
            raise StoreRefused(
                f"the key file {path} does not contain the key that {name} was last written with "
                f"({fingerprint.hex()[:8]}): it is a different file or an older copy. Put the right key file there"
            )


def _bring_keys(source: Place, destination: Place) -> KeyFile:
    if isinstance(destination, PostgresAddress):
        return KeyFile.NEEDED
    if key_file_in(destination).exists():
        return KeyFile.PRESENT
    if isinstance(source, PostgresAddress):
        return KeyFile.NEEDED
    copy_key_file(key_file_in(source), key_file_in(destination))
    give_to_owner(key_file_in(destination))
    return KeyFile.COPIED
