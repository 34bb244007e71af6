"""Fixtures for tests with a Postgres cluster that fails over."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from scripts.patroni import LocalCluster, why_not
from tests.support.server import ServerProcess

_USER = "sessiond"
_POLICY = '[applications.default]\nrenewal_timeout = "300ms"\nrenewal_overlap = "200ms"\n'
_numbers = count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A running cluster of three nodes, with the user `sessiond`."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="sessiond-ha-") as folder:
        os.chmod(folder, 0o755)
        cluster = LocalCluster(Path(folder))
        try:
            cluster.start()
            cluster.on_leader(f"CREATE ROLE {_USER} LOGIN PASSWORD '{cluster.password}'")
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def url(cluster: LocalCluster) -> str:
    """The URL of an empty database of the user `sessiond`, with all nodes."""
    name = f"sessiond_{next(_numbers)}"
    cluster.on_leader(f"CREATE DATABASE {name} OWNER {_USER}")
    return cluster.url(_USER, name)


@pytest.fixture
async def servers(url: str, tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    """Two replicas over that database, each a process."""
    running: list[ServerProcess] = []
    try:
        for number in (1, 2):
            folder = tmp_path / f"replica-{number}"
            (folder / "data").mkdir(parents=True, mode=0o700)
            if running:
                key = (tmp_path / "replica-1" / "data" / "sessiond.key").read_bytes()
                (folder / "data" / "sessiond.key").touch(mode=0o600)
                (folder / "data" / "sessiond.key").write_bytes(key)
            config = folder / "sessiond.toml"
            config.write_text(f'[server]\nstore = "{url}"\n{_POLICY}', encoding="utf-8")
            running.append(ServerProcess(folder, "--config", str(config)))
            await running[-1].address()
        yield running
    finally:
        for server in running:
            server.kill()
