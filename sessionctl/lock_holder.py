"""Which process uses a data folder."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path

from sessionctl.failures import Failure

__all__ = ["holder_of"]

_FLOCK = (
    (("start", "length", "pid", "kind", "whence"), "qqihh")
    if sys.platform == "darwin"
    else (("kind", "whence", "start", "length", "pid"), "hhqqi")
)
"""The fields of C's `struct flock`, and their types."""


def holder_of(lock: Path) -> int | None:
    """The process that holds the lock according to the kernel, not to the file; 0: one in another container."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"cannot read {lock}: {error.strerror}; run this as the server's user or as root") from None
    try:
        return _locked_by(handle)
    finally:
        os.close(handle)


def _locked_by(handle: int) -> int | None:
    """Ask whether the file could be locked, and who prevents it; see `F_GETLK` in fcntl(2). Locks nothing."""
    fields, form = _FLOCK
    question = {"kind": fcntl.F_WRLCK, "whence": os.SEEK_SET, "start": 0, "length": 0, "pid": 0}
    answer = fcntl.fcntl(handle, fcntl.F_GETLK, struct.pack(form, *(question[name] for name in fields)))
    found = dict(zip(fields, struct.unpack(form, answer[: struct.calcsize(form)]), strict=True))
    return None if found["kind"] == fcntl.F_UNLCK else max(0, int(found["pid"]))
