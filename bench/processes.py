"""The servers under load. Each runs in its own process and process session, and is ended by its process id."""

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
from typing import Any

import grpc

from bench.tls import MutualTls

__all__ = ["Server", "ServerEnded", "echo", "serving", "sessiond", "sidecar"]

_START_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


class ServerEnded(Exception):
    """A server did not start, or ended by itself. The text ends with its output."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its name in the report, its process id and address, and the files if it requires mutual TLS.

    `http` is where proxies ask over HTTP; empty: nowhere.
    """

    name: str
    pid: int
    address: str
    tls: MutualTls | None = None
    http: str = ""

    def channel(self) -> grpc.Channel:
        """Return a channel to the server."""
        if self.tls is None:
            return grpc.insecure_channel(self.address)
        return grpc.secure_channel(self.address, self.tls.channel_credentials())

    def cpu_seconds(self) -> float:
        """Return the CPU time that the server has used so far, in seconds, all threads together."""
        # Fields are counted after the closing parenthesis, because the program's name may contain spaces.
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident_bytes(self) -> int:
        """Return the resident memory of the server."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ServerEnded(f"the system reports no resident memory for {self.name}")


def sessiond(
    data: Path, config: Path | None = None, profile: Path | None = None, *, transport: str = "grpcio"
) -> list[str]:
    """Return the command that serves a data folder. At its end it writes a profile to `profile`, if given."""
    command = [sys.executable, "-m", "sessiond"]
    if profile is not None:
        command = [sys.executable, "-m", "bench.serve_profiled", str(profile)]
    command += ["serve", "--data", str(data), "--listen", "127.0.0.1:0", "--log-format", "json"]
    if transport != "grpcio":
        command += ["--transport", transport]
    return command if config is None else [*command, "--config", str(config)]


def sidecar(upstream: Server) -> list[str]:
    """Return the command that runs a sidecar of an authority."""
    command = [sys.executable, "-m", "sessiond", "sidecar", "--upstream", upstream.address]
    return [*command, "--listen", "127.0.0.1:0", "--log-format", "json"]


def echo(
    response_bytes: int, loop: str = "asyncio", transport: str = "grpcio", tls: MutualTls | None = None
) -> list[str]:
    """Return the command that serves the echo on the event loop and the transport of these names; with mutual TLS."""
    files = () if tls is None else (str(tls.server_certificate), str(tls.server_key), str(tls.authority))
    return [sys.executable, "-m", "bench.echo", str(response_bytes), loop, transport, *files]


@contextmanager
def serving(name: str, command: Sequence[str], log: Path, tls: MutualTls | None = None) -> Iterator[Server]:
    """Run a server while the block runs; `tls`: the files if it requires mutual TLS.

    Raise `ServerEnded` if it does not start.
    """
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        entry = _serving(name, process, log)
        yield Server(name, process.pid, str(entry["address"]), tls, str(entry.get("http", "")))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _serving(name: str, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Return the line of the log with which a server says where it serves."""
    give_up = time.monotonic() + _START_SECONDS
    while True:
        text = log.read_text(encoding="utf-8")
        for line in text[: text.rfind("\n") + 1].splitlines():
            if line.startswith("{") and (entry := json.loads(line)).get("event") == "serving":
                return dict(entry)
        if process.poll() is not None or time.monotonic() > give_up:
            raise ServerEnded(f"{name} did not start serving (exit code {process.poll()}):\n{text}")
        time.sleep(0.02)
