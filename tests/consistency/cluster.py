"""Replicas as processes of their own over one database, each behind a proxy of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from scripts.postgres import free_port
from sessiond_client import AsyncClient, SessiondError
from tests.consistency.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.sidecars import SidecarProcess

__all__ = ["Cluster", "Replica", "running_cluster"]

_ROOT = Path(__file__).parent.parent.parent
_PAUSE = 0.05
_START = 30.0


class Replica:
    """One replica, which is started again whenever it ends.

    deaths  when it ended without having been killed, and with what
    """

    def __init__(self, number: int, folder: Path, proxy: Proxy, fault: str | None) -> None:
        self.number = number
        self.folder = folder
        self.proxy = proxy
        self.address = f"127.0.0.1:{free_port()}"
        self.deaths: list[str] = []
        self.serves = asyncio.Event()
        self._fault = fault
        self._process: ServerProcess | None = None
        self._may_run = asyncio.Event()
        self._may_run.set()
        self._killed = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and wait until it serves. Raise AssertionError with its log if it does not."""
        self._task = asyncio.create_task(self._run(), name=f"replica {self.number}")
        try:
            async with asyncio.timeout(_START):
                await self.serves.wait()
        except TimeoutError:
            raise AssertionError((self.folder / "server.log").read_text(encoding="utf-8")[-2_000:]) from None

    async def stop(self) -> None:
        """Kill it for good."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._process is not None:
            self._process.kill()

    def pause(self) -> None:
        """Stop the process with SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process continue."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process with SIGKILL. It starts again after `revive`."""
        self._may_run.clear()
        if self._process is not None and self._process.process.poll() is None:
            self._killed = True
            self.serves.clear()
            self._signal(signal.SIGKILL)

    def revive(self) -> None:
        """Let it start again."""
        self._may_run.set()

    async def _run(self) -> None:
        while True:
            await self._may_run.wait()
            self._killed = False
            program = ("-m", "tests.consistency.replica", *(("--fault", self._fault) if self._fault else ()))
            self._process = ServerProcess(
                self.folder,
                "--config",
                str(self.folder / "sessiond.toml"),
                listen=self.address,
                cwd=_ROOT,
                program=program,
            )
            try:
                await self._process.address()
            except AssertionError:  # the database is out of reach, or it was killed
                self._process.kill()
                await asyncio.sleep(_PAUSE)
                continue
            self.serves.set()
            while self._process.process.poll() is None:  # noqa: ASYNC110 - the process does not signal
                await asyncio.sleep(_PAUSE)
            self.serves.clear()
            if not self._killed:
                code, end = self._process.process.returncode, self._process.log()[-2_000:]
                self.deaths.append(f"replica {self.number} ended with {code}: {end}")
            self._process.kill()  # closes its log

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.process.poll() is None:
            os.killpg(self._process.process.pid, number)


class NearReader:
    """Clients with a near cache. Their connections go through a proxy, by turns to each of the replicas.

    So the replica that answers a question may be behind the one that the cache follows.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    keeps_answers = True
    """Whether its clients keep answers themselves."""

    @property
    def address(self) -> str:
        """Return where its clients connect to."""
        return f"127.0.0.1:{self.proxy.port}"

    def pause(self) -> None:
        """Do nothing: it is in this process."""

    def resume(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Stop its proxy."""
        await self.proxy.stop()


