"""The soak: a server, processes of clients with near caches, samples, and the comparison of their first and last third.

A leak shows as growth. What grows only until a cache is full does not count: samples begin when every session was used
once and a part of the time has passed. Threads are shown and not judged: thread pools have an upper bound, and start
each of their few threads when it is first needed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

from bench.processes import serving, sessiond
from bench.seed import seed
from tests.soak.resources import resources
from tests.soak.worker import Task, arguments_for

__all__ = ["LIMIT", "Report", "Sample", "Size", "soak"]

LIMIT = 0.05
"""By which part of the first third's median the last third's may be larger."""
_WARM_UP = 0.3
"""The part of the time that is not sampled: buffers and allocators reach their size in it."""
_KINDS = ("resident", "threads", "descriptors", "tasks")
"""What is measured of a process; tasks of a process of clients only."""
_CONFIG = """\
[server]
cache_sessions = {sessions}
event_retention = "1d"

[applications.default]
preset = "owasp-low"
idle_timeout = "3650d"
absolute_timeout = "3650d"
renewal_timeout = "3650d"
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a soak is. `seconds` counts from when all clients are ready."""

    seconds: float
    sessions: int = 50_000
    clients: int = 100
    processes: int = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server and the clients' processes took at one time: the largest of the processes for each kind."""

    after: float
    server: dict[str, int]
    client: dict[str, int]


@dataclass(slots=True)
class Report:
    """The samples, and what the clients counted in the end."""

    size: Size
    samples: list[Sample] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def thirds(self) -> dict[str, tuple[float, float]]:
        """The median of each measure in the first and in the last third of the samples."""
        count = max(1, len(self.samples) // 3)
        first, last = self.samples[:count], self.samples[-count:]
        return {
            f"{of} {kind}": (
                median(getattr(one, of)[kind] for one in first),
                median(getattr(one, of)[kind] for one in last),
            )
            for of, kind in _measures()
        }

    def growths(self) -> dict[str, float]:
        """By which part of its first third each measure has grown."""
        return {name: last / first - 1 for name, (first, last) in self.thirds().items()}

    def faults(self, limit: float = LIMIT) -> list[str]:
        """What is wrong, in words; empty: nothing."""
        judged = {name: growth for name, growth in self.growths().items() if not name.endswith(" threads")}
        found = [f"{name} grew by {growth:.1%}" for name, growth in judged.items() if growth > limit]
        wrong = ("yes after an awaited revocation", "wrongly denied", "errors")
        found += [f"{self.counts[name]} times: {name}" for name in wrong if self.counts.get(name)]
        found += [f"no {name}" for name in ("validations", "hits", "awaited") if not self.counts.get(name)]
        return found

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "seconds": self.size.seconds,
            "sessions": self.size.sessions,
            "clients": self.size.clients,
            "processes": self.size.processes,
            "counts": self.counts,
            "thirds": self.thirds(),
            "growth": self.growths(),
            "faults": self.faults(),
            "samples": [{"after": one.after, "server": one.server, "client": one.client} for one in self.samples],
        }


def _measures() -> Iterator[tuple[str, str]]:
    for kind in ("resident", "threads", "descriptors"):
        yield "server", kind
    for kind in _KINDS:
        yield "client", kind


class _Process:
    """A worker's process."""

    def __init__(self, task: Task, log: IO[bytes]) -> None:
        self._process = subprocess.Popen(
            arguments_for(task), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )

    def read(self) -> dict[str, int]:
        """Its next report. Raises RuntimeError if it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of clients has ended; see its log")
        found: dict[str, int] = json.loads(line)
        return found

    def ask(self) -> None:
        """Ask for a report."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def _workers(tasks: Sequence[Task], folder: Path) -> Iterator[list[_Process]]:
    with ExitStack() as stack:
        found = []
        for task in tasks:
            log = stack.enter_context((folder / f"clients-{task.number}.log").open("wb"))
            found.append(_Process(task, log))
            stack.callback(found[-1].end)
        yield found


def soak(folder: Path, size: Size, show: Callable[[str], None] = lambda text: None) -> Report:
    """Run a soak in a folder, whose former content is deleted."""
    config = _CONFIG.format(sessions=size.sessions)
    show(f"opening {size.sessions:,} sessions")
    seeded = asyncio.run(seed(folder, size.sessions, config))
    report = Report(size)
    with serving("sessiond", sessiond(seeded.data, seeded.config), folder / "server.log") as server:
        tasks = [
            Task(
                server.address,
                str(folder),
                size.sessions,
                config,
                size.clients // size.processes,
                number,
                size.processes,
            )
            for number in range(size.processes)
        ]
        with _workers(tasks, folder) as workers:
            for worker in workers:
                worker.read()
            show("all clients are ready")
            began = time.monotonic()
            every = max(1.0, size.seconds / 120)
            while (after := time.monotonic() - began) < size.seconds:
                time.sleep(min(every, size.seconds - after))
                for worker in workers:
                    worker.ask()
                found = [worker.read() for worker in workers]
                report.counts = _sum(found)
                if after >= _WARM_UP * size.seconds:
                    largest = {kind: max(one[kind] for one in found) for kind in _KINDS}
                    report.samples.append(Sample(round(after, 1), resources(server.pid), largest))
                show(f"{after:4.0f} s: server {resources(server.pid)}, {report.counts}")
    return report


def _sum(found: Sequence[dict[str, int]]) -> dict[str, int]:
    names = {name for one in found for name in one} - set(_KINDS)
    return {name: sum(one.get(name, 0) for one in found) for name in sorted(names)}


def table(report: Report) -> str:
    """The comparison, for people."""
    lines = [f"{'':22} {'first third':>12} {'last third':>12} {'growth':>8}"]
    for name, (first, last) in report.thirds().items():
        texts = [f"{value / 2**20:.1f} MiB" if "resident" in name else f"{value:g}" for value in (first, last)]
        lines.append(f"{name:22} {texts[0]:>12} {texts[1]:>12} {last / first - 1:>8.1%}")
    lines += [f"{name}: {count:,}" for name, count in report.counts.items()]
    return "\n".join(lines)


def main(folder: Path, size: Size, file: Path) -> int:
    """Run a soak, print the comparison, and write everything to a file. Returns the exit code."""
    report = soak(folder, size, lambda text: print(text, file=sys.stderr))  # noqa: T201 - progress
    file.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    print(table(report))  # noqa: T201 - the result
    faults = report.faults()
    for fault in faults:
        print(f"FAULT: {fault}")  # noqa: T201 - as above
    return 1 if faults else 0
