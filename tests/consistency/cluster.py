"""Replicas as processes of their own over one database, each behind a proxy of its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from sessiond_client import AsyncClient, SessiondError
from tests.consistency.members import NearReader, Owner, Replica, SidecarReader, WorkersReader
from tests.support.proxy import Proxy

__all__ = ["Cluster", "running_cluster"]

_PAUSE = 0.05


class Cluster:
    """Some replicas over one database, and readers with caches, whose numbers follow those of the replicas."""

    def __init__(self, folder: Path, database: str, policies: str) -> None:
        self.replicas: list[Replica] = []
        self.owners: list[Owner] = []
        self.readers: list[NearReader] = []
        self.database = database
        self._folder = folder
        self._policies = policies
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

    async def add_replica(self, fault: str | None = None) -> None:
        """Add a replica and start it. `fault` names its broken protection."""
        number = len(self.replicas)
        folder = self._folder / f"replica-{number}"
        self.replicas.append(Replica(number, folder, await self._prepared(folder), fault))
        await self.replicas[-1].start()

    async def add_workers(self, count: int, fault: str | None = None) -> None:
        """Add a replica with so many workers, and as many readers that ask these, each on connections of its own."""
        folder = self._folder / f"owner-{len(self.owners)}"
        owner = Owner(self.places.stop, folder, await self._prepared(folder), fault, count)
        self.owners.append(owner)
        await owner.start()
        self.readers += (WorkersReader(owner) for _ in range(count))

    async def add_near_reader(self, *replicas: int) -> None:
        """Add clients with a near cache that ask these replicas by turns."""
        self.readers.append(NearReader(await self._proxy_to(replicas)))

    async def add_sidecar(self, folder: Path, *replicas: int) -> None:
        """Add a sidecar that asks these replicas by turns. Its log is in the folder."""
        sidecar = SidecarReader(await self._proxy_to(replicas), folder)
        self.readers.append(sidecar)
        await sidecar.start()

    async def _prepared(self, folder: Path) -> Proxy:
        """Write a replica's configuration and keys. Return its proxy to the database."""
        parts = urlsplit(self.database)
        assert parts.hostname is not None
        assert parts.port is not None
        (folder / "data").mkdir(parents=True, mode=0o700)
        proxy = Proxy((parts.hostname, parts.port))
        await proxy.start()
        netloc = f"{parts.username}@127.0.0.1:{proxy.port}"
        store = urlunsplit(parts._replace(netloc=netloc, query="sslmode=disable"))
        (folder / "sessiond.toml").write_text(f'[server]\nstore = "{store}"\n{self._policies}', encoding="utf-8")
        if self.replicas:
            shutil.copy(self.replicas[0].folder / "data" / "sessiond.key", folder / "data" / "sessiond.key")
        return proxy

    async def _proxy_to(self, replicas: Sequence[int]) -> Proxy:
        targets = [self.replicas[number].address.rpartition(":") for number in replicas]
        proxy = Proxy(*((host, int(port)) for host, _, port in targets))
        await proxy.start()
        return proxy

    def hits(self) -> int:
        """Return how many validations the near caches have answered."""
        return sum(client.near_cache.hits for client in self._clients.values() if client.near_cache is not None)

    def deaths(self) -> tuple[str, ...]:
        """Return which replicas and workers ended without having been killed."""
        replicas = [death for replica in (*self.replicas, *self.owners) for death in replica.deaths]
        return (*replicas, *(death for owner in self.owners for death in owner.deaths_of_workers()))

    def places_of_workers(self) -> set[int]:
        """Return the numbers of the readers that ask workers."""
        first = len(self.replicas)
        return {number for number, one in enumerate(self.readers, first) if isinstance(one, WorkersReader)}

    def heal(self) -> None:
        """End all faults of replicas and of their connections."""
        for reader in self.readers:
            reader.proxy.heal()
            reader.resume()
        for replica in (*self.replicas, *self.owners):
            replica.proxy.heal()
            replica.resume()
            replica.revive()

    async def until_all_serve(self) -> None:
        """Wait until every replica answers from the store."""
        for replica in (*self.replicas, *self.owners):
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
        for replica in (*self.replicas, *self.owners):
            await replica.stop()
            await replica.proxy.stop()


@asynccontextmanager
async def running_cluster(
    folder: Path, database: str, policies: str = "", faults: Mapping[int, str] | None = None, count: int = 3
) -> AsyncIterator[Cluster]:
    """Run replicas with the same policies and keys. `faults` names the broken protection of some of them."""
    cluster = Cluster(folder, database, policies)
    try:
        for number in range(count):
            await cluster.add_replica((faults or {}).get(number))
        yield cluster
    finally:
        cluster.heal()
        await cluster.close()
