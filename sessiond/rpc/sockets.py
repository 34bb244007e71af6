"""Listening: prepare Unix sockets without taking them from a running server, and explain why listening failed."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["CannotListen", "check_port", "open_socket", "prepare_socket", "private_sockets", "why_not"]

_LONGEST_PATH = 107  # bytes; the kernel's field has 108, one of them for the terminating NUL (unix(7))
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


class CannotListen(Exception):
    """The server cannot listen on an address. The text states the cause and the remedy."""


def prepare_socket(name: str) -> None:
    """Remove the socket that a stopped server left at a path. Raises `CannotListen` if no socket can be created there.

    Without this check gRPC would silently take the path from a running server.
    """
    path = Path(name)
    if (length := len(os.fsencode(name))) > _LONGEST_PATH:
        raise _refusal(name, f"the path is {length} bytes long and the limit is {_LONGEST_PATH}; choose a shorter path")
    try:
        # For a folder that may not be read `Path.is_dir` returns False or raises, depending on the Python version.
        if not stat.S_ISDIR(path.parent.stat().st_mode):
            raise _refusal(name, f"{path.parent} is not a folder; choose another path")
        found = path.lstat()
    except FileNotFoundError:
        if not os.path.lexists(path.parent):
            raise _refusal(name, f"the folder {path.parent} does not exist; create it first") from None
        return
    except OSError as error:
        raise _refusal(name, _unix_reason(path, error)) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise _refusal(name, "a file that is not a socket is there; remove it, or choose another path")
    if _is_answered(name):
        raise _refusal(name, "another server is listening there; stop it, or choose another path")
    try:
        path.unlink()
    except OSError as error:
        raise CannotListen(
            f"cannot remove the socket {path} of a stopped server: {error.strerror}; remove it"
        ) from error


def why_not(address: str) -> CannotListen:
    """Return why the server cannot listen on `host:port` or `unix:path`. gRPC does not say, so this tries it again."""
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
    return "the first attempt failed, a second one did not; start again"


def _unix_reason(path: Path, error: OSError) -> str:
    if error.errno in _FORBIDDEN:
        return f"this user may not create a socket in {path.parent}; choose another folder, or change its owner"
    if error.errno == errno.EADDRINUSE:
        return "another server is listening there; stop it, or choose another path"
    return f"{error.strerror}; choose another path"


def check_port(address: str) -> None:
    """Raise `CannotListen` if no server can listen on an address now.

    The native transport writes a line of its own to standard error when it cannot listen, so it does not even try.
    """
    if not address.startswith("unix:") and all(problems := _tcp_problems(address)):
        raise CannotListen(f"cannot listen on {address}: {problems[0]}")


def _tcp_cause(address: str) -> str:
    return next(filter(None, _tcp_problems(address)), "the first attempt failed, a second one did not; start again")


def _tcp_problems(address: str) -> list[str]:
    """Return what is wrong with each address that the host has, or that it has none; "" if nothing is wrong."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError):
        return [f"the host {host} was not found; check its spelling, or choose another host"]
    return [_tcp_problem(address, family, target) for family, *_, target in found]


def _tcp_problem(address: str, family: int, target: Any) -> str:
    host, _, port = address.rpartition(":")
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As gRPC does: closed connections must not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(target)
        except OSError as error:
            return _tcp_reason(host, port, error)
    return ""


def _tcp_reason(host: str, port: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is in use; stop the server that listens there, or choose another port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose another host"
        case number if number in _FORBIDDEN:
            return f"this user may not use port {port}; choose a port from 1024 up"
        case _:
            return f"{error.strerror}; choose another address"


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # such as a full backlog, or a socket of another user: somebody may be listening
    return True


def open_socket(path: str, mode: int) -> None:
    """Give a socket that was created as a private one its mode."""
    Path(path).chmod(mode)


@contextmanager
def private_sockets() -> Iterator[None]:
    """Create sockets in this block with mode 0600, whatever the umask of the process is."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
