"""The key file of the embedded default: one to three keys, the sealing key first, beside the database."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sessiond.crypto.tokens import KEY_BYTES, KeyRing
from sessiond.domain.values import Entropy

__all__ = ["BadKeyFile", "load_key_ring"]

_FORM = f"must hold one to three lines of {2 * KEY_BYTES} hex digits"
_MOST_BYTES = 4096


class BadKeyFile(Exception):
    """The key file cannot be used; the text says why and what to do, and holds no key."""


def load_key_ring(path: Path, entropy: Entropy, *, may_make: bool = True) -> KeyRing:
    """The key ring in a file: one to three lines of 128 hexadecimal digits, the sealing key first.

    A file that is not there is made, with one fresh key and mode 0600, if `may_make`: that is, together with a new
    store. One that others may read, a symbolic link, and keys that are no secret are refused. Raises `BadKeyFile`.
    """
    _remove_drafts(path)
    if may_make:
        try:
            _make_key_file(path, entropy)
        except FileExistsError:
            pass
        except OSError as error:
            raise BadKeyFile(f"cannot make the key file {path}: {error.strerror}") from error
    try:
        content = _read(path)
    except FileNotFoundError:
        raise BadKeyFile(
            f"the key file {path} is missing, and the database beside it was written with one. Restore the key file "
            "from a backup: without it every user is logged out. To start over, serve from an empty folder"
        ) from None
    except OSError as error:
        raise BadKeyFile(f"cannot read the key file {path}: {error.strerror}") from error
    return _parse(path, content)


def _read(path: Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise BadKeyFile(f"cannot read the key file {path}: it is not a regular file")
        if found.st_mode & 0o077:
            raise BadKeyFile(f"the key file {path} can be read by others: chmod 600 {path}")
        return os.read(handle, _MOST_BYTES)
    finally:
        os.close(handle)


def _parse(path: Path, content: bytes) -> KeyRing:
    try:
        keys = [bytes.fromhex(line) for line in content.decode("ascii").split()]
        ring = KeyRing(keys)
    except ValueError:
        # The cause would show what the file holds.
        raise BadKeyFile(f"the key file {path} {_FORM}") from None
    if len(set(keys)) < len(keys):
        raise BadKeyFile(f"the key file {path} holds the same key twice: remove one of the lines")
    if any(len(set(key)) == 1 for key in keys):
        raise BadKeyFile(f"the key file {path} holds a key that is one byte repeated, which is no secret: replace it")
    return ring


def _make_key_file(path: Path, entropy: Entropy) -> None:
    if os.path.lexists(path):
        raise FileExistsError(path)
    # Written aside and linked into place: a crash leaves no half-written key, a race no second one.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(entropy(KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
        _sync_folder(path.parent)
    finally:
        draft.unlink()


def _remove_drafts(path: Path) -> None:
    """Remove what a start that was killed has left: a draft holds a key that is in use nowhere.

    Nobody else makes a key here meanwhile: the store's lock on the folder is held.
    """
    for draft in path.parent.glob(f".{path.name}.*"):
        if draft.suffix.removeprefix(".").isdecimal():
            try:
                draft.unlink()
            except OSError as error:
                raise BadKeyFile(f"cannot remove the left-over {draft}: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
