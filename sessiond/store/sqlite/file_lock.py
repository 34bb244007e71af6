"""One process a database file: a lock beside the file that knows who holds it."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from sessiond.config.data_folder import lock_of
from sessiond.store.contract import StoreHeld, StoreRefused

__all__ = ["FileLock"]


class FileLock:
    """An advisory lock on `<file>.lock`, in which the holder writes its process id.

    The kernel unlocks it when the process ends, however it ends, so a stale file is no obstacle. SQLite's own
    exclusive lock stands behind it; this one is there to name the holder.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = lock_of(database)
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises `StoreHeld`, which names the holder, or `StoreRefused` if the file cannot be made."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(self._path, flags, 0o600)
        except OSError as error:
            if self._path.is_symlink():
                raise StoreRefused(f"{self._path} is a symbolic link, which is not followed: remove it") from error
            raise StoreRefused(f"cannot write in the data folder {self._path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # For `sessionctl reload`: of a lock of this kind the kernel tells everybody the holder's process id, in
            # terms of whoever asks. It alone would not do: a process loses it when it closes any handle of the file.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise StoreHeld(
                f"{self._database} is held by process {holder}: an embedded database belongs to one sessiond. "
                f"Stop that process, or serve from another folder"
            ) from None
        if not _may_be_written(handle):
            os.close(handle)
            raise StoreRefused(f"{self._path} is not a lock file of sessiond: remove it")
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode("ascii"))
        self._handle = handle

    def release(self) -> None:
        """Unlock; the file stays and names nobody."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


def _may_be_written(handle: int) -> bool:
    """Whether the file is one that `acquire` has written before, or a new one: a process id at most."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        return False
    content = os.pread(handle, 64, 0).strip()
    return found.st_size <= 32 and (not content or content.isdigit())
