"""Whose files are in a data folder."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["give_to_owner"]


def give_to_owner(path: Path) -> None:
    """Give a file to the owner of its folder, if we are root.

    An administrator may run a command as root on the folder of a server that runs as another user, and that server must
    be able to open what the command creates.
    """
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)
