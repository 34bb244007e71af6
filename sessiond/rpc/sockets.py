"""Listening: prepare Unix sockets without taking them from a running server, and explain why listening failed."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "CannotListen",
    "check_port",
    "open_socket",
    "prepare_socket",
    "private_sockets",
    "reserve_port",
    "why_not",
]

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
    try:
        return CannotListen(f"cannot listen on {address}: {_tcp_cause(address)}")
    except CannotListen as error:
        return error


def reserve_port(address: str) -> tuple[list[socket.socket], str]:
    """Reserve `host:port` (port 0: any free port) for several servers of this user that share it.

    Return sockets that keep it reserved until they are closed, and the address. They accept no connections.
    Raise `CannotListen` if another server has the port.
    """
    host, _, text = address.rpartition(":")
    number, held = int(text), list[socket.socket]()
    try:
        for family, kind, protocol, _, target in _resolved(address):
            for shares in (False, True) if number else (True,):
                # First without sharing: a port that can only be shared belongs to somebody else.
                one = socket.socket(family, kind, protocol)
                held.append(one)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shares:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                one.bind((target[0], number, *target[2:]))
                if not shares:
                    held.pop().close()
                number = one.getsockname()[1] if shares else number
    except OSError as error:
        for one in held:
            one.close()
        raise CannotListen(f"cannot listen on {address}: {_tcp_reason(host, text, error)}") from error
    return held, f"{host}:{number}"


def _resolved(address: str) -> list[Any]:
    """Return what `getaddrinfo` finds for `host:port`. Raise `CannotListen` if there is no such host."""
    host, _, port = address.rpartition(":")
    try:
        return socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError):
        reason = f"the host {host} was not found; check its spelling, or choose another host"
        raise CannotListen(f"cannot listen on {address}: {reason}") from None


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
    """Return what is wrong with each address that the host has; "" if nothing is. Raise `CannotListen` for no host."""
    host, _, port = address.rpartition(":")
    return [_tcp_problem(host, port, one) for one in _resolved(address)]


def _tcp_problem(host: str, port: str, resolved: Any) -> str:
    family, kind, protocol, _, target = resolved
    with socket.socket(family, kind, protocol) as probe:
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


def open_socket(path: str, mode: int, group: str | None = None) -> None:
    """Give a socket that was created as a private one its group, by name or number, and its mode.

    Raises `CannotListen` if it cannot have that group; the socket is removed then.
    """
    if group is not None and (reason := _give(path, group)):
        # The server that has bound it may live on for a while.
        Path(path).unlink()
        raise _refusal(path, reason)
    Path(path).chmod(mode)


def _give(path: str, group: str) -> str:
    """Give a socket to a group; return why that is not possible, or ""."""
    try:
        # A name of digits is a number: groups that only the host of a container knows have no name.
        os.chown(path, -1, int(group) if group.isascii() and group.isdecimal() else grp.getgrnam(group).gr_gid)
    except (KeyError, OverflowError):
        return f"there is no group {group}; create it, or choose another one"
    except OSError:
        return f"this user may not give the socket to the group {group}; make the user a member of it"
    return ""


@contextmanager
def private_sockets() -> Iterator[None]:
    """Create sockets in this block with mode 0600, whatever the umask of the process is."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
