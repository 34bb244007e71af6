"""What a cluster consists of: replicas, and readers that answer validations from caches of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from scripts.postgres import free_port
from tests.support.proxy import Proxy
from tests.support.server import ServerProcess
from tests.support.sidecars import SidecarProcess

__all__ = ["NearReader", "Owner", "Replica", "SidecarReader", "WorkersReader"]

_ROOT = Path(__file__).parent.parent.parent
_PAUSE = 0.05
_START = 30.0


class Replica:
    """One replica, which is started again whenever it ends.

    deaths  when it ended without having been killed, and with what
    """

    arguments: tuple[str, ...] = ()
    """What it is started with beside its configuration."""

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
                *self.arguments,
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


class Owner(Replica):
    """A replica whose port is answered by workers. What happens to it does not happen to them.

    When it is killed, they end by themselves, and it serves again when they have left the port.
    """

    def __init__(self, number: int, folder: Path, proxy: Proxy, fault: str | None, workers: int) -> None:
        super().__init__(number, folder, proxy, fault)
        self.arguments = ("--workers", str(workers))

    def workers(self) -> list[int]:
        """Return the process ids of its workers; none while it does not serve."""
        if self._process is None or not self.serves.is_set():
            return []
        started = [line for line in _logged(self._process.log()) if line["event"] in ("serving", "worker restarted")]
        pids = [pid for line in started for pid in (line.get("workers") or [line["pid"]])]
        return [pid for pid in pids if _parent_of(pid) == self._process.process.pid]

    def deaths_of_workers(self) -> list[str]:
        """Return which workers ended without having been killed."""
        ended = [line for line in _logged(_text_of(self.folder / "server.log")) if line["event"] == "worker ended"]
        return [f"a worker of replica {self.number} ended with {line['code']}" for line in ended if "code" in line]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.process.poll() is None:
            os.kill(self._process.process.pid, number)


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


class WorkersReader(NearReader):
    """Clients of an owner's workers. Each connection belongs to the worker that has accepted it.

    `pause` and `kill` are about one worker, another one each time. The proxy is that between owner and database.
    """

    keeps_answers = False

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner.proxy)
        self.owner = owner
        self._turns = count()
        self._paused: set[int] = set()

    @property
    def address(self) -> str:
        """Return where its clients connect to."""
        return self.owner.address

    def pause(self) -> None:
        """Stop a worker with SIGSTOP."""
        self._paused |= self._signal_one(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the workers continue that were stopped, also if their owner has ended."""
        for pid in self._paused:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._paused.clear()

    def kill(self) -> None:
        """Kill a worker with SIGKILL. Its owner starts another one."""
        self._paused -= self._signal_one(signal.SIGKILL)

    def revive(self) -> None:
        """Do nothing: that is its owner's task."""

    async def stop(self) -> None:
        """Do nothing: the workers end with their owner."""

    def _signal_one(self, number: signal.Signals) -> set[int]:
        """Send a signal to the worker whose turn it is. Return its process id; nothing if there is none."""
        pids = self.owner.workers()
        if not pids:
            return set()
        pid = pids[next(self._turns) % len(pids)]
        os.kill(pid, number)  # it has not been waited for before its owner does so, so the id is still its own
        return {pid}


def _logged(log: str) -> list[dict[str, Any]]:
    """Return the lines of a log of JSON that have an event."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if "event" in line]


def _text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8") if log.exists() else ""


def _parent_of(pid: int) -> int:
    """Return the parent of a process that runs; 0 if it has ended."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if state == "Z" else int(parent)
