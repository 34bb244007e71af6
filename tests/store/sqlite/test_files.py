"""The data folder: keys and database must match, and files that other users could have planted are not trusted."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import KEY_BYTES, KeyRing
from sessiond.store.contract import StoreHeld, StoreRefused
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.sqlite.store import SqliteStore

KEYS = [bytes(range(number, number + KEY_BYTES)) for number in range(4)]


def keys(*materials: bytes) -> StoreKeys:
    """Return the keys of a ring in the form that a store takes."""
    ring = KeyRing(materials)
    return StoreKeys(DataCipher(ring.materials(), os.urandom, encrypts=False), ring.fingerprints())


async def open_with(path: Path, *materials: bytes) -> None:
    """Open the database with this key ring, and close it."""
    store = await SqliteStore.open(path, lambda is_new: keys(*materials))
    await store.close()


async def refusal(path: Path, *materials: bytes) -> str:
    """Return the message with which the store refuses to open."""
    with pytest.raises(StoreRefused) as refused:
        await open_with(path, *(materials or KEYS[:1]))
    return str(refused.value)


async def test_another_key_is_refused(tmp_path: Path) -> None:
    """A database is refused with a key ring that lacks the key it was last written with, and stays usable."""
    path = tmp_path / "sessiond.db"
    await open_with(path, KEYS[0])
    assert "Restore the right key file" in await refusal(path, KEYS[1])
    await open_with(path, KEYS[0])


async def test_a_rotated_ring_opens_and_its_older_copy_does_not(tmp_path: Path) -> None:
    """A new sealing key before the old one is accepted; the ring from before the rotation is then an outdated copy."""
    path = tmp_path / "sessiond.db"
    await open_with(path, KEYS[0])
    await open_with(path, KEYS[1], KEYS[0])
    assert "older copy" in await refusal(path, KEYS[0])
    await open_with(path, KEYS[2], KEYS[1])
    await open_with(path, KEYS[2])


async def test_only_a_new_database_may_have_a_key_made(tmp_path: Path) -> None:
    """The function that loads the keys is told whether the database is new."""
    told: list[bool] = []

    def load(is_new: bool) -> StoreKeys:
        told.append(is_new)
        return keys(KEYS[0])

    for _ in range(2):
        store = await SqliteStore.open(tmp_path / "sessiond.db", load)
        await store.close()
    assert told == [True, False]


async def test_a_link_in_place_of_the_database(tmp_path: Path) -> None:
    """A symbolic link in the place of the database is not followed."""
    (tmp_path / "sessiond.db").symlink_to(tmp_path / "elsewhere")
    assert "cannot open" in await refusal(tmp_path / "sessiond.db")
    assert not (tmp_path / "elsewhere").exists()


async def test_a_link_in_place_of_the_lock(tmp_path: Path) -> None:
    """A symbolic link in the place of the lock file is refused, and its target is not truncated."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "sessiond.db.lock").symlink_to(victim)
    assert "symbolic link" in await refusal(tmp_path / "sessiond.db")
    assert victim.read_text() == "precious"


async def test_a_lock_file_that_is_something_else(tmp_path: Path) -> None:
    """A file with the lock's name that sessiond did not write is refused and not truncated."""
    other = tmp_path / "sessiond.db.lock"
    other.write_text("somebody's notes")
    assert "not a lock file" in await refusal(tmp_path / "sessiond.db")
    assert other.read_text() == "somebody's notes"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
async def test_a_database_that_others_may_read(tmp_path: Path, mode: int) -> None:
    """A database that other users can read is refused, with the remedy."""
    path = tmp_path / "sessiond.db"
    await open_with(path, KEYS[0])
    path.chmod(mode)
    assert f"chmod 600 {path}" in await refusal(path)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
async def test_a_folder_that_others_may_write_in(tmp_path: Path, mode: int) -> None:
    """A data folder that other users can write to is refused, with the remedy."""
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    assert f"chmod 700 {folder}" in await refusal(folder / "sessiond.db")


async def test_a_lock_that_is_released_names_nobody(tmp_path: Path) -> None:
    """After a clean stop the lock file contains no process id."""
    await open_with(tmp_path / "sessiond.db", KEYS[0])
    assert (tmp_path / "sessiond.db.lock").read_text() == ""


async def test_a_held_lock_can_be_told_apart(tmp_path: Path) -> None:
    """A database that another process has open is refused with a separate exception, because it may be free later."""
    lock = tmp_path / "sessiond.db.lock"
    lock.write_text("4711\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreHeld, match="in use by process 4711"):
            await open_with(tmp_path / "sessiond.db", KEYS[0])
