"""A disk that fails or fills up: nothing acknowledged is lost, nobody is answered falsely, and the process says why."""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
import subprocess
import sys
import time
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

_SMALL = """
import sqlite3, sys
connect = sqlite3.connect
def connect_small(*arguments, **options):
    database = connect(*arguments, **options)
    database.execute("PRAGMA max_page_count = 60")
    return database
sqlite3.connect = connect_small
"""
_RUN = """
from sessiond.cli import main
main(sys.argv[4:])
"""
SMALL_DATABASE = _SMALL + _RUN
"""Serves from a database that is full at 240 KiB: SQLite's own answer to a full disk, without a full disk."""
HEEDLESS = (
    """
import sqlite3
class Heedless(sqlite3.Connection):
    def execute(self, sql, *parameters):
        try:
            return super().execute(sql, *parameters)
        except sqlite3.OperationalError:
            return self.cursor()
    def executemany(self, sql, rows):
        try:
            return super().executemany(sql, rows)
        except sqlite3.OperationalError:
            return self.cursor()
plain = sqlite3.connect
sqlite3.connect = lambda *arguments, **options: plain(*arguments, factory=Heedless, **options)
"""
    + _SMALL
    + _RUN
)
"""Protection off: the same, and every error of a write is passed over."""


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


def tracer_of(pid: int) -> str:
    """The process that traces another one; `0` where none does."""
    return Path(f"/proc/{pid}/status").read_text(encoding="ascii").partition("TracerPid:")[2].split()[0]


def strace_can_attach() -> bool:
    """Whether strace is here and may take hold of a process that is not its own child."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        strace = subprocess.Popen(
            ["strace", "-qq", "-o", "/dev/null", "-p", str(sleeper.pid)], stderr=subprocess.DEVNULL
        )
        while strace.poll() is None and tracer_of(sleeper.pid) == "0":
            time.sleep(0.01)
        attached = strace.poll() is None
        sleeper.kill()
    strace.wait()
    return attached


needs_strace = pytest.mark.skipif(
    not strace_can_attach(), reason="strace is absent or may not attach; the other ways to fail need nothing"
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
                async with asyncio.timeout(PATIENCE):
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


async def test_a_false_acknowledgement_is_noticed(tmp_path: Path) -> None:
    """With a store that passes over its errors the comparison of the test above reports what was not kept."""
    ledger = Ledger()
    server = ServerProcess(tmp_path, prefix=(sys.executable, "-c", HEEDLESS))
    try:
        async with stub_for(await server.address()) as stub:
            workers = [asyncio.create_task(work(stub, ledger, [], random.Random(number))) for number in range(WORKERS)]
            await until(lambda: len(ledger.lives) >= 600 or all(worker.done() for worker in workers))
            server.kill()
            await asyncio.gather(*workers, return_exceptions=True)  # some may have met what was not kept
        server = ServerProcess(tmp_path)
        async with stub_for(await server.address()) as stub:
            found = losses(ledger, await recover(stub, ledger, []), [])
    finally:
        server.kill()
    assert any("is in the log 0 times" in fault for fault in found)
    assert any("is lost" in fault for fault in found)


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
                await until(lambda: tracer_of(server.process.pid) != "0")
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
