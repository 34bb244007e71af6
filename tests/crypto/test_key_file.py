"""The key file: created once, only together with a new store, and refused if it cannot be secret."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from sessiond.crypto.key_file import BadKeyFile, load_key_ring
from sessiond.crypto.tokens import KEY_BYTES, KeyRing
from tests.contracts import samples

KEYS = [bytes(range(number, number + KEY_BYTES)) for number in range(4)]
RING = KeyRing(KEYS[:1])
SECRET = bytes(range(16))


def key_file(path: Path, *keys: bytes) -> Path:
    """Return a key file with these keys."""
    path.write_text("".join(key.hex() + "\n" for key in keys))
    path.chmod(0o600)
    return path


def test_a_key_file_is_made_once(tmp_path: Path) -> None:
    """The first start creates a key file of mode 0600 and nothing else, and the next start opens what it sealed."""
    path = tmp_path / "sessiond.key"
    token = load_key_ring(path, os.urandom).seal(samples.session_id(), 0, SECRET)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["sessiond.key"]
    load_key_ring(path, os.urandom).open(token.reveal())


def test_a_key_file_holds_up_to_three_keys(tmp_path: Path) -> None:
    """Each line of the file is a key: the first one seals, and all of them open."""
    path = tmp_path / "sessiond.key"
    path.write_text("".join(key.hex() + "\n" for key in KEYS[:3]))
    path.chmod(0o600)
    ring = load_key_ring(path, os.urandom)
    session = samples.session_id()
    assert ring.seal(session, 0, SECRET) == RING.seal(session, 0, SECRET)
    for key in KEYS[:3]:
        ring.open(KeyRing([key]).seal(session, 0, SECRET).reveal())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """A key file that other users can access is refused, with the remedy."""
    path = tmp_path / "sessiond.key"
    load_key_ring(path, os.urandom)
    path.chmod(mode)
    with pytest.raises(BadKeyFile, match="chmod 600"):
        load_key_ring(path, os.urandom)


@pytest.mark.parametrize(
    "content",
    ["", "\n", "zz" * KEY_BYTES, "ab" * 63, "ab" * 65, "é" * 128, "\n".join(key.hex() for key in KEYS[:4])],
)
def test_a_bad_key_file_is_refused(tmp_path: Path, content: str) -> None:
    """A file without one to three valid keys is refused; the message shows nothing of it, and it is not changed."""
    path = tmp_path / "sessiond.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(BadKeyFile, match="one to three lines of 128 hex digits") as refused:
        load_key_ring(path, os.urandom)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert path.read_text() == content


def test_a_key_file_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """If a key file cannot be created because its folder is a file, the message names the path."""
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "sessiond.key"
    with pytest.raises(BadKeyFile, match=re.escape(str(path))):
        load_key_ring(path, os.urandom)


def test_a_folder_in_place_of_the_key_file_is_refused(tmp_path: Path) -> None:
    """A folder with the name of the key file is refused."""
    (tmp_path / "sessiond.key").mkdir(mode=0o700)
    with pytest.raises(BadKeyFile, match="cannot read"):
        load_key_ring(tmp_path / "sessiond.key", os.urandom)


def test_of_two_that_make_a_key_file_the_first_wins(tmp_path: Path) -> None:
    """A process that loses the race to create the key file uses the winner's key, and leaves no draft."""
    path = tmp_path / "sessiond.key"
    winners: list[KeyRing] = []

    def beaten(length: int) -> bytes:
        path.touch(mode=0o600)
        path.write_text(KEYS[0].hex() + "\n")
        winners.append(RING)
        return os.urandom(length)

    ring = load_key_ring(path, beaten)
    session = samples.session_id()
    assert winners
    assert ring.seal(session, 0, SECRET) == RING.seal(session, 0, SECRET)
    assert [file.name for file in tmp_path.iterdir()] == ["sessiond.key"]


def test_a_missing_key_is_not_replaced(tmp_path: Path) -> None:
    """No key is created beside an existing store: the message says what to restore, and no file is left."""
    with pytest.raises(BadKeyFile, match=r"is missing.*Restore the key file"):
        load_key_ring(tmp_path / "sessiond.key", os.urandom, may_create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", [bytes(KEY_BYTES), b"\xff" * KEY_BYTES, b"A" * KEY_BYTES])
def test_a_key_that_is_no_secret_is_refused(tmp_path: Path, key: bytes) -> None:
    """A key of one repeated byte, such as all zeros, is refused."""
    with pytest.raises(BadKeyFile, match="not a secret"):
        load_key_ring(key_file(tmp_path / "sessiond.key", KEYS[0], key), os.urandom)


def test_a_doubled_key_is_refused(tmp_path: Path) -> None:
    """A key that occurs twice in the file is refused, because it would look like a rotation."""
    with pytest.raises(BadKeyFile, match="twice"):
        load_key_ring(key_file(tmp_path / "sessiond.key", KEYS[0], KEYS[1], KEYS[0]), os.urandom)


@pytest.mark.parametrize("may_create", [True, False])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, may_create: bool) -> None:
    """A symbolic link in the place of the key file is refused, even if its target is a good key file."""
    target = key_file(tmp_path / "elsewhere", KEYS[0])
    (tmp_path / "sessiond.key").symlink_to(target)
    with pytest.raises(BadKeyFile, match="cannot read"):
        load_key_ring(tmp_path / "sessiond.key", os.urandom, may_create=may_create)


def test_a_draft_that_a_kill_left_is_removed(tmp_path: Path) -> None:
    """A draft left by a start that was killed is removed at the next start, and other files are kept."""
    for name in (".sessiond.key.4711", ".sessiond.key.backup"):
        key_file(tmp_path / name, KEYS[1])
    load_key_ring(tmp_path / "sessiond.key", os.urandom)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".sessiond.key.backup", "sessiond.key"]


def test_a_planted_draft_is_not_written_through(tmp_path: Path) -> None:
    """A link planted under the draft's name is removed, and its target is not changed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".sessiond.key.{os.getpid()}").symlink_to(victim)
    load_key_ring(tmp_path / "sessiond.key", os.urandom)
    assert victim.read_text() == "precious"


def test_fingerprints_tell_keys_apart_and_show_nothing(tmp_path: Path) -> None:
    """Each key has its own fingerprint, which is always the same and contains no part of the key."""
    ring = load_key_ring(key_file(tmp_path / "sessiond.key", *KEYS[:3]), os.urandom)
    prints = ring.fingerprints()
    assert prints == KeyRing(KEYS[:3]).fingerprints()
    assert len(set(prints)) == 3
    assert not any(fingerprint in key for fingerprint in prints for key in KEYS)
