"""A lock file beside the database: only one process can open it, and the file names that process."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from sessiond.config.data_folder import lock_of
from sessiond.store.contract import StoreHeld, StoreRefused

__all__ = ["FileLock"]


class FileLock:
    """An advisory lock on `<file>.lock`. The holder writes its process id into the file.

    The kernel releases the lock when the process ends for any reason, so a leftover file does no harm. SQLite's own
    exclusive lock also protects the database; this lock exists to name the holder.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = lock_of(database)
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raise `StoreHeld`, which names the holder, or `StoreRefused` if the file cannot be used."""
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            handle = os.open(self._path, flags, 0o600)
        except OSError as error:
            if self._path.is_symlink():
                raise StoreRefused(f"{self._path} is a symbolic link, which is not allowed; remove it") from error
            raise StoreRefused(
                f"cannot write to the data folder {self._path.parent}: {error.strerror}; "
                "correct that, or choose another with --data or `server.data`"
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # `sessionctl reload` needs this second lock: the kernel reports the process id of its holder, translated
            # into the PID namespace of the process that asks. It is not enough alone: a process loses a lock of this
            # kind as soon as it closes any handle of the file.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise StoreHeld(
                f"{self._database} is in use by process {holder}: only one sessiond can use a database file. "
                f"Stop that process, or use another data folder"
            ) from None
        if not _is_lock_file(handle):
            os.close(handle)
            raise StoreRefused(f"{self._path} is not a lock file of sessiond; remove it")
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode("ascii"))
        self._handle = handle

    def release(self) -> None:
        """Release the lock. The file remains, empty."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None


def _is_lock_file(handle: int) -> bool:
    """Return whether the file is empty or contains only a process id, so that it may be overwritten."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        return False
    content = os.pread(handle, 64, 0).strip()
    return found.st_size <= 32 and (not content or content.isdigit())
