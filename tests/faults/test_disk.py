"""A disk that fails or fills up: nothing acknowledged is lost, nobody is answered falsely, and the process says why."""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.faults import Ledger, losses, recover, work
from tests.support.server import AsyncStub, ServerProcess, stub_for
from tests.support.streams import PADDING, open_sessions

WORKERS = 12
PATIENCE = 30.0

SMALL_DATABASE = """
import sqlite3, sys
connect = sqlite3.connect
def connect_small(*arguments, **options):
    database = connect(*arguments, **options)
    database.execute("PRAGMA max_page_count = 60")
    return database
sqlite3.connect = connect_small
from sessiond.cli import main
main(sys.argv[4:])
"""
"""Serves from a database that is full at 240 KiB: SQLite's own answer to a full disk, without a full disk."""


@dataclass(frozen=True)
class Disk:
    """A way for the disk to fail. `strike` is called once the load runs; `prefix` starts the server another way."""

    told: str
    strike: Callable[[ServerProcess, Path], subprocess.Popen[bytes] | None] = lambda server, data: None
    prefix: tuple[str, ...] = ()


def injecting(fault: str) -> Callable[[ServerProcess, Path], subprocess.Popen[bytes]]:
    """Make system calls on the database's files fail from now on."""

    def strike(server: ServerProcess, data: Path) -> subprocess.Popen[bytes]:
        files = (option for name in ("sessiond.db", "sessiond.db-wal") for option in ("-P", str(data / name)))
        call = fault.partition(":")[0]
        command = ["strace", "-f", "-qq", "-o", str(data.parent / "strace.log"), "-p", str(server.process.pid), *files]
        return subprocess.Popen([*command, "-e", f"trace={call}", "-e", f"inject={fault}"], stderr=subprocess.DEVNULL)

    return strike


def limit_file_size(server: ServerProcess, data: Path) -> None:
    """Let no file grow further than the log of the database has grown so far, and a little."""
    size = (data / "sessiond.db-wal").stat().st_size + 32 * 1024
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, size))


needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed; the other ways to fail need nothing"
)
FULL = "database or disk is full"
BROKEN = "disk I/O error"
DISKS = [
    pytest.param(Disk(BROKEN, limit_file_size), id="no file may grow"),
    pytest.param(Disk(FULL, prefix=(sys.executable, "-c", SMALL_DATABASE)), id="database full"),
    pytest.param(Disk(BROKEN, injecting("fdatasync:error=EIO:when=1+")), id="no sync", marks=needs_strace),
    pytest.param(Disk(BROKEN, injecting("fdatasync:error=EIO:when=3")), id="one sync", marks=needs_strace),
    pytest.param(
        Disk(FULL, injecting("pwrite64:error=ENOSPC:when=20+")),
        id="disk full",
        marks=needs_strace,
    ),
]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that only looking tells."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0.01)


def is_traced(server: ServerProcess) -> bool:
    """Whether strace has the server in hand."""
    return "TracerPid:\t0" not in Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")


def has_ended(server: ServerProcess) -> bool:
    """Whether the server has stopped."""
    return server.process.poll() is not None


@contextmanager
def struck(disk: Disk, server: ServerProcess, data: Path) -> Iterator[None]:
    """The disk fails inside the block."""
    injector = disk.strike(server, data)
    try:
        yield
    finally:
        if injector is not None:
            injector.terminate()
            injector.wait()


@pytest.mark.parametrize("disk", DISKS)
async def test_a_failing_disk_loses_nothing_acknowledged(tmp_path: Path, disk: Disk) -> None:
    """When a commit fails the process stops with 1 and says why; calls in flight get UNAVAILABLE; the rest is safe."""
    ledger, dice = Ledger(), random.Random(5)
    server = ServerProcess(tmp_path, prefix=disk.prefix)
    try:
        address = await server.address()
        async with AsyncExitStack() as stack:
            stubs = [await stack.enter_async_context(stub_for(address)) for _ in range(3)]
            workers = [
                asyncio.create_task(work(stubs[number % 3], ledger, [], random.Random(dice.random())))
                for number in range(WORKERS)
            ]
            await until(lambda: len(ledger.facts) >= 50)
            with struck(disk, server, tmp_path / "data"):
                last_words = await asyncio.gather(*workers)
                await until(lambda: has_ended(server))
        log = server.log()
    finally:
        server.kill()
    assert server.process.returncode == 1
    # Those whose call was in the failed group are told so; others may find the server gone already.
    assert any("whether the change was made is unknown" in words for words in last_words)
    last_line = log.splitlines()[-1]
    assert last_line.startswith("Error: ")
    assert str(tmp_path / "data" / "sessiond.db") in last_line
    assert disk.told in last_line
    assert "start again" in last_line
    assert "Traceback" not in log

    server = ServerProcess(tmp_path)
    try:
        async with stub_for(await server.address()) as stub:
            lives = [life for life in ledger.lives.values() if not life.revoked]
            assert losses(ledger, await recover(stub, ledger, lives), lives) == []
            await open_sessions(stub, 10)  # the mended disk serves on
        assert await server.terminate() == 0
    finally:
        server.kill()


async def ask_until_refused(stub: AsyncStub, session_ids: list[str]) -> None:
    """Look at one session after another, none of which is in memory."""
    for session_id in session_ids:
        named = pb.SessionReference(session_id=session_id)
        await stub.GetSession(pb.GetSessionRequest(session=named))


@needs_strace
async def test_a_disk_that_cannot_be_read_stops_the_process(tmp_path: Path) -> None:
    """A read error is as fatal as a write error: the caller gets UNAVAILABLE, and nobody needs to write first."""
    server = ServerProcess(tmp_path)
    try:
        async with stub_for(await server.address()) as stub:
            facts = await open_sessions(stub, 300, client=PADDING)
        assert await server.terminate() == 0
        server = ServerProcess(tmp_path)  # with nothing in memory
        async with stub_for(await server.address()) as stub:
            disk = Disk(BROKEN, injecting("pread64:error=EIO:when=1+"))
            with struck(disk, server, tmp_path / "data"):
                await until(lambda: is_traced(server))
                with pytest.raises(grpc.aio.AioRpcError) as refusal:
                    await ask_until_refused(stub, [fact.session_id for fact in facts])
                await until(lambda: has_ended(server))
        assert refusal.value.code() == grpc.StatusCode.UNAVAILABLE
        assert server.process.returncode == 1
        assert "the store failed" in (refusal.value.details() or "")
        last_line = server.log().splitlines()[-1]  # SQLite may call an unreadable page malformed
        assert last_line.startswith(f"Error: the store {tmp_path / 'data' / 'sessiond.db'} failed: ")
        assert "Traceback" not in server.log()
    finally:
        server.kill()
