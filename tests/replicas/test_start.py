"""Replicas that start: with the wrong keys, or at the same time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond.config.store_address import parse_store
from sessiond.crypto.key_file import BadKeyFile
from sessiond.crypto.tokens import KEY_BYTES
from sessiond.store.contract import StoreRefused
from tests.support.replicas import replica
from tests.support.server import config_for


def key_file(folder: Path) -> Path:
    """Return the key file of a replica."""
    return folder / "data" / "sessiond.key"


async def start(folder: Path, database: str) -> App:
    """Start a replica with the keys in its folder, if there are any."""
    return await App.start(config_for(folder, store=parse_store(database)))


async def test_a_replica_without_the_key_file_is_refused(tmp_path: Path, database: str) -> None:
    """A second replica without the key file is refused, makes none, and is told where to get it."""
    async with replica(tmp_path, database, 0):
        with pytest.raises(BadKeyFile, match=r"is missing.*copy it from another replica"):
            await start(tmp_path / "second", database)
        assert not key_file(tmp_path / "second").exists()


async def test_a_replica_with_another_key_file_is_refused(tmp_path: Path, database: str) -> None:
    """A second replica with a key file of its own is refused, and is told to copy the other one's."""
    async with replica(tmp_path, database, 0):
        file = key_file(tmp_path / "second")
        file.parent.mkdir(parents=True, mode=0o700)
        file.write_text(os.urandom(KEY_BYTES).hex() + "\n", encoding="ascii")
        file.chmod(0o600)
        with pytest.raises(StoreRefused, match="Copy the key file of a running replica"):
            await start(tmp_path / "second", database)


async def test_a_new_first_key_is_refused_until_every_replica_has_it(tmp_path: Path, database: str) -> None:
    """A replica with a first key that a running one does not know is refused, and is told the order of the steps."""
    async with replica(tmp_path, database, 0):
        file = key_file(tmp_path / "second")
        file.parent.mkdir(parents=True, mode=0o700)
        keys = [os.urandom(KEY_BYTES).hex(), key_file(tmp_path / "replica-0").read_text(encoding="ascii").strip()]
        file.write_text("\n".join(keys), encoding="ascii")
        file.chmod(0o600)
        with pytest.raises(StoreRefused, match="as its second line first, and move it to the first line afterwards"):
            await start(tmp_path / "second", database)
        file.write_text("\n".join(reversed(keys)), encoding="ascii")
        await (await start(tmp_path / "second", database)).stop()


async def test_two_replicas_that_start_at_once_make_one_key(tmp_path: Path, database: str) -> None:
    """Of two replicas that start at the same time on an empty database, one makes a key, and the other is refused."""
    folders = [tmp_path / "one", tmp_path / "other"]
    started = await asyncio.gather(*(start(folder, database) for folder in folders), return_exceptions=True)
    running = [app for app in started if isinstance(app, App)]
    try:
        assert [type(error) for error in started if error not in running] == [BadKeyFile]
        assert [key_file(folder).exists() for folder in folders] == [app in running for app in started]
    finally:
        for app in running:
            await app.stop()
