"""A failing or full disk: nothing acknowledged is lost, no response is wrong, and the process reports the reason."""

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
"""Serves from a database limited to 240 KiB, which gives SQLite's error for a full disk without a full disk."""
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
"""Protection off: the same, but all errors of a write are ignored."""


@dataclass(frozen=True)
class Disk:
    """A way in which the disk fails. `strike` is called once the load runs; `prefix` precedes the server's command."""

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
    """Allow no file to grow much beyond the present size of the database's log."""
    size = (data / "sessiond.db-wal").stat().st_size + 32 * 1024
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, size))


def tracer_of(pid: int) -> str:
    """Return the id of the process that traces another one; `0` if there is none."""
    return Path(f"/proc/{pid}/status").read_text(encoding="ascii").partition("TracerPid:")[2].split()[0]


def strace_can_attach() -> bool:
    """Return whether strace is installed and may attach to a process that is not its own child."""
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
    """Wait until a condition holds, by polling it."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing signals this
            await asyncio.sleep(0.01)


def has_ended(server: ServerProcess) -> bool:
    """Return whether the server has stopped."""
    return server.process.poll() is not None


@contextmanager
def struck(disk: Disk, server: ServerProcess, data: Path) -> Iterator[None]:
    """Make the disk fail inside the block."""
    injector = disk.strike(server, data)
    try:
        yield
    finally:
        if injector is not None:
            injector.terminate()
            injector.wait()


@pytest.mark.parametrize("disk", DISKS)
async def test_a_failing_disk_loses_nothing_acknowledged(tmp_path: Path, disk: Disk) -> None:
    """If a commit fails, the process logs why and exits with 1; open calls get UNAVAILABLE; the rest is safe."""
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
    # Calls in the failed group get this error; others may find that the server has stopped.
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
            await open_sessions(stub, 10)  # after the disk is repaired, the server serves again
        assert await server.terminate() == 0
    finally:
        server.kill()


async def test_a_false_acknowledgement_is_noticed(tmp_path: Path) -> None:
    """The check above can fail: it reports the loss of a store that ignores its errors."""
    ledger = Ledger()
    server = ServerProcess(tmp_path, prefix=(sys.executable, "-c", HEEDLESS))
    try:
        async with stub_for(await server.address()) as stub:
            workers = [asyncio.create_task(work(stub, ledger, [], random.Random(number))) for number in range(WORKERS)]
            await until(lambda: len(ledger.lives) >= 600 or all(worker.done() for worker in workers))
            server.kill()
            await asyncio.gather(*workers, return_exceptions=True)  # some may have seen data that was not stored
        server = ServerProcess(tmp_path)
        async with stub_for(await server.address()) as stub:
            found = losses(ledger, await recover(stub, ledger, []), [])
    finally:
        server.kill()
    assert any("is in the log 0 times" in fault for fault in found)
    assert any("is lost" in fault for fault in found)


async def ask_until_refused(stub: AsyncStub, session_ids: list[str]) -> None:
    """Read one session after another; none of them is in memory."""
    for session_id in session_ids:
        named = pb.SessionReference(session_id=session_id)
        await stub.GetSession(pb.GetSessionRequest(session=named))


@needs_strace
async def test_a_disk_that_cannot_be_read_stops_the_process(tmp_path: Path) -> None:
    """A read error is as fatal as a write error: the caller gets UNAVAILABLE, even if no write follows."""
    server = ServerProcess(tmp_path)
    try:
        async with stub_for(await server.address()) as stub:
            facts = await open_sessions(stub, 300, client=PADDING)
        assert await server.terminate() == 0
        server = ServerProcess(tmp_path)  # so that nothing is in memory
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
