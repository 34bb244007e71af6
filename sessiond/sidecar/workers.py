"""Workers: processes that answer on one port, kept running by the process that owns the store.

They are started as programs of their own and never forked: gRPC's threads do not survive a fork. Each worker's standard
input is a pipe from its owner. When the owner ends, however it ends, the pipe is closed, and the worker stops.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog

__all__ = ["Workers", "WorkersFailed", "owner_is_gone"]

_log = structlog.get_logger(__name__)
_PAUSES = (0.1, 0.5, 2.0, 5.0)
_LONG_LIFE = 30.0
"""Seconds after which the failures before are forgotten."""
_START = 60.0
"""Seconds within which a worker must serve."""


class WorkersFailed(Exception):
    """A worker could not start. It has said why on standard error."""


class _Worker:
    """One worker: its process, replaced by another one when it ends."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()
        self._failures = 0
        self.serves = asyncio.Event()
        self.task = asyncio.create_task(self._keep(), name="worker")

    @property
    def pid(self) -> int:
        """The process id; 0: it is not running at the moment."""
        return 0 if self._process is None else self._process.pid

    def terminate(self, number: int = signal.SIGTERM) -> None:
        """Ask the process to end, and start no other one."""
        self._stopping.set()
        if self._process is not None:
            self._process.send_signal(number)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            try:
                code = await self._run()
            except OSError as error:  # such as too many processes
                _log.error("worker not started", error=error.strerror)
                code = 1
            if self._stopping.is_set():
                return
            if not self.serves.is_set():
                raise WorkersFailed(f"a worker ended with code {code} before it served; see its message above")
            if loop.time() - began > _LONG_LIFE:
                self._failures = 0
            pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
            self._failures += 1
            _log.error("worker ended", **_ending(code), restart_in_seconds=pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _run(self) -> int:
        """Run the process until it ends, and return its exit code."""
        process = self._process = _started(self._command)
        transport = None
        try:
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, process.stdout)
            line = await reader.readline()
            if line:
                if self.serves.is_set():
                    _log.info("worker restarted", pid=process.pid)
                self.serves.set()
            await reader.read()  # it writes nothing more, so this is its end
            return await asyncio.to_thread(process.wait)
        finally:
            self._process = None
            if process.poll() is None:
                process.kill()
                process.wait()
            if transport is not None:
                transport.close()
            if process.stdin is not None:
                process.stdin.close()


class Workers:
    """The workers of one owner. Made by `start`, ended by `stop`."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = workers

    @classmethod
    async def start(cls, count: int, arguments: Sequence[str]) -> Workers:
        """Start workers and wait until all of them serve. Raises `WorkersFailed`; nothing is left running then."""
        command = [sys.executable, "-m", "sessiond", "worker", *arguments]
        workers = cls([_Worker(command) for _ in range(count)])
        try:
            async with asyncio.timeout(_START):
                await asyncio.gather(*(workers._first(one) for one in workers._workers))
        except TimeoutError:
            await workers.stop(0)
            raise WorkersFailed(f"a worker did not serve within {_START:.0f} s; start again") from None
        except BaseException:
            await workers.stop(0)
            raise
        return workers

    @property
    def pids(self) -> list[int]:
        """The process ids of those that run."""
        return [one.pid for one in self._workers if one.pid]

    async def stop(self, grace: float) -> None:
        """Ask all of them to stop, and end those that have not after `grace` seconds."""
        for one in self._workers:
            one.terminate()
        tasks = [one.task for one in self._workers]
        _, late = await asyncio.wait(tasks, timeout=grace)
        if late:
            for one in self._workers:
                one.terminate(signal.SIGKILL)
            await asyncio.wait(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _first(self, worker: _Worker) -> None:
        serves = asyncio.ensure_future(worker.serves.wait())
        await asyncio.wait((serves, worker.task), return_when=asyncio.FIRST_COMPLETED)
        if not serves.done():
            serves.cancel()
            await worker.task


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process. It shares nothing with this one but standard error."""
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own program


def _ending(code: int) -> dict[str, Any]:
    return {"signal": signal.Signals(-code).name} if code < 0 else {"code": code}


async def owner_is_gone(address: str) -> None:
    """In a worker: tell the owner that this worker serves on an address, and wait until the owner has ended."""
    sys.stdout.write(json.dumps({"address": address}) + "\n")
    sys.stdout.flush()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while await reader.read(1024):
        pass
