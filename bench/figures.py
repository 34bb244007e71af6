"""The figures: what each of them compares, and the bar it has to reach."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.attacks import ATTACKS
from bench.overload import measure
from bench.processes import echo as echo_command
from bench.processes import serving, sessiond
from bench.seed import EVERY_SIGNAL, LONG_LIVED, Seeded, ready, seed
from bench.sides import BATCH, Batches, Creation, Echo, Refusal, Side, Teller, Validation, expect

__all__ = ["FIGURES", "Figure", "Result", "Settings", "Teller"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    folder       throwaway data and logs
    kept         the stores that are filled once
    validations, creations   calls in each run
    few, many    stored sessions, of validate_1m_vs_1k
    attacked     stored sessions at most, of honest_under_attack
    profile      where a profile goes, if one is to be recorded instead of a comparison
    echo_loop    the event loop that the echo runs on
    """

    pairs: int
    folder: Path
    kept: Path
    validations: int = 24_000
    creations: int = 12_000
    few: int = 1_000
    many: int = 1_000_000
    attacked: int = 300_000
    profile: Path | None = None
    echo_loop: str = "asyncio"


@dataclass(slots=True)
class Result:
    """A figure as it came out: every run, the ratio of each pair, their median, and what else was seen.

    A ratio is the subject's throughput over the baseline's; with `at_most` it is the subject's cost over the
    baseline's, and the bar must not be passed. Without a bar the figure is only reported.
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
    """Whether each pair has runs of a server under load, with throughput and processor time."""

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios; the worst of them, where each is of another thing."""
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
        """The median of a measured value over the runs of one side."""
        return float(statistics.median(pair[side][key] for pair in self.pairs))

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        measured = ("throughput", "latency_mean_ms", "server_cpu_us", "server_cores")
        whole = {
            "ratio": self.ratio,
            "bar": self.bar,
            "bar_is": "at most" if self.at_most else "at least",
            "met": self.met,
            "subject": self.subject,
            "baseline": self.baseline,
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
    """A figure by its name, the bar (None: the figure is only reported), and how to measure it."""

    name: str
    bar: float | None
    measure: Callable[[Settings, Result, Teller], None]
    at_most: bool = False

    def run(self, settings: Settings, teller: Teller) -> Result:
        """Measure it. Raises `LoadFailed` or `ServerEnded`."""
        result = Result(self.name, self.bar, self.at_most, "", "")
        self.measure(settings, result, teller)
        return result


def _profile(settings: Settings, side: Side, teller: Teller) -> None:
    """Run one side alone, and record its profile while it is under load."""
    teller.step("warming up")
    side.run(-1)
    os.kill(side.server.pid, signal.SIGUSR1)
    for number in range(settings.pairs):
        teller.progress("recording", number, settings.pairs)
        side.run(number)
    os.kill(side.server.pid, signal.SIGUSR2)
    teller.progress("recording", settings.pairs, settings.pairs)


def _alternate(result: Result, subject: Side, baseline: Side, pairs: int, teller: Teller) -> None:
    """Run both in turns; every other pair begins with the other side, so that no drift favours one of them."""
    teller.step(f"{result.name}: warming up")
    subject.run(-1)
    baseline.run(-1)
    for number in range(pairs):
        teller.progress(result.name, number, pairs)
        if number % 2:
            under_test = subject.run(number)
            beside = baseline.run(number)
        else:
            beside = baseline.run(number)
            under_test = subject.run(number)
        ratio = under_test.throughput / beside.throughput
        result.pairs.append(
            {
                "ratio": 1 / ratio if result.at_most else ratio,
                "first": "subject" if number % 2 else "baseline",
                "subject": asdict(under_test),
                "baseline": asdict(beside),
            }
        )
    teller.progress(result.name, pairs, pairs)


def _validate_vs_echo(settings: Settings, result: Result, teller: Teller) -> None:
    teller.step("validate_vs_echo: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / "validate", 10_000, EVERY_SIGNAL, age_ms=61_000))
    with serving(
        "sessiond", sessiond(seeded.data, seeded.config, settings.profile), settings.folder / "validate.log"
    ) as server:
        side = Validation(server, seeded, settings.validations, pulse=True)
        side.warm_up(seeded.count, teller)
        _beside_echo(settings, result, side, settings.validations, teller)
    result.subject, result.details["live_sessions"] = "ValidateSession", seeded.count


def _create_vs_echo(settings: Settings, result: Result, teller: Teller) -> None:
    command = sessiond(settings.folder / "create", profile=settings.profile)
    with serving("sessiond", command, settings.folder / "create.log") as server:
        side = Creation(server, settings.creations)
        _beside_echo(settings, result, side, settings.creations, teller)
    result.subject = "CreateSession, synchronous=FULL"


def _beside_echo(
    settings: Settings, result: Result, side: Validation | Creation, requests: int, teller: Teller
) -> None:
    if settings.profile is not None:
        _profile(settings, side, teller)
        return
    request_bytes, response_bytes = side.sizes()
    with serving("echo", echo_command(response_bytes, settings.echo_loop), settings.folder / "echo.log") as server:
        _alternate(result, side, Echo(server, request_bytes, response_bytes, requests), settings.pairs, teller)
    result.baseline = f"bare grpc.aio echo on {settings.echo_loop}"
    result.details.update(request_bytes=request_bytes, response_bytes=response_bytes)


def _validate_1m_vs_1k(settings: Settings, result: Result, teller: Teller) -> None:
    teller.step(f"validate_1m_vs_1k: opening {settings.few:,} sessions")
    few = asyncio.run(seed(settings.folder / "few", settings.few, LONG_LIVED))
    many = _kept(settings, teller)
    cached = min(settings.many, 100_000)
    teller.step("validate_1m_vs_1k: weighing the cache")
    result.details["resident_bytes_per_cached_session"] = _weigh(many, cached)
    with (
        serving("full store", sessiond(many.data, many.config), settings.folder / "many.log") as large,
        serving("small store", sessiond(few.data, few.config), settings.folder / "few.log") as small,
    ):
        subject = Validation(large, many, settings.validations, pulse=False)
        baseline = Validation(small, few, settings.validations, pulse=False)
        baseline.warm_up(few.count, teller)
        resident = large.resident_bytes()
        # The default cache holds 100,000: both are measured with all that their cache can hold.
        from_store = subject.warm_up(cached, teller)
        result.details["server_resident_bytes"] = {"before": resident, "cache_full": large.resident_bytes()}
        from_memory = subject.warm_up(min(cached, 10 * BATCH), teller)
        result.details["batched_validation_us"] = {"from_store": from_store, "from_memory": from_memory}
        _alternate(result, subject, baseline, settings.pairs, teller)
    result.subject = f"{settings.many:,} stored sessions"
    result.baseline = f"{settings.few:,} stored sessions"
    result.details.update(cached_sessions=cached, stored_bytes=(many.data / "sessiond.db").stat().st_size)


def _kept(settings: Settings, teller: Teller) -> Seeded:
    folder = settings.kept / f"{settings.many}"
    found = ready(folder, settings.many, LONG_LIVED)
    if found is not None:
        teller.step(f"validate_1m_vs_1k: using the {settings.many:,} sessions in {folder}")
        return found
    text = f"filling {folder} with {settings.many:,} sessions, once"
    return asyncio.run(seed(folder, settings.many, LONG_LIVED, lambda done: teller.progress(text, done, settings.many)))


def _weigh(seeded: Seeded, count: int) -> float:
    command = [sys.executable, "-m", "bench.memory", str(seeded.data / "sessiond.db"), str(count)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    expect(process.returncode == 0, f"the cache could not be weighed:\n{process.stderr}")
    return float(process.stdout)


def _forged_vs_valid(settings: Settings, result: Result, teller: Teller) -> None:
    teller.step("forged_vs_valid: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / "forged", 10_000, EVERY_SIGNAL, age_ms=61_000))
    with serving("sessiond", sessiond(seeded.data, seeded.config), settings.folder / "forged.log") as server:
        Validation(server, seeded, 0, pulse=False).warm_up(seeded.count, teller)
        calls = settings.validations // 10
        _alternate(
            result,
            Batches(server, seeded, calls, forged=True),
            Batches(server, seeded, calls, forged=False),
            settings.pairs,
            teller,
        )
        alone = Result(f"{result.name}, one a call", result.bar, result.at_most, "", "")
        calls = settings.validations
        _alternate(
            alone,
            Refusal(server, seeded, calls),
            Validation(server, seeded, calls, pulse=False),
            min(settings.pairs, 5),
            teller,
        )
    result.subject, result.baseline = "refusing 100 forged tokens in a batch", "validating 100 live ones"
    result.details["unary_cost_ratio"] = alone.ratio
    result.details["unary_pairs"] = alone.pairs


def _honest_under_attack(settings: Settings, result: Result, teller: Teller) -> None:
    result.worst, result.under_load = True, False
    for number, (name, attack) in enumerate(ATTACKS.items()):
        teller.progress(f"honest_under_attack: {name}", number, len(ATTACKS))
        folder = settings.folder / f"attack-{number}"
        folder.mkdir()
        sessions = min(attack.sessions, settings.attacked)
        beside = measure(name, folder, size=attack.size, sessions=sessions, seconds=1.0, rounds=min(settings.pairs, 4))
        expect(not beside.failed, f"{beside.failed} honest calls failed beside {name!r}")
        result.pairs.append({"ratio": beside.ratio, "attack": attack.what} | asdict(beside))
    teller.progress("honest_under_attack", len(ATTACKS), len(ATTACKS))
    result.subject, result.baseline = "an honest caller beside each attack", "the same caller, quiet"


def _cli_start(settings: Settings, result: Result, teller: Teller) -> None:
    result.under_load = False
    subject = [sys.executable, "-m", "sessionctl", "--help"]
    baseline = [sys.executable, "-c", "pass"]
    teller.step("cli_start: warming up")
    _start_seconds(subject)
    for number in range(settings.pairs):
        teller.progress("cli_start", number, settings.pairs)
        seconds = {"subject": _start_seconds(subject), "baseline": _start_seconds(baseline)}
        result.pairs.append({"ratio": seconds["subject"] / seconds["baseline"], "seconds": seconds})
    teller.progress("cli_start", settings.pairs, settings.pairs)
    result.subject, result.baseline = "sessionctl --help", "python -c pass"
    result.details["start_seconds"] = {
        side: statistics.median(pair["seconds"][side] for pair in result.pairs) for side in ("subject", "baseline")
    }


def _start_seconds(command: list[str]) -> float:
    """The median time of several runs of a command, from its start to its end."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


FIGURES = (
    Figure("validate_vs_echo", 0.70, _validate_vs_echo),
    Figure("create_vs_echo", 0.50, _create_vs_echo),
    Figure("validate_1m_vs_1k", 0.90, _validate_1m_vs_1k),
    Figure("forged_vs_valid", 0.80, _forged_vs_valid, at_most=True),
    Figure("honest_under_attack", 2.00, _honest_under_attack, at_most=True),
    Figure("cli_start", None, _cli_start, at_most=True),
)
