"""The servers under load: processes of their own, in sessions of their own, ended by their process id."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Server", "ServerEnded", "echo", "serving", "sessiond"]

_PATIENCE = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


class ServerEnded(Exception):
    """A server did not come up, or ended by itself; the text ends with what it wrote."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: what the report calls it, its process id, and where it listens."""

    name: str
    pid: int
    address: str

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far, all threads together."""
        # Fields are counted behind the parenthesis: a program's name may hold blanks.
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_bytes(self) -> int:
        """Memory that it holds resident."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ServerEnded(f"{self.name} tells no resident memory")


def sessiond(data: Path, config: Path | None = None, profile: Path | None = None) -> list[str]:
    """The command that serves a data folder; `profile` is where a profile of it goes at its end."""
    command = [sys.executable, "-m", "sessiond"]
    if profile is not None:
        command = [sys.executable, "-m", "bench.serve_profiled", str(profile)]
    command += ["serve", "--data", str(data), "--listen", "127.0.0.1:0", "--log-format", "json"]
    return command if config is None else [*command, "--config", str(config)]


def echo(response_bytes: int, loop: str = "asyncio") -> list[str]:
    """The command that serves the echo, on the event loop of that name."""
    return [sys.executable, "-m", "bench.echo", str(response_bytes), loop]


@contextmanager
def serving(name: str, command: Sequence[str], log: Path) -> Iterator[Server]:
    """Run a server for the length of the block. Raises `ServerEnded` where it does not come up."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield Server(name, process.pid, _address(name, process, log))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(name: str, process: subprocess.Popen[bytes], log: Path) -> str:
    give_up = time.monotonic() + _PATIENCE
    while True:
        text = log.read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines():
            if line.startswith("{") and (entry := json.loads(line)).get("event") == "serving":
                return str(entry["address"])
        if process.poll() is not None or time.monotonic() > give_up:
            raise ServerEnded(f"{name} does not serve (exit code {process.poll()}):\n{text}")
        time.sleep(0.02)
