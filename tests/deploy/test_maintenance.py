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

BACK_UP, RESTORE = blocks_of(DOCS / "how-to/back-up-and-restore.md", "sh")[:2]
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

    def restore(self, archive: Path) -> tuple[int, list[str]]:
        """Run the block of the restore with an archive."""
        assert RESTORE.count("~/sessiond-2026-01-31.tar.gz") == 1
        return self.run(RESTORE.replace("~/sessiond-2026-01-31.tar.gz", str(archive)))

    def back_up(self) -> Path:
        """Run the block of the backup, and return the archive."""
        assert self.run(BACK_UP) == (0, ["stop", "start"])
        (archive,) = self.home.glob("sessiond-*.tar.gz")
        return archive

    def moved(self) -> list[Path]:
        """The folders with the files that restores replaced, oldest first."""
        return sorted(self.folder.glob("data-before-restore-*"))

    async def create(self, *, kill: bool = False) -> str:
        """Start the server, create a session, stop or kill the server, and return the token."""
        server = ServerProcess(self.folder)
        try:
            async with AsyncClient(await server.address()) as client:
                return (await client.create()).token.reveal()
        finally:
            server.kill() if kill else await server.terminate()

    async def verdicts(self, *tokens: str) -> list[Verdict]:
        """Start the server, validate the tokens, and stop the server."""
        server = ServerProcess(self.folder)
        try:
            async with AsyncClient(await server.address()) as client:
                return [(await client.validate(token)).verdict for token in tokens]
        finally:
            await server.terminate()


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_a_restore(machine: Machine, kill: bool) -> None:
    """A restored folder has the sessions of the backup and no others, also if a write-ahead log was left, and twice."""
    kept = await machine.create()
    archive = machine.back_up()
    for count in (1, 2):
        lost = await machine.create(kill=kill)
        assert (machine.data / "sessiond.db-wal").exists() is kill
        (machine.data / "GeoLite2-City.mmdb").write_bytes(b"not ours")
        assert machine.restore(archive) == (0, ["stop", "start"])
        assert (machine.data / "GeoLite2-City.mmdb").exists()
        assert len(machine.moved()) == count
        assert machine.moved()[-1].stat().st_mode & 0o777 == 0o700
        assert machine.data.stat().st_mode & 0o777 == 0o700
        assert await machine.verdicts(kept, lost) == [Verdict.VALID, Verdict.UNKNOWN]
        machine.moved()[-1].rename(machine.folder / f"data-before-restore-{count}")  # the two may share a second


async def test_a_restore_into_an_empty_folder(machine: Machine) -> None:
    """A restore on a new machine has nothing to move, and works."""
    kept = await machine.create()
    archive = machine.back_up()
    for path in machine.data.iterdir():
        path.unlink()
    assert machine.restore(archive) == (0, ["stop", "start"])
    assert await machine.verdicts(kept) == [Verdict.VALID]


async def test_a_restore_that_cannot_move_the_old_files(machine: Machine) -> None:
    """If the folder for the old files exists, the restore ends before it changes a file, and does not start."""
    await machine.create()
    archive = machine.back_up()
    await machine.create(kill=True)
    machine.replace("date", "echo today")
    (machine.folder / "data-before-restore-today").mkdir()
    before = content(machine.data)
    code, asked = machine.restore(archive)
    assert code != 0
    assert asked == ["stop"]
    assert content(machine.data) == before


@pytest.mark.parametrize("fault", ["cut off", "without the key", "missing"])
async def test_a_restore_from_a_bad_backup(machine: Machine, fault: str) -> None:
    """A backup that cannot be read or lacks a file is noticed before the server is stopped."""
    await machine.create()
    if fault == "without the key":
        machine.replace("tar", 'exec /usr/bin/tar --exclude=sessiond.key "$@"')
    archive = machine.back_up()
    (machine.programs / "tar").unlink(missing_ok=True)
    if fault == "cut off":
        archive.write_bytes(archive.read_bytes()[:-200])
    elif fault == "missing":
        archive.unlink()
    before = content(machine.data)
    code, asked = machine.restore(archive)
    assert code != 0
    assert asked == []
    assert content(machine.data) == before
    assert machine.moved() == []


def test_no_backup_of_a_running_server(machine: Machine) -> None:
    """If the server cannot be stopped, no backup is written."""
    machine.data.mkdir()
    machine.replace("systemctl", '[ "$1" != stop ]')
    machine.run(BACK_UP)
    assert list(machine.home.iterdir()) == []


async def test_a_rotation(machine: Machine) -> None:
    """The commands of the page add a key, promote it, and retire the one before, while the server runs."""
    server = ServerProcess(machine.folder)
    try:
        address = await server.address()
        command = f'"{sys.executable}" -m sessionctl --target {address} "$@"'
        machine.replace("sessionctl", f'PYTHONPATH="{os.pathsep.join(sys.path)}" exec {command}')
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
