"""Looking at a server's keys, certificate and store without changing them: what `sessionctl doctor` asks for.

Like `copy_store`, one of the few modules of the server that `sessionctl` imports beside the configuration. Nothing here
creates, locks, repairs or removes anything, so that a server may be running meanwhile. The rules are those of the
server's own start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sessiond.access.tls import BadTls, TlsMaterial, load_tls, server_files
from sessiond.authority.key_sources import CommandKeys, FolderKeys, key_source
from sessiond.config import Config
from sessiond.config.data_folder import database_in, key_file_in
from sessiond.config.store_address import PostgresAddress
from sessiond.crypto.key_file import BadKeyFile, read_key_ring
from sessiond.domain.values import Instant
from sessiond.store.contract import StoreRefused, StoreUnavailable
from sessiond.store.postgres.looking import PostgresFacts, ReplicaFacts, look_at_postgres
from sessiond.store.postgres.store import MOST_CONNECTIONS
from sessiond.store.sqlite.files import check_folder
from sessiond.store.sqlite.looking import DatabaseFacts, look_at_database

__all__ = [
    "MOST_CONNECTIONS",
    "BadKeyFile",
    "BadTls",
    "DatabaseFacts",
    "HeldKeys",
    "PostgresFacts",
    "ReplicaFacts",
    "StoreRefused",
    "StoreUnavailable",
    "TlsMaterial",
    "certificate_of",
    "check_folder",
    "database_of",
    "held_keys",
    "postgres_of",
]

HeldKeys = tuple[str, Sequence[bytes] | None]
"""What messages call the place that the keys come from, and their fingerprints; None: only a command has them."""


def held_keys(config: Config) -> HeldKeys:
    """Return the keys of a server with this configuration. Raise `BadKeyFile`, with the remedy.

    `server.keyring_command` is not run: it may have effects.
    """
    source = key_source(config, _no_entropy)
    if isinstance(source, CommandKeys):
        return source.name, None
    if isinstance(source, FolderKeys):
        return source.name, read_key_ring(key_file_in(config.data)).fingerprints()
    return source.name, source.load(may_create=False).fingerprints()


def certificate_of(config: Config, now: Instant) -> TlsMaterial | None:
    """Return the certificate of a server with this configuration; None if it serves no TLS. Raise `BadTls`."""
    files = server_files(config)
    return None if files is None else load_tls(files, now)


def database_of(folder: Path, keys: HeldKeys) -> DatabaseFacts | None:
    """Look at the database of a data folder that no server uses; None if there is none. Raise `StoreRefused`."""
    path = database_in(folder)
    name, fingerprints = keys
    return look_at_database(path, fingerprints or (), name) if path.exists() or path.is_symlink() else None


async def postgres_of(address: PostgresAddress) -> PostgresFacts:
    """Look at a database that servers may be using. Raise `StoreRefused` or `StoreUnavailable`."""
    return await look_at_postgres(address)


def _no_entropy(_: int) -> bytes:
    raise AssertionError("nothing is created here")
