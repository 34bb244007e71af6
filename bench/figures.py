"""The figures: what each one compares, and the bar that it has to reach."""

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

from bench import postgres
from bench.attacks import ATTACKS
from bench.overload import measure
from bench.processes import echo as echo_command
from bench.processes import serving, sessiond
from bench.seed import EVERY_SIGNAL, LONG_LIVED, Seeded, ready, seed
from bench.sides import BATCH, Batches, Creation, Echo, Refusal, Reporter, Side, Validation, expect

__all__ = ["FIGURES", "Figure", "Reporter", "Result", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The scope of the measurement.

    pairs        pairs of runs for each figure
    folder       temporary data and logs
    kept         stores that are filled once and reused
    validations, creations   calls in each run
    few, many    stored sessions in validate_1m_vs_1k
    attacked     maximum number of stored sessions in honest_under_attack
    profile      the file for a profile; None: compare instead of recording a profile
    echo_loop    the event loop of the echo
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
    """A figure: its name, its bar (None: the figure is only reported), and the function that measures it."""

    name: str
    bar: float | None
    measure: Callable[[Settings, Result, Reporter], None]
    at_most: bool = False

    def run(self, settings: Settings, reporter: Reporter) -> Result:
        """Measure the figure. Raise `LoadFailed` or `ServerEnded` if that fails."""
        result = Result(self.name, self.bar, self.at_most, "", "")
        self.measure(settings, result, reporter)
        return result


def _profile(settings: Settings, side: Side, reporter: Reporter) -> None:
    """Run one side alone and record its profile under load."""
    reporter.step("warming up")
    side.run(-1)
    os.kill(side.server.pid, signal.SIGUSR1)
    for number in range(settings.pairs):
        reporter.progress("recording", number, settings.pairs)
        side.run(number)
    os.kill(side.server.pid, signal.SIGUSR2)
    reporter.progress("recording", settings.pairs, settings.pairs)


def _alternate(result: Result, subject: Side, baseline: Side, pairs: int, reporter: Reporter) -> None:
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


def _validate_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    reporter.step("validate_vs_echo: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / "validate", 10_000, EVERY_SIGNAL, age_ms=61_000))
    with serving(
        "sessiond", sessiond(seeded.data, seeded.config, settings.profile), settings.folder / "validate.log"
    ) as server:
        side = Validation(server, seeded, settings.validations, pulse=True)
        side.warm_up(seeded.count, reporter)
        _beside_echo(settings, result, side, settings.validations, reporter)
    result.subject, result.details["live_sessions"] = "ValidateSession", seeded.count


def _create_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    command = sessiond(settings.folder / "create", profile=settings.profile)
    with serving("sessiond", command, settings.folder / "create.log") as server:
        side = Creation(server, settings.creations)
        _beside_echo(settings, result, side, settings.creations, reporter)
    result.subject = "CreateSession, synchronous=FULL"


def _beside_echo(
    settings: Settings, result: Result, side: Validation | Creation, requests: int, reporter: Reporter
) -> None:
    if settings.profile is not None:
        _profile(settings, side, reporter)
        return
    request_bytes, response_bytes = side.sizes()
    with serving("echo", echo_command(response_bytes, settings.echo_loop), settings.folder / "echo.log") as server:
        _alternate(result, side, Echo(server, request_bytes, response_bytes, requests), settings.pairs, reporter)
    result.baseline = f"bare grpc.aio echo on {settings.echo_loop}"
    result.details.update(request_bytes=request_bytes, response_bytes=response_bytes)


def _validate_1m_vs_1k(settings: Settings, result: Result, reporter: Reporter) -> None:
    reporter.step(f"validate_1m_vs_1k: opening {settings.few:,} sessions")
    few = asyncio.run(seed(settings.folder / "few", settings.few, LONG_LIVED))
    many = _kept(settings, reporter)
    cached = min(settings.many, 100_000)
    reporter.step("validate_1m_vs_1k: measuring the size of the cache")
    result.details["resident_bytes_per_cached_session"] = _weigh(many, cached)
    with (
        serving("full store", sessiond(many.data, many.config), settings.folder / "many.log") as large,
        serving("small store", sessiond(few.data, few.config), settings.folder / "few.log") as small,
    ):
        subject = Validation(large, many, settings.validations, pulse=False)
        baseline = Validation(small, few, settings.validations, pulse=False)
        baseline.warm_up(few.count, reporter)
        resident = large.resident_bytes()
        # The default cache holds 100,000 sessions. Both servers are measured with a full cache.
        from_store = subject.warm_up(cached, reporter)
        result.details["server_resident_bytes"] = {"before": resident, "cache_full": large.resident_bytes()}
        from_memory = subject.warm_up(min(cached, 10 * BATCH), reporter)
        result.details["batched_validation_us"] = {"from_store": from_store, "from_memory": from_memory}
        _alternate(result, subject, baseline, settings.pairs, reporter)
    result.subject = f"{settings.many:,} stored sessions"
    result.baseline = f"{settings.few:,} stored sessions"
    result.details.update(cached_sessions=cached, stored_bytes=(many.data / "sessiond.db").stat().st_size)


def _kept(settings: Settings, reporter: Reporter) -> Seeded:
    folder = settings.kept / f"{settings.many}"
    found = ready(folder, settings.many, LONG_LIVED)
    if found is not None:
        reporter.step(f"validate_1m_vs_1k: using the {settings.many:,} sessions in {folder}")
        return found
    text = f"filling {folder} with {settings.many:,} sessions (only once)"

    def on_progress(done: int) -> None:
        reporter.progress(text, done, settings.many)

    return asyncio.run(seed(folder, settings.many, LONG_LIVED, on_progress))


def _weigh(seeded: Seeded, count: int) -> float:
    command = [sys.executable, "-m", "bench.memory", str(seeded.data / "sessiond.db"), str(count)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    expect(process.returncode == 0, f"the size of the cache could not be measured:\n{process.stderr}")
    return float(process.stdout)


def _forged_vs_valid(settings: Settings, result: Result, reporter: Reporter) -> None:
    reporter.step("forged_vs_valid: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / "forged", 10_000, EVERY_SIGNAL, age_ms=61_000))
    with serving("sessiond", sessiond(seeded.data, seeded.config), settings.folder / "forged.log") as server:
        Validation(server, seeded, 0, pulse=False).warm_up(seeded.count, reporter)
        calls = settings.validations // 10
        _alternate(
            result,
            Batches(server, seeded, calls, forged=True),
            Batches(server, seeded, calls, forged=False),
            settings.pairs,
            reporter,
        )
        alone = Result(f"{result.name}, one a call", result.bar, result.at_most, "", "")
        calls = settings.validations
        _alternate(
            alone,
            Refusal(server, seeded, calls),
            Validation(server, seeded, calls, pulse=False),
            min(settings.pairs, 5),
            reporter,
        )
    result.subject, result.baseline = "refusing 100 forged tokens in a batch", "validating 100 live ones"
    result.details["unary_cost_ratio"] = alone.ratio
    result.details["unary_pairs"] = alone.pairs


def _honest_under_attack(settings: Settings, result: Result, reporter: Reporter) -> None:
    result.worst, result.under_load = True, False
    for number, (name, attack) in enumerate(ATTACKS.items()):
        reporter.progress(f"honest_under_attack: {name}", number, len(ATTACKS))
        folder = settings.folder / f"attack-{number}"
        folder.mkdir()
        sessions = min(attack.sessions, settings.attacked)
        found = measure(name, folder, size=attack.size, sessions=sessions, seconds=1.0, rounds=min(settings.pairs, 4))
        expect(not found.failed, f"{found.failed} honest calls failed during {name!r}")
        result.pairs.append({"ratio": found.ratio, "attack": attack.what} | asdict(found))
    reporter.progress("honest_under_attack", len(ATTACKS), len(ATTACKS))
    result.subject, result.baseline = "an honest caller during each attack", "the same caller without an attack"


def _cli_start(settings: Settings, result: Result, reporter: Reporter) -> None:
    result.under_load = False
    subject = [sys.executable, "-m", "sessionctl", "--help"]
    baseline = [sys.executable, "-c", "pass"]
    reporter.step("cli_start: warming up")
    _start_seconds(subject)
    for number in range(settings.pairs):
        reporter.progress("cli_start", number, settings.pairs)
        seconds = {"subject": _start_seconds(subject), "baseline": _start_seconds(baseline)}
        result.pairs.append({"ratio": seconds["subject"] / seconds["baseline"], "seconds": seconds})
    reporter.progress("cli_start", settings.pairs, settings.pairs)
    result.subject, result.baseline = "sessionctl --help", "python -c pass"
    result.details["start_seconds"] = {
        side: statistics.median(pair["seconds"][side] for pair in result.pairs) for side in ("subject", "baseline")
    }


def _start_seconds(command: list[str]) -> float:
    """Return the median time of five runs of a command, in seconds, from its start to its end."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _pg_create_vs_single_tx(settings: Settings, result: Result, reporter: Reporter) -> None:
    result.under_load = False
    creations = settings.creations // 2
    with postgres.running(settings.folder) as server:
        for number in range(settings.pairs):
            reporter.progress("pg_create_vs_single_tx", number, settings.pairs)
            rates = {
                side: postgres.creations_per_second(server, settings.folder / f"pg-{number}-{side}", group, count)
                for side, group, count in (("subject", 128, creations), ("baseline", 1, creations // 4))
            }
            result.pairs.append({"ratio": rates["subject"] / rates["baseline"], "creations_per_second": rates})
    reporter.progress("pg_create_vs_single_tx", settings.pairs, settings.pairs)
    result.subject, result.baseline = "64 creations at once, in groups", "the same, one transaction each"


def _pg_validate_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    reporter.step("pg_validate_vs_echo: opening 10,000 sessions")
    with postgres.running(settings.folder) as database:
        config = postgres.config_of(database, EVERY_SIGNAL)
        seeded = asyncio.run(seed(settings.folder / "pg-validate", 10_000, config, age_ms=61_000))
        command = sessiond(seeded.data, seeded.config)
        with serving("sessiond", command, settings.folder / "pg-validate.log") as server:
            side = Validation(server, seeded, settings.validations, pulse=True)
            side.warm_up(seeded.count, reporter)
            _beside_echo(settings, result, side, settings.validations, reporter)
    result.subject, result.details["live_sessions"] = "ValidateSession over Postgres, cached", seeded.count


def _revoke_visible_ms(settings: Settings, result: Result, reporter: Reporter) -> None:
    _revocations(settings, result, reporter, awaited=False)
    result.subject = "revoked on one replica to refused on another, p99 in ms"


def _awaited_revoke_ms(settings: Settings, result: Result, reporter: Reporter) -> None:
    _revocations(settings, result, reporter, awaited=True)
    result.subject = "a revocation that waits for caches, p99 in ms"


def _revocations(settings: Settings, result: Result, reporter: Reporter, *, awaited: bool) -> None:
    """Measure revocations on two replicas. What is called the ratio of a pair is the 99th percentile of a run."""
    result.under_load, result.baseline = False, "none: milliseconds"
    with postgres.running(settings.folder) as database:
        config = postgres.config_of(database, LONG_LIVED)
        first = asyncio.run(seed(settings.folder / f"{result.name}-1", 1, config))
        second = postgres.another_folder(first, settings.folder / f"{result.name}-2")
        with (
            serving("first", sessiond(first.data, first.config), settings.folder / "first.log") as one,
            serving("second", sessiond(second, first.config), settings.folder / "second.log") as other,
        ):
            for number in range(settings.pairs):
                reporter.progress(result.name, number, settings.pairs)
                times = asyncio.run(postgres.revocations(one.address, other.address, 200, awaited=awaited))
                result.pairs.append({"ratio": statistics.quantiles(times, n=100)[98], "milliseconds": times})
    reporter.progress(result.name, settings.pairs, settings.pairs)


FIGURES = (
    Figure("validate_vs_echo", 0.70, _validate_vs_echo),
    Figure("create_vs_echo", 0.50, _create_vs_echo),
    Figure("validate_1m_vs_1k", 0.90, _validate_1m_vs_1k),
    Figure("forged_vs_valid", 0.80, _forged_vs_valid, at_most=True),
    Figure("honest_under_attack", 2.00, _honest_under_attack, at_most=True),
    Figure("cli_start", None, _cli_start, at_most=True),
    Figure("pg_create_vs_single_tx", 4.00, _pg_create_vs_single_tx),
    Figure("pg_validate_vs_echo", 0.70, _pg_validate_vs_echo),
    Figure("revoke_visible_ms", 50.00, _revoke_visible_ms, at_most=True),
    Figure("awaited_revoke_ms", None, _awaited_revoke_ms, at_most=True),
)
