"""What the figures about Postgres need: a server of its own, creations without gRPC, and revocations on two replicas.

python -m bench.postgres FOLDER URL GROUP COUNT    # print creations a second, in groups of at most GROUP
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import uvloop

from bench.processes import ServerEnded
from bench.seed import Seeded
from scripts.postgres import LocalPostgres
from sessiond.app import App
from sessiond.config import load_config
from sessiond.config.store_address import PostgresAddress
from sessiond.crypto.tokens import new_secret
from sessiond.domain.call import Caller
from sessiond.domain.login import ANONYMOUS
from sessiond.eventlog import journal
from sessiond_client import AsyncClient, Verdict

__all__ = ["another_folder", "config_of", "creations_per_second", "revocations", "running"]

_CALLERS = 64


@contextmanager
def running(_: Path) -> Iterator[str]:
    """Run a Postgres that makes every commit durable, and return the URL of an empty database."""
    # Not in the folder of the measurement: the server runs as another user, who may not be allowed to reach it.
    with tempfile.TemporaryDirectory(prefix="sessiond-bench-") as folder:
        os.chmod(folder, 0o755)
        server = LocalPostgres(Path(folder) / "server")
        server.start()
        try:
            yield server.url()
        finally:
            server.stop()


def config_of(database: str, text: str) -> str:
    """Return a configuration with that store."""
    store = f'[server]\nstore = "{database}"\n'
    return text.replace("[server]\n", store, 1) if "[server]\n" in text else f"{store}\n{text}"


def another_folder(seeded: Seeded, folder: Path) -> Path:
    """Return a data folder for another replica, with the same key file."""
    folder.mkdir(mode=0o700)
    shutil.copy(seeded.data / "sessiond.key", folder / "sessiond.key")
    return folder


def creations_per_second(database: str, folder: Path, group: int, count: int) -> float:
    """Return the rate of creations by 64 callers in a process of its own, in transactions of at most `group` units."""
    command = [sys.executable, "-m", "bench.postgres", str(folder), database, str(group), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerEnded(f"the creations failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


async def revocations(one: str, other: str, count: int, *, awaited: bool) -> list[float]:
    """Return the milliseconds that each of some revocations takes to reach the other replica.

    Not awaited: from its answer until the other replica, asked again and again, denies the session. Awaited: until its
    answer; the other replica must then deny the session at once.
    """
    times = []
    async with AsyncClient(one) as first, AsyncClient(other) as second:
        for number in range(count):
            token = (await first.create(subject=f"user-{number}")).token.reveal()
            if (await second.validate(token)).verdict is not Verdict.VALID:
                raise ServerEnded("the other replica does not accept a new session")
            began = time.perf_counter()
            await first.revoke(token=token, wait_for_caches=awaited)
            if not awaited:
                began = time.perf_counter()
                while (await second.validate(token)).verdict is Verdict.VALID:
                    pass
            times.append((time.perf_counter() - began) * 1000)
            if (await second.validate(token)).verdict is not Verdict.REVOKED:
                raise ServerEnded("the other replica accepts a revoked session")
    return times


async def _create(folder: Path, database: str, group: int, count: int) -> float:
    connection = await asyncpg.connect(database)
    name = f"creations_{os.getpid()}"
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    journal._BOUNDS = journal.Bounds(group=group)
    journal.Journal.__init__.__defaults__ = (journal._BOUNDS,)
    address = PostgresAddress(f"{database.rpartition('/')[0]}/{name}")
    app = await App.start(replace(load_config(None), data=folder, listen="127.0.0.1:0", store=address))
    authority = app.authority
    call = authority.call("default", Caller("bench"), None)

    async def create(times: int) -> None:
        for _ in range(times):
            unit = authority.logins.create_unit(call, ANONYMOUS, new_secret(os.urandom), {})
            await authority.parts.journal.submit(unit)

    await asyncio.gather(*(create(4) for _ in range(_CALLERS)))
    began = time.perf_counter()
    await asyncio.gather(*(create(count // _CALLERS) for _ in range(_CALLERS)))
    taken = time.perf_counter() - began
    await app.stop()
    return count // _CALLERS * _CALLERS / taken


def main() -> None:
    """Print the rate of creations."""
    folder, database, group, count = sys.argv[1:]
    print(uvloop.run(_create(Path(folder), database, int(group), int(count))))


if __name__ == "__main__":
    main()
