"""Backups for tests, made by the real command, and damaged in every way."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from sessionctl import main
from tests.sessionctl.operator import SCREEN

__all__ = ["back_up", "description_of", "operate", "put_back", "rewritten"]


async def operate(*arguments: str, stdin: bytes | None = None) -> Result:
    """Run `sessionctl`; its standard streams are no terminal."""
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, input=stdin, obj=SCREEN)


async def back_up(address: str, file: Path, *arguments: str) -> Result:
    """Back up the server at an address."""
    return await operate("backup", str(file), "--target", address, *arguments)


async def put_back(file: Path, folder: Path, *arguments: str) -> Result:
    """Restore a backup. Without another wish its sessions are kept."""
    wish = [] if "--end-sessions" in arguments else ["--keep-sessions"]
    return await operate("restore", str(file), str(folder), *arguments, *wish)


def description_of(file: Path) -> dict[str, Any]:
    """What a backup says of itself."""
    with tarfile.open(file) as archive:
        content = archive.extractfile("backup.json")
        assert content is not None
        found: dict[str, Any] = json.load(content)
        return found


def rewritten(file: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    """Write an archive again. `change` gets each member's name and content; None: leave it out."""
    with tarfile.open(file) as archive:
        members = [(one.name, archive.extractfile(one)) for one in archive.getmembers()]
        changed = [change(name, content.read()) for name, content in members if content is not None]
    with tarfile.open(file, "w") as archive:
        for one in changed:
            if one is not None:
                info = tarfile.TarInfo(one[0])
                info.size = len(one[1])
                archive.addfile(info, io.BytesIO(one[1]))
