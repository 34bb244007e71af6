"""Unix sockets: for this user alone, and never taken from a server that is running."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CannotListen", "prepare_socket", "private_sockets"]


class CannotListen(Exception):
    """The address cannot be listened on; the text says why and what to do."""


def prepare_socket(name: str) -> None:
    """Make way for a socket of that path: what a server that is gone has left is removed. Raises `CannotListen`.

    gRPC itself would take the path from a server that is running, without a word.
    """
    path = Path(name)
    if not path.parent.is_dir():
        raise CannotListen(f"cannot listen on unix:{path}: there is no folder {path.parent}; make it first")
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotListen(f"cannot listen on unix:{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise CannotListen(f"cannot listen on unix:{path}: something else than a socket is there; remove it")
    if _is_answered(name):
        raise CannotListen(f"cannot listen on unix:{path}: another server is listening there; stop it first")
    try:
        path.unlink()
    except OSError as error:
        raise CannotListen(f"cannot remove the left-over socket {path}: {error.strerror}") from error


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


@contextmanager
def private_sockets() -> Iterator[None]:
    """Sockets that are made meanwhile are for this user alone, whatever the umask of the process is."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
