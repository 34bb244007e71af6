"""The commands of the pages about backups and keys, run on a folder of the test with a stand-in for systemctl."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sessionctl.exits import Exit
from sessiond_client import AsyncClient, Verdict
from tests.keyring.rings import until_removed
from tests.support.server import ServerProcess
from tests.test_docs import DOCS, blocks_of

BACK_UP, COPY_KEYS, RESTORE = blocks_of(DOCS / "how-to/back-up-and-restore.md", "sh")
ADD_KEY, PROMOTE_KEY, SHOW_KEYS, RETIRE_KEY = (
    textwrap.dedent(block) for block in blocks_of(DOCS / "how-to/rotate-keys.md", "sh")[:4]
)


class Machine:
    """A data folder, a home folder, and a `systemctl` that records what it is asked to do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.home = folder, folder / "data", folder / "home"
        self.programs, self.asked = folder / "programs", folder / "asked"
        for new in (self.home, self.programs):
            new.mkdir()
        self.replace("systemctl", f'echo "$1" >> {self.asked}')

    def replace(self, program: str, line: str) -> None:
        """Let `program` run a line of shell instead."""
        path = self.programs / program
        path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        path.chmod(0o700)

    def run(self, block: str) -> tuple[int, list[str]]:
        """Run a block of a page. Return its exit code and what it asked of systemctl."""
        self.asked.write_text("", encoding="utf-8")
        block = block.replace("/var/lib/sessiond", str(self.data))
        environment = {"PATH": f"{self.programs}:/usr/bin:/bin", "HOME": str(self.home)}
        run = subprocess.run(["bash", "-c", block], env=environment, capture_output=True, timeout=60, check=False)
        return run.returncode, self.asked.read_text(encoding="utf-8").split()

    def operate(self, address: str) -> None:
        """Let `sessionctl` talk to the server at an address."""
        command = f'SESSIOND_TARGET={address} exec "{sys.executable}" -m sessionctl "$@"'
        self.replace("sessionctl", f'PYTHONPATH="{os.pathsep.join(sys.path)}" {command}')

    async def verdicts(self, *tokens: str) -> list[Verdict]:
        """Start the server, validate the tokens, and stop the server."""
        server = ServerProcess(self.folder)
        try:
            async with AsyncClient(await server.address()) as client:
                return [(await client.validate(token)).verdict for token in tokens]
        finally:
            await server.terminate()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_a_backup_and_a_restore(machine: Machine) -> None:
    """The commands of the page back up a server that runs, and restore on the same machine and on a new one."""
    server = ServerProcess(machine.folder)
    try:
        machine.operate(await server.address())
        async with AsyncClient(await server.address()) as client:
            kept = (await client.create()).token.reveal()
            for block in (BACK_UP, COPY_KEYS):
                assert await asyncio.to_thread(machine.run, block) == (0, [])
            lost = (await client.create()).token.reveal()
    finally:
        await server.terminate()
    (archive,) = machine.home.glob("sessiond-*.tar")
    block = RESTORE.replace("~/sessiond-2026-01-31.tar", str(archive))
    assert "~" not in block
    assert machine.run(block) == (0, ["stop", "start"])
    assert await machine.verdicts(kept, lost) == [Verdict.REVOKED, Verdict.UNKNOWN]
    for path in machine.data.rglob("*"):
        path.unlink() if path.is_file() else None
    (machine.home / "sessiond.key").rename(machine.data / "sessiond.key")
    assert machine.run(block.replace("--end-sessions", "--keep-sessions")) == (0, ["stop", "start"])
    assert await machine.verdicts(kept, lost) == [Verdict.VALID, Verdict.UNKNOWN]


async def test_a_rotation(machine: Machine) -> None:
    """The commands of the page add a key, promote it, and retire the one before, while the server runs."""
    server = ServerProcess(machine.folder)
    try:
        address = await server.address()
        machine.operate(address)
        async with AsyncClient(address) as client:
            old = (await client.create()).token
            (before,) = (await client.key_ring()).keys
            for block in (ADD_KEY, PROMOTE_KEY, SHOW_KEYS):
                assert await asyncio.to_thread(machine.run, block) == (0, [])
            assert (await client.validate(old)).valid
            retire = RETIRE_KEY.replace("4b7e0d91", before.fingerprint[:8])
            assert await asyncio.to_thread(machine.run, retire) == (Exit.FAILED, [])  # a live session has a token of it
            retire = retire.replace("retire", "retire --log-out-sessions")
            assert await asyncio.to_thread(machine.run, retire) == (0, [])
            await until_removed(client, before.fingerprint)
            assert (await client.validate(old)).verdict is Verdict.FORGED
    finally:
        await server.terminate()
