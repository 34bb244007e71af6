"""What a measurement is: its scope, its result, and two servers under load by turns."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import echo as echo_command
from bench.processes import serving
from bench.sides import Echo, Reporter, Side, Sized

__all__ = ["Figure", "Result", "Settings", "alternate", "beside_echo", "profiled"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The scope of the measurement.

    pairs        pairs of runs for each figure
    folder       temporary data and logs
    kept         stores that are filled once and reused
    validations, creations   calls in each run
    few, many    stored sessions in validate_1m_vs_1k
    attacked     maximum number of stored sessions in honest_under_attack
    latency_seconds   maximum seconds of each run of the figure latency
    profile      the file for a profile; None: compare instead of recording a profile
    echo_loop    the event loop of the echo
    """

    pairs: int
    folder: Path
    kept: Path
    validations: int = 8_000
    creations: int = 6_000
    few: int = 1_000
    many: int = 1_000_000
    attacked: int = 300_000
    latency_seconds: float = 10.0
    profile: Path | None = None
    echo_loop: str = "asyncio"


@dataclass(slots=True)
class Result:
    """The measured figure: all runs, the ratio of each pair, their median, and further details.

    A ratio is the throughput of the subject divided by that of the baseline. With `at_most` it is the cost of the
    subject divided by that of the baseline, and must not exceed the bar. With `worst` the pairs measure different
    things, and the figure is the worst ratio instead of the median. Without a bar the figure is only reported.
    """

    name: str
    bar: float | None
    at_most: bool
    subject: str
    baseline: str
    pairs: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    worst: bool = False
    under_load: bool = True
    """Whether each pair has runs of a server under load, with throughput and CPU time."""
    seconds: float = 0.0
    """How long the whole measurement took, with everything that was prepared for it."""

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios; with `worst` the largest one."""
        if self.worst:
            return float(max(pair["ratio"] for pair in self.pairs))
        return float(statistics.median(pair["ratio"] for pair in self.pairs))

    @property
    def met(self) -> bool:
        """Whether the bar is reached."""
        if self.bar is None:
            return True
        return self.ratio <= self.bar if self.at_most else self.ratio >= self.bar

    def median(self, side: str, key: str) -> float:
        """Return the median of a measured value over the runs of one side."""
        return float(statistics.median(pair[side][key] for pair in self.pairs))

    def as_json(self) -> dict[str, Any]:
        """Return the figure as it is written to the report."""
        measured = ("throughput", "latency_mean_ms", "server_cpu_us", "server_cores")
        whole = {
            "ratio": self.ratio,
            "bar": self.bar,
            "bar_is": "at most" if self.at_most else "at least",
            "met": self.met,
            "subject": self.subject,
            "baseline": self.baseline,
            "duration_seconds": round(self.seconds, 1),
            "ratios": [pair["ratio"] for pair in self.pairs],
            "details": self.details,
            "pairs": self.pairs,
        }
        if not self.under_load:
            return whole
        return whole | {
            "cpu_ratio": self.median("baseline", "server_cpu_us") / self.median("subject", "server_cpu_us"),
            "median_of_subject": {key: self.median("subject", key) for key in measured},
            "median_of_baseline": {key: self.median("baseline", key) for key in measured},
        }


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: its name, its bar (None: the figure is only reported), and the function that measures it.

    `needs_redis` says that the measurement starts a redis-server, `needs_envoy` that it starts an Envoy.
    """

    name: str
    bar: float | None
    measure: Callable[[Settings, Result, Reporter], None]
    at_most: bool = False
    needs_redis: bool = False
    needs_envoy: bool = False

    def run(self, settings: Settings, reporter: Reporter) -> Result:
        """Measure the figure. Raise `LoadFailed` or `ServerEnded` if that fails."""
        result = Result(self.name, self.bar, self.at_most, "", "")
        begun = time.monotonic()
        self.measure(settings, result, reporter)
        result.seconds = time.monotonic() - begun
        return result


def profiled(settings: Settings, side: Side, reporter: Reporter) -> None:
    """Run one side alone and record its profile under load."""
    reporter.step("warming up")
    side.run(-1)
    os.kill(side.server.pid, signal.SIGUSR1)
    for number in range(settings.pairs):
        reporter.progress("recording", number, settings.pairs)
        side.run(number)
    os.kill(side.server.pid, signal.SIGUSR2)
    reporter.progress("recording", settings.pairs, settings.pairs)


def alternate(result: Result, subject: Side, baseline: Side, pairs: int, reporter: Reporter) -> None:
    """Run both sides alternately. The side that goes first alternates too, so that a drift favours neither."""
    reporter.step(f"{result.name}: warming up")
    subject.run(-1)
    baseline.run(-1)
    for number in range(pairs):
        reporter.progress(result.name, number, pairs)
        if number % 2:
            under_test = subject.run(number)
            reference = baseline.run(number)
        else:
            reference = baseline.run(number)
            under_test = subject.run(number)
        ratio = under_test.throughput / reference.throughput
        result.pairs.append(
            {
                "ratio": 1 / ratio if result.at_most else ratio,
                "first": "subject" if number % 2 else "baseline",
                "subject": asdict(under_test),
                "baseline": asdict(reference),
            }
        )
    reporter.progress(result.name, pairs, pairs)


def beside_echo(
    settings: Settings,
    result: Result,
    side: Sized,
    requests: int,
    reporter: Reporter,
    *,
    transport: str = "grpcio",
) -> None:
    """Measure one side and the echo, with messages of the same sizes, or record a profile of the side alone.

    `transport` is that of the echo.
    """
    if settings.profile is not None:
        profiled(settings, side, reporter)
        return
    request_bytes, response_bytes = side.sizes()
    tls = side.server.tls
    command = echo_command(response_bytes, settings.echo_loop, transport, tls)
    with serving("echo", command, settings.folder / "echo.log", tls) as server:
        alternate(result, side, Echo(server, request_bytes, response_bytes, requests), settings.pairs, reporter)
    name = "grpc.aio" if transport == "grpcio" else "native"
    result.baseline = f"bare {name} echo on {settings.echo_loop}{', mutual TLS' if tls else ''}"
    result.details.update(request_bytes=request_bytes, response_bytes=response_bytes)
