"""Where the server listens: private Unix sockets, never taken from a server that runs, and why listening failed."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CannotListen", "prepare_socket", "private_sockets", "why_not"]

_LONGEST_PATH = 107  # bytes; the kernel's field has one more for the end (unix(7))
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class CannotListen(Exception):
    """The address cannot be listened on; the text says why and what to do."""


def prepare_socket(name: str) -> None:
    """Make way for a socket of that path: what a server that is gone has left is removed. Raises `CannotListen`.

    gRPC itself would take the path from a server that is running, without a word.
    """
    path = Path(name)
    if (length := len(os.fsencode(name))) > _LONGEST_PATH:
        raise _refusal(name, f"the path has {length} bytes, a socket's may have {_LONGEST_PATH}; choose a shorter one")
    try:
        # `Path.is_dir` would call a folder that cannot be looked at missing, or raise, depending on Python's version.
        if not stat.S_ISDIR(path.parent.stat().st_mode):
            raise _refusal(name, f"{path.parent} is not a folder; choose another path")
        found = path.lstat()
    except FileNotFoundError:
        if not os.path.lexists(path.parent):
            raise _refusal(name, f"there is no folder {path.parent}; make it first") from None
        return
    except OSError as error:
        raise _refusal(name, _unix_reason(path, error)) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise _refusal(name, "something else than a socket is there; remove it")
    if _is_answered(name):
        raise _refusal(name, "another server is listening there; stop it first")
    try:
        path.unlink()
    except OSError as error:
        raise CannotListen(f"cannot remove the left-over socket {path}: {error.strerror}") from error


def why_not(address: str) -> CannotListen:
    """Why `host:port` or `unix:path` cannot be listened on. gRPC does not say, so this tries it once without gRPC."""
    if address.startswith("unix:"):
        name = address.removeprefix("unix:")
        return _refusal(name, _unix_cause(Path(name)))
    return CannotListen(f"cannot listen on {address}: {_tcp_cause(address)}")


def _refusal(name: str, reason: str) -> CannotListen:
    return CannotListen(f"cannot listen on unix:{Path(name)}: {reason}")


def _unix_cause(path: Path) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(str(path))
        except OSError as error:
            return _unix_reason(path, error)
    path.unlink()
    return "it failed for a reason that is over now; start again"


def _unix_reason(path: Path, error: OSError) -> str:
    if error.errno in _FORBIDDEN:
        return f"this user may not make a socket in {path.parent}; choose another folder, or change its owner"
    if error.errno == errno.EADDRINUSE:
        return "another server is listening there; stop it first"
    return f"{error.strerror}; choose another path"


def _tcp_cause(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError):
        return f"{host} is not the name or address of a machine; choose another host"
    for family, kind, protocol, _, where in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: old connections do not matter
            try:
                probe.bind(where)
            except OSError as error:
                return _tcp_reason(host, port, error)
    return "it failed for a reason that is over now; start again"


def _tcp_reason(host: str, port: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is in use; stop the server that listens there, or choose another port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose another host"
        case number if number in _FORBIDDEN:
            return f"this user may not use port {port}; choose one from 1024 up"
        case _:
            return f"{error.strerror}; choose another address"


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
