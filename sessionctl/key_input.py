"""How a command gets the key with which it calls the server."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sessiond_client import Token

__all__ = ["read_key"]

_LONGEST = 4096


def read_key(file: str, source: str) -> Token:
    """The key in a file, whose only line it must be. Raises click.UsageError that names `source` and the file.

    A file, because arguments and the environment are visible to others. It must not be readable by everyone.
    """
    from sessiond_client import Token

    path = Path(file)
    try:
        if path.stat().st_mode & stat.S_IROTH:
            raise click.UsageError(f"{source}: {file} can be read by everyone; run: chmod 600 {file}")
        with path.open("rb") as opened:
            text = opened.read(_LONGEST + 1)
    except OSError as error:
        raise click.UsageError(f"{source}: cannot read {file}: {error.strerror}") from None
    key = text.decode("ascii", "replace").strip()
    if not key.startswith("sessiond_") or len(text) > _LONGEST or len(key.split()) != 1:
        raise click.UsageError(
            f"{source}: {file} does not hold a key; it must have one line, as `callers add` wrote it"
        )
    return Token(key)
