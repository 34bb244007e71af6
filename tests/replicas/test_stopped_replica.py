"""A replica that is stopped holds up the others for a bounded time, and is right when it goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from sessiond.config.store_address import PostgresAddress
from sessiond.domain.values import Revision
from sessiond.store.postgres.store import PostgresStore
from sessiond_client import AsyncClient, Verdict
from tests.contracts import samples
from tests.contracts.store import append
from tests.support.programs import start_program
from tests.support.server import ServerProcess

_WRITER = """
import asyncio, sys, structlog
from sessiond.config.store_address import PostgresAddress
from sessiond.store.contract import Changes, Decision
from sessiond.store.postgres.store import PostgresStore
from tests.contracts import samples

async def main():
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    store = await PostgresStore.open(PostgresAddress(sys.argv[1]))
    runs = []

    async def decide(transaction):
        runs.append(transaction.head.revision)
        print("deciding", flush=True)
        if len(runs) == 1:
            await asyncio.to_thread(sys.stdin.readline)
        event = samples.event(transaction.head.revision + 1, subject="stopped")
        return Decision(Changes(events=[event]), None)

    await store.write(decide)
    print("written after", *runs, flush=True)
    await store.close()

asyncio.run(main())
"""


async def test_a_writer_that_is_stopped_does_not_keep_the_head(database: str) -> None:
    """A replica stopped in the middle of a transaction loses it, others write on, and it writes once afterwards."""
    store = await PostgresStore.open(PostgresAddress(database))
    stopped = await start_program(
        sys.executable,
        "-c",
        _WRITER,
        database,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert stopped.stdin is not None
    assert stopped.stdout is not None
    try:
        assert await asyncio.wait_for(stopped.stdout.readline(), 30) == b"deciding\n"
        stopped.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(10):
            await append(store, samples.event(1, subject="running"))
            await append(store, samples.event(2, subject="running"))
        stopped.send_signal(signal.SIGCONT)
        stopped.stdin.write(b"\n")
        async with asyncio.timeout(20):
            assert await stopped.stdout.readline() == b"deciding\n"
            assert await stopped.stdout.readline() == b"written after 0 2\n"
            assert await stopped.wait() == 0
        subjects = [event.subject for event in await store.events(Revision(0), 10)]
        assert subjects == ["running", "running", "stopped"]
    finally:
        if stopped.returncode is None:
            stopped.kill()
            await stopped.wait()
        await store.close()


async def test_a_replica_that_was_stopped_knows_what_was_revoked(tmp_path: Path, database: str) -> None:
    """A revocation that waits for caches ends while a replica is stopped, and is the first thing the replica knows."""
    folders = [tmp_path / "one", tmp_path / "other"]
    servers: list[ServerProcess] = []
    try:
        for folder in folders:
            (folder / "data").mkdir(parents=True, mode=0o700)
            if servers:
                shutil.copy(folders[0] / "data" / "sessiond.key", folder / "data" / "sessiond.key")
            servers.append(ServerProcess(folder, prefix=("env", f"SESSIOND_STORE={database}")))
            await servers[-1].address()
        async with (
            AsyncClient(await servers[0].address(), timeout=30) as one,
            AsyncClient(await servers[1].address(), timeout=30) as other,
        ):
            token = (await one.create(subject="ada")).token.reveal()
            assert (await other.validate(token)).verdict is Verdict.VALID
            servers[1].process.send_signal(signal.SIGSTOP)
            asked = asyncio.create_task(other.validate(token))  # waits in the socket, and is the first thing answered
            await one.revoke(token=token, wait_for_caches=True)
            assert not asked.done()
            servers[1].process.send_signal(signal.SIGCONT)
            assert (await asked).verdict is Verdict.REVOKED
    finally:
        for server in servers:
            server.kill()
