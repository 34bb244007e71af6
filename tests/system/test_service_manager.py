"""What systemd is told: when a server can be used, that it lives, and that it stops. A socket stands in for systemd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sessiond.system.service_manager import ServiceManager
from sessiond_client import Client
from tests.support.server import ServerProcess
from tests.support.sidecars import SidecarProcess

PATIENCE = 30
HANGS_ONCE = """
import signal, sys, time
from sessiond.cli import main
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(1.5))
main(sys.argv[1:])
"""
"""A server whose main thread, and so its event loop, hangs for a while when it is told to. Other threads go on."""


class Manager:
    """Listens as systemd does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(PATIENCE)

    def heard(self) -> str:
        """Wait for a message."""
        return self._socket.recv(4_096).decode()

    def hears_nothing(self, seconds: float) -> bool:
        """Return whether no message comes for that long."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4_096)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)
        return False

    def drain(self) -> None:
        """Forget what has come."""
        while not self.hears_nothing(0.001):
            pass

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A service manager that the environment names."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@sessiond-test-{os.getpid()}"
    manager = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    yield manager
    manager.close()


async def test_a_server_says_when_it_serves_and_stops(tmp_path: Path, manager: Manager) -> None:
    """A server can be used when it says so. It says that it stops before it does."""
    server = ServerProcess(tmp_path)
    assert await asyncio.to_thread(manager.heard) == "READY=1"
    with Client(await server.address(), retries=0) as client:
        assert client.create(subject="ada").token
    ended = asyncio.create_task(server.terminate())  # one signal: another would end the server at once
    assert await asyncio.to_thread(manager.heard) == "STOPPING=1"
    assert await ended == 0


async def test_signs_of_life_end_with_the_loop(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server whose event loop hangs gives no sign of life, whatever its other threads do, until it goes on."""
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    server = ServerProcess(tmp_path, program=("-c", HANGS_ONCE))
    assert await asyncio.to_thread(manager.heard) == "READY=1"
    for _ in range(3):
        assert await asyncio.to_thread(manager.heard) == "WATCHDOG=1"
    os.kill(server.process.pid, signal.SIGUSR1)
    await asyncio.sleep(0.2)  # it hangs by now, and what it said before is here
    manager.drain()
    assert await asyncio.to_thread(manager.hears_nothing, 0.5)
    assert await asyncio.to_thread(manager.heard) == "WATCHDOG=1"
    assert await server.terminate() == 0


async def test_a_sidecar_says_it_too(tmp_path: Path, manager: Manager) -> None:
    """A sidecar serves, and says so, although its authority cannot be reached."""
    sidecar = SidecarProcess(tmp_path / "sidecar", "127.0.0.1:1")
    assert await asyncio.to_thread(manager.heard) == "READY=1"
    assert await sidecar.terminate() == 0
    assert await asyncio.to_thread(manager.heard) == "STOPPING=1"


async def test_nobody_listens(tmp_path: Path) -> None:
    """A service manager that is gone is a warning, once; without one, nothing is said."""
    gone = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with capture_logs() as lines:
        gone.ready()
        gone.stopping()
        ServiceManager({}).ready()
    assert [(line["event"], line["socket"]) for line in lines] == [("service manager not told", str(tmp_path / "gone"))]


@pytest.mark.parametrize("microseconds", ["", "soon", "-1"])
async def test_no_signs_of_life(tmp_path: Path, microseconds: str) -> None:
    """Without a time that can be used, or if it is for another process, no signs of life are given."""
    manager = Manager(str(tmp_path / "notify"))
    for environment in (
        {"WATCHDOG_USEC": microseconds},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ):
        async with asyncio.timeout(PATIENCE):
            await ServiceManager({"NOTIFY_SOCKET": manager.address, **environment}).keep_alive()
    assert manager.hears_nothing(0.001)
    manager.close()
