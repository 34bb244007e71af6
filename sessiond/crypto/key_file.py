"""The key file of the embedded store: one to three keys, the sealing key first. It lies beside the database."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from sessiond.crypto.tokens import KEY_BYTES, KeyRing
from sessiond.domain.values import Entropy

__all__ = ["MOST_BYTES", "BadKeyFile", "copy_key_file", "load_key_ring", "parse_keys", "read_key_ring", "save_keys"]

_FORMAT = f"must contain one to three lines of {2 * KEY_BYTES} hex digits each"
MOST_BYTES = 4096
"""More than a key ring takes, which is all that is read of one."""


class BadKeyFile(Exception):
    """The key file cannot be used. The text gives the reason and the remedy, and never contains a key."""


def load_key_ring(path: Path, entropy: Entropy, *, may_create: bool = True) -> KeyRing:
    """Return the key ring in the file `path`: one to three lines of 128 hexadecimal digits, the sealing key first.

    If the file does not exist and `may_create` is true, create it with one random key and mode 0600. Pass true only if
    the store is created at the same time.
    Raise `BadKeyFile` if the file is missing or malformed, if other users can read it, if it is a symbolic link, or if
    a key in it is evidently not random.
    """
    _remove_drafts(path)
    if may_create:
        try:
            _create_key_file(path, lambda: entropy(KEY_BYTES).hex() + "\n")
        except FileExistsError:
            pass
        except OSError as error:
            raise BadKeyFile(
                f"cannot create the key file {path}: {error.strerror}; correct that, or choose another data folder"
            ) from error
    return read_key_ring(path)


def read_key_ring(path: Path) -> KeyRing:
    """Return the key ring in a file, as `load_key_ring` does, and change nothing. Raise `BadKeyFile`."""
    try:
        content = _read(path)
    except FileNotFoundError:
        raise BadKeyFile(
            f"the key file {path} is missing, but the database was written with one. Restore the key file from a "
            "backup, or copy it from another replica; without it every user is logged out. To start over, use an empty "
            "database"
        ) from None
    except OSError as error:
        raise BadKeyFile(
            f"cannot read the key file {path}: {error.strerror}; it must be a regular file that this user can read"
        ) from error
    return _parse(path, content)


def copy_key_file(source: Path, destination: Path) -> None:
    """Create the key file `destination` with the keys of another one; it must not exist. Raise `BadKeyFile`."""
    try:
        content = _read(source)
        _parse(source, content)
        _create_key_file(destination, lambda: content.decode("ascii"))
    except OSError as error:
        raise BadKeyFile(f"cannot copy the key file {source} to {destination}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise BadKeyFile(f"cannot read the key file {path}: it is not a regular file; remove it")
        if found.st_mode & 0o077:
            raise BadKeyFile(f"other users can access the key file {path}; run: chmod 600 {path}")
        return os.read(handle, MOST_BYTES)
    finally:
        os.close(handle)


def parse_keys(name: str, content: bytes) -> KeyRing:
    """Return the keys in the content of a key file; `name` is what messages call it. Raise `BadKeyFile`."""
    try:
        keys = [bytes.fromhex(line) for line in content.decode("ascii").split()]
        ring = KeyRing(keys)
    except ValueError:
        # Without `from None` the traceback would show the content of the file.
        raise BadKeyFile(f"{name} {_FORMAT}") from None
    if len(set(keys)) < len(keys):
        raise BadKeyFile(f"{name} contains the same key twice; remove one of the lines")
    if any(len(set(key)) == 1 for key in keys):
        raise BadKeyFile(f"{name} contains a key that is one byte repeated, not a secret; replace it")
    return ring


def _parse(path: Path, content: bytes) -> KeyRing:
    return parse_keys(f"the key file {path}", content)


def save_keys(path: Path, keys: Sequence[bytes]) -> None:
    """Replace the keys in the file `path`, the sealing key first, durably and with mode 0600. Raise `BadKeyFile`.

    After a crash the file has either the keys from before or these.
    """
    try:
        draft = _write_draft(path, "".join(key.hex() + "\n" for key in keys))
        try:
            os.replace(draft, path)
        except OSError:
            draft.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise BadKeyFile(f"cannot write the key file {path}: {error.strerror}") from error


def _create_key_file(path: Path, content: Callable[[], str]) -> None:
    if os.path.lexists(path):
        raise FileExistsError(path)
    # Write a draft and link it into place: a crash cannot leave a partial key, and a race cannot create a second one.
    draft = _write_draft(path, content())
    try:
        os.link(draft, path)
        _sync_folder(path.parent)
    finally:
        draft.unlink()


def _write_draft(path: Path, content: str) -> Path:
    """Write a file beside `path` that only this user can read, durably. Return its path."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink()
        raise
    return draft


def _remove_drafts(path: Path) -> None:
    """Remove the drafts of processes that were killed while they created a key file. Their keys were never used.

    The caller holds the store's lock, so no other process is creating a key file here.
    """
    for draft in path.parent.glob(f".{path.name}.*"):
        if draft.suffix.removeprefix(".").isdecimal():
            try:
                draft.unlink()
            except OSError as error:
                raise BadKeyFile(f"cannot remove the leftover file {draft}: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
