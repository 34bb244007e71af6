"""Creating the key file: after a power failure at any moment there is either a complete key or none."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sessiond.crypto.key_file import BadKeyFile, load_key_ring
from sessiond.crypto.tokens import KEY_BYTES


class Disk:
    """Records the operations on the disk in order: each sync, the size of each synced file, and each linked name."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[Any, ...]] = []
        self._fsync, self._link = os.fsync, os.link
        patch.setattr(os, "fsync", self.fsync)
        patch.setattr(os, "link", self.link)

    def fsync(self, handle: int) -> None:
        """Sync, and record it."""
        state = os.fstat(handle)
        self.done.append(
            ("folder", state.st_ino) if stat.S_ISDIR(state.st_mode) else ("file", state.st_ino, state.st_size)
        )
        self._fsync(handle)

    def link(self, source: Path, target: Path) -> None:
        """Link, and record it."""
        self.done.append(("link", target.name))
        self._link(source, target)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return the recorded operations on the disk."""
    return Disk(monkeypatch)


def test_a_key_is_on_disk_before_it_has_its_name(tmp_path: Path, disk: Disk) -> None:
    """The complete key is synced first, then linked under its name, and then its folder is synced."""
    path = tmp_path / "sessiond.key"
    load_key_ring(path, os.urandom)
    assert path.stat().st_size == 2 * KEY_BYTES + 1
    assert disk.done == [
        ("file", path.stat().st_ino, path.stat().st_size),
        ("link", "sessiond.key"),
        ("folder", tmp_path.stat().st_ino),
    ]


def test_a_key_that_is_there_is_only_read(tmp_path: Path, disk: Disk) -> None:
    """A later start writes nothing."""
    path = tmp_path / "sessiond.key"
    load_key_ring(path, os.urandom)
    del disk.done[:]
    before = path.read_bytes()
    load_key_ring(path, os.urandom)
    assert (disk.done, path.read_bytes()) == ([], before)


def test_a_disk_that_cannot_keep_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the key cannot be synced, neither a key file nor a draft is left, and the next start creates a new key."""

    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    path = tmp_path / "sessiond.key"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(BadKeyFile, match="Input/output error"):
            load_key_ring(path, os.urandom)
    assert list(tmp_path.iterdir()) == []
    load_key_ring(path, os.urandom)
    assert [file.name for file in tmp_path.iterdir()] == ["sessiond.key"]
