"""The load: several concurrent h2load processes, each with its own request body, and their reports."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from bench.processes import Server

__all__ = [
    "CLIENTS",
    "STREAMS",
    "Load",
    "LoadFailed",
    "Report",
    "Run",
    "drive",
    "framed",
    "h2load_version",
    "measured",
    "read_report",
    "timed",
]

CLIENTS = 1
"""Connections of each h2load process (-c)."""

STREAMS = 8
"""Calls in flight on each connection (-m)."""

_HEADERS = ("content-type: application/grpc", "te: trailers")
_REQUESTS = re.compile(r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded")
_STATUS = re.compile(r"status codes: (\d+) 2xx")
_FINISHED = re.compile(r"finished in ([\d.]+)(us|ms|s)\b")
_DATA = re.compile(r"\((\d+)\) data")
_LATENCY = re.compile(r"time for request: +\S+ +([\d.]+)(us|ms|s) +([\d.]+)(us|ms|s)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class LoadFailed(Exception):
    """The load did not run as intended, so the run does not count."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: one body for each h2load process, and `requests` calls in total."""

    server: Server
    path: str
    bodies: Sequence[bytes]
    requests: int


@dataclass(frozen=True, slots=True)
class Run:
    """The measurements of one run.

    seconds          duration of the slowest h2load process by its own clock, from first connection to last response
    throughput       calls per second: all calls divided by `seconds`
    body_bytes       bytes of all responses, gRPC's five-byte prefixes included; a response with an error has none
    latency_mean_ms, latency_max_ms   as reported by h2load
    server_cpu_us    CPU time of the server process per call, all threads together
    server_cores     CPU time of the server process divided by `seconds`
    """

    server: str
    requests: int
    seconds: float
    throughput: float
    body_bytes: int
    latency_mean_ms: float
    latency_max_ms: float
    server_cpu_us: float
    server_cores: float


def h2load_version() -> str | None:
    """Return h2load's own description of its version; None if it is not installed."""
    program = shutil.which("h2load")
    if program is None:
        return None
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def framed(message: Message) -> bytes:
    """Return a message as gRPC frames it: a zero byte (not compressed), its length in four bytes, the message."""
    raw = message.SerializeToString()
    return b"\0" + len(raw).to_bytes(4, "big") + raw


def drive(load: Load) -> Run:
    """Send all calls and wait for the last response. Raise `LoadFailed` if not every response is a 2xx."""
    return timed(load)[0]


def timed(load: Load) -> tuple[Run, list[float]]:
    """As `drive`; also return how many seconds the h2load process of each body took."""
    share = load.requests // len(load.bodies)
    with tempfile.TemporaryDirectory(prefix="sessiond-bench-") as folder:
        commands = []
        for number, body in enumerate(load.bodies):
            file = Path(folder) / f"body-{number}"
            file.write_bytes(body)
            commands.append(_command(load, file, share))
        return measured(load.server, commands, share)


def measured(server: Server, commands: Sequence[Sequence[str]], share: int) -> tuple[Run, list[float]]:
    """Run h2load processes at the same time, each with `share` requests to the server.

    Return the measurements, and how many seconds each process took. Raise `LoadFailed` if not every response is a 2xx.
    """
    environment = None if server.tls is None else server.tls.h2load_environment()
    cpu_before = server.cpu_seconds()
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        for command in commands
    ]
    try:
        outputs = [process.communicate()[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    cpu = server.cpu_seconds() - cpu_before
    reports = [read_report(output, share) for output in outputs]
    requests = share * len(reports)
    seconds = max(report.seconds for report in reports)
    run = Run(
        server=server.name,
        requests=requests,
        seconds=seconds,
        throughput=requests / seconds,
        body_bytes=sum(report.body_bytes for report in reports),
        latency_mean_ms=sum(report.latency_mean for report in reports) / len(reports) * 1000,
        latency_max_ms=max(report.latency_max for report in reports) * 1000,
        server_cpu_us=cpu / requests * 1e6,
        server_cores=cpu / seconds,
    )
    return run, [report.seconds for report in reports]


@dataclass(frozen=True, slots=True)
class Report:
    """What one h2load process reported, in seconds and bytes."""

    seconds: float
    body_bytes: int
    latency_mean: float
    latency_max: float


def _command(load: Load, body: Path, requests: int) -> list[str]:
    command = ["h2load", f"-n{requests}", f"-c{CLIENTS}", f"-m{STREAMS}", f"-d{body}"]
    for header in _HEADERS:
        command += ["-H", header]
    scheme = "http" if load.server.tls is None else "https"
    return [*command, f"{scheme}://{load.server.address}{load.path}"]


def read_report(output: str, requests: int) -> Report:
    """Read what an h2load process printed. Raise `LoadFailed` if not every one of its requests had a 2xx response."""
    counted, status = _REQUESTS.search(output), _STATUS.search(output)
    finished, data, latency = _FINISHED.search(output), _DATA.search(output), _LATENCY.search(output)
    if not (counted and status and finished and data and latency):
        raise LoadFailed(f"h2load did not report as expected:\n{output}")
    if not all(int(number) == requests for number in (*counted.groups(), status[1])):
        raise LoadFailed(f"not all of {requests} calls had a 2xx response: {counted[0]}; {status[0]}")
    return Report(
        seconds=float(finished[1]) * _SECONDS[finished[2]],
        body_bytes=int(data[1]),
        latency_mean=float(latency[3]) * _SECONDS[latency[4]],
        latency_max=float(latency[1]) * _SECONDS[latency[2]],
    )
