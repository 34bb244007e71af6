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
    group   the group, by name or number, whose members may connect beside the server's own user; None: nobody else
    """

    caller: str
    path: str
    group: str | None

    @property
    def mode(self) -> int:
        """The mode of the socket."""
        return 0o600 if self.group is None else 0o660


def sockets_in(sections: Mapping[str, SocketSection]) -> tuple[CallerSocket, ...]:
    """Return the sockets of a file."""
    return tuple(CallerSocket(name, section.path, section.group) for name, section in sections.items())


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
        taken.setdefault(path, f"sockets.{name}")
