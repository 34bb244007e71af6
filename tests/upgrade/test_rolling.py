"""A rolling upgrade from the version before, in any order, under load: no call fails, and nobody is logged out."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.postgres import free_port
from sessiond_client import AsyncClient, FailedPrecondition, NotServed, SessiondError
from tests.support.postgres import new_database
from tests.support.sidecars import until

PREVIOUS = "c4992478"
"""The version before: the newest commit that had landed when this one was begun. After a release, its tag."""
ROOT = Path(__file__).parents[2]
LOAD = Path(__file__).parent / "load.py"
POLICY = """
[server]
store = "{store}"

[applications.default]
preset = "owasp-low"
renewal_timeout = "3s"
renewal_overlap = "2s"
max_sessions = 100
"""


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree of the version before."""
    folder = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "-C", ROOT, "archive", PREVIOUS], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the commit {PREVIOUS} is not in this clone: clone the whole history")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    yield folder
    shutil.rmtree(folder)


@dataclass
class Part:
    """One process of the system, which is upgraded by a restart in another version.

    `address`: where it answers; empty: it is a client.
    """

    name: str
    folder: Path
    command: list[str]
    address: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None)

    async def start(self, tree: Path) -> None:
        """Start it in the version of a tree, and wait until it answers."""
        path = os.pathsep.join([str(tree), str(tree / "clients/python/src")])
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SESSIOND_")}
        self._works_file.unlink(missing_ok=True)
        log = (self.folder / f"{self.name}.log").open("ab")
        with log:
            self.process = subprocess.Popen(  # noqa: ASYNC220 - it outlives this call
                [sys.executable, *self.command],
                env=environment | {"PYTHONPATH": path},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        await until(self._answers if self.address else self._works)

    async def stop(self) -> None:
        """Stop it as an operator does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(self.process.wait, 60)
        assert code == 0, (self.folder / f"{self.name}.log").read_text(encoding="utf-8")[-3000:]

    def kill(self) -> None:
        """End it in any case."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def _works_file(self) -> Path:
        return self.folder / f"{self.name}.works"

    def _works(self) -> bool:
        return self._works_file.exists()

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / f"{self.name}.log").read_text(encoding="utf-8")[-3000:]
        try:
            async with AsyncClient(self.address, timeout=1.0, retries=0) as client:
                await client.authority()
        except SessiondError:
            return False
        return True

    async def is_new(self) -> bool:
        """Whether it is of this version, which has a call that the one before had not."""
        try:
            async with AsyncClient(self.address) as client, client.backup():
                return True
        except NotServed:
            return False
        except FailedPrecondition:
            return True


def server(name: str, folder: Path, config: Path) -> Part:
    address = f"127.0.0.1:{free_port()}"
    command = ["-m", "sessiond", "serve", "--config", str(config), "--data", str(folder / name), "--listen", address]
    return Part(name, folder, command, address)


def sidecar(name: str, folder: Path, upstream: Part) -> Part:
    address = f"127.0.0.1:{free_port()}"
    return Part(
        name, folder, ["-m", "sessiond", "sidecar", "--upstream", upstream.address, "--listen", address], address
    )


def client(name: str, folder: Path, *servers: Part) -> Part:
    """A client under load. With several servers it needs no patience: it asks another one."""
    patience = "0" if len(servers) > 1 else "60"
    addresses = ",".join(one.address for one in servers)
    target = f"ipv4:{addresses}" if len(servers) > 1 else addresses
    return Part(name, folder, [str(LOAD), target, str(folder / f"{name}.json"), patience])


@asynccontextmanager
async def running(parts: list[Part], tree: Path) -> AsyncIterator[None]:
    """Run all parts, servers first."""
    try:
        for part in parts:
            await part.start(tree)
        yield
    finally:
        for part in parts:
            part.kill()


SERVERS_FIRST = ["replica-0", "replica-1", "sidecar-0", "sidecar-1", "direct", "beside-0", "beside-1"]
ORDERS = {"mixed": random.Random(7).sample(SERVERS_FIRST, len(SERVERS_FIRST))}
if os.environ.get("SESSIOND_TEST_UPGRADE") == "all":
    ORDERS |= {"servers first": SERVERS_FIRST, "clients first": SERVERS_FIRST[::-1]}


@pytest.mark.slow
@pytest.mark.parametrize("order", list(ORDERS))
async def test_replicas_with_sidecars(tmp_path: Path, postgres: str, previous: Path, order: str) -> None:
    """Two replicas, two sidecars and three clients are upgraded one after another, in any order."""
    config = tmp_path / "sessiond.toml"
    config.write_text(POLICY.format(store=await new_database(postgres)), encoding="utf-8")
    replicas = [server(f"replica-{number}", tmp_path, config) for number in (0, 1)]
    sidecars = [sidecar(f"sidecar-{number}", tmp_path, one) for number, one in enumerate(replicas)]
    clients = [
        client("direct", tmp_path, *replicas),
        client("beside-0", tmp_path, sidecars[0]),
        client("beside-1", tmp_path, sidecars[1]),
    ]
    parts = {part.name: part for part in (*replicas, *sidecars, *clients)}
    (tmp_path / "replica-0").mkdir(mode=0o700)
    (tmp_path / "replica-1").mkdir(mode=0o700)
    async with running(replicas[:1], previous):
        shutil.copy(tmp_path / "replica-0/sessiond.key", tmp_path / "replica-1/sessiond.key")
        async with running([*replicas[1:], *sidecars, *clients], previous):
            await upgrade([parts[name] for name in ORDERS[order]], clients)
            await check(clients, replicas)


@pytest.mark.slow
async def test_a_server_with_its_own_database(tmp_path: Path, previous: Path) -> None:
    """A server over SQLite is upgraded by a restart, during which calls wait and are repeated."""
    config = tmp_path / "sessiond.toml"
    config.write_text(POLICY.replace('store = "{store}"\n', ""), encoding="utf-8")
    one = server("server", tmp_path, config)
    near = sidecar("sidecar", tmp_path, one)
    clients = [client("direct", tmp_path, one), client("beside", tmp_path, near)]
    async with running([one, near, *clients], previous):
        await upgrade([one, near, *clients], clients)
        await check(clients, [one])


async def upgrade(parts: list[Part], clients: list[Part]) -> None:
    """Restart each part in this version, with some time for the load in between."""
    assert not any([await part.is_new() for part in parts if part.name.startswith(("replica", "server"))])
    await asyncio.sleep(1)
    for part in parts:
        await part.stop()
        await part.start(ROOT)
        await asyncio.sleep(0.5)
    for one in clients:
        assert one.process is not None
        assert one.process.poll() is None


async def check(clients: list[Part], servers: list[Part]) -> None:
    """Stop the clients. Nothing has gone wrong for any, and the servers are of this version."""
    assert all([await one.is_new() for one in servers])
    for one in clients:
        await one.stop()
        seen = json.loads((one.folder / f"{one.name}.json").read_text(encoding="utf-8"))
        assert (seen["failures"], seen["logouts"]) == ([], []), one.name
        assert seen["calls"] > 30, "the load was too light to show anything"
        assert seen["renewed"] > 2
