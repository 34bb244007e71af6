"""Sockets of callers: `[sockets.NAME]`, on which whoever can connect is the caller NAME."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from sessiond.config.sections import SocketSection
from sessiond.domain.immutable import immutable

__all__ = ["CallerSocket", "socket_problems", "sockets_in"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@immutable
class CallerSocket:
    """A Unix socket of one caller.

    caller  the name of the caller; it may be added and revoked while the server runs
    path    where the socket is
    mode    its mode: whether its group may connect, beside the server's own user
    group   its group, by name or number; None: that of the server, or of the folder if that has the setgid bit
    """

    caller: str
    path: str
    mode: int
    group: str | None


def sockets_in(sections: Mapping[str, SocketSection]) -> tuple[CallerSocket, ...]:
    """Return the sockets of a file."""
    return tuple(
        CallerSocket(name, section.path, int(section.mode, 8), section.group) for name, section in sections.items()
    )


def socket_problems(sections: Mapping[str, SocketSection], listen: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the key and the remedy of each socket that does not fit to the others, or to the server's own address."""
    taken = {os.path.abspath(listen.removeprefix("unix:")): "server.listen"} if listen.startswith("unix:") else {}
    for name, section in sections.items():
        if not _NAME.fullmatch(name):
            yield (
                ("sockets", name),
                "the section's name is that of a caller: 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a-z or "
                "0-9",
            )
        path = os.path.abspath(section.path)
        if path in taken:
            yield ("sockets", name, "path"), f"is that of {taken[path]} already; choose another path"
        if section.group is not None and section.mode == "0600":
            yield (
                ("sockets", name, "group"),
                'has no effect if only the server\'s user may connect; set mode = "0660" too',
            )
        taken.setdefault(path, f"sockets.{name}")