class SidecarReader(NearReader):
    """A sidecar in a process of its own. Its connections go through a proxy, by turns to each of the replicas."""

    keeps_answers = False

    def __init__(self, proxy: Proxy, folder: Path) -> None:
        super().__init__(proxy)
        self._process = SidecarProcess(folder, f"127.0.0.1:{proxy.port}")
        self._socket = folder / "near.sock"

    @property
    def address(self) -> str:
        """Return where its clients connect to."""
        return f"unix:{self._socket}"

    async def start(self) -> None:
        """Wait until it serves."""
        await self._process.address()

    def pause(self) -> None:
        """Stop the process with SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the process continue."""
        self._signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Kill it, and stop its proxy."""
        self._process.kill()
        await super().stop()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.process.poll() is None:
            os.killpg(self._process.process.pid, number)


class Cluster:
    """Some replicas over one database, and readers with caches, whose numbers follow those of the replicas."""

    def __init__(self, replicas: list[Replica], database: str) -> None:
        self.replicas = replicas
        self.readers: list[NearReader] = []
        self.database = database
        self._clients: dict[tuple[int, str], AsyncClient] = {}

    @property
    def places(self) -> range:
        """Return the numbers of all that can validate: the replicas, then the readers."""
        return range(len(self.replicas) + len(self.readers))

    def client(self, place: int, application: str = "default") -> AsyncClient:
        """Return the client of a replica or a reader, and an application. It repeats a call once."""
        key = place, application
        if key not in self._clients:
            is_reader = place >= len(self.replicas)
            target = self.readers[place - len(self.replicas)] if is_reader else self.replicas[place]
            near_cache = isinstance(target, NearReader) and target.keeps_answers
            self._clients[key] = AsyncClient(
                target.address, application=application, timeout=3.0, retries=1, near_cache=near_cache
            )
        return self._clients[key]

    async def add_near_reader(self, *replicas: int) -> None:
        """Add clients with a near cache that ask these replicas by turns."""
        self.readers.append(NearReader(await self._proxy_to(replicas)))

    async def add_sidecar(self, folder: Path, *replicas: int) -> None:
        """Add a sidecar that asks these replicas by turns. Its log is in the folder."""
        sidecar = SidecarReader(await self._proxy_to(replicas), folder)
        self.readers.append(sidecar)
        await sidecar.start()

    async def _proxy_to(self, replicas: Sequence[int]) -> Proxy:
        targets = [self.replicas[number].address.rpartition(":") for number in replicas]
        proxy = Proxy(*((host, int(port)) for host, _, port in targets))
        await proxy.start()
        return proxy

    def hits(self) -> int:
        """Return how many validations the near caches have answered."""
        return sum(client.near_cache.hits for client in self._clients.values() if client.near_cache is not None)

    def heal(self) -> None:
        """End all faults of replicas and of their connections."""
        for reader in self.readers:
            reader.proxy.heal()
            reader.resume()
        for replica in self.replicas:
            replica.proxy.heal()
            replica.resume()
            replica.revive()

    async def until_all_serve(self) -> None:
        """Wait until every replica answers from the store."""
        for replica in self.replicas:
            while True:
                await replica.serves.wait()
                try:
                    page = await self.client(replica.number).list_page(page_size=1)
                    del page
                    break
                except SessiondError:
                    await asyncio.sleep(_PAUSE)

    async def close(self) -> None:
        """Close the clients and kill the replicas."""
        for client in self._clients.values():
            await client.close()
        for reader in self.readers:
            await reader.stop()
        for replica in self.replicas:
            await replica.stop()
            await replica.proxy.stop()


@asynccontextmanager
async def running_cluster(
    folder: Path, database: str, policies: str = "", faults: Mapping[int, str] | None = None, count: int = 3
) -> AsyncIterator[Cluster]:
    """Run replicas with the same policies and keys. `faults` names the broken protection of some of them."""
    parts = urlsplit(database)
    assert parts.hostname is not None
    assert parts.port is not None
    cluster = Cluster([], database)
    try:
        for number in range(count):
            mine = folder / f"replica-{number}"
            (mine / "data").mkdir(parents=True, mode=0o700)
            proxy = Proxy((parts.hostname, parts.port))
            await proxy.start()
            netloc = f"{parts.username}@127.0.0.1:{proxy.port}"
            store = urlunsplit(parts._replace(netloc=netloc, query="sslmode=disable"))
            (mine / "sessiond.toml").write_text(f'[server]\nstore = "{store}"\n{policies}', encoding="utf-8")
            if number:
                shutil.copy(folder / "replica-0" / "data" / "sessiond.key", mine / "data" / "sessiond.key")
            replica = Replica(number, mine, proxy, (faults or {}).get(number))
            cluster.replicas.append(replica)
            await replica.start()
        yield cluster
    finally:
        cluster.heal()
        await cluster.close()
