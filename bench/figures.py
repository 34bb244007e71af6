"""The figures: what each one compares, and the bar that it has to reach."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from dataclasses import asdict

from bench.attacks import ATTACKS
from bench.coalescing import COALESCING_FIGURES
from bench.django_figures import DJANGO_FIGURES
from bench.fastapi_figures import FASTAPI_FIGURES
from bench.flask_figures import FLASK_FIGURES
from bench.latency import LATENCY_FIGURES
from bench.native_figures import NATIVE_FIGURES
from bench.near_cache import NEAR_CACHE_FIGURES
from bench.overload import measure
from bench.postgres_figures import POSTGRES_FIGURES
from bench.processes import serving, sessiond
from bench.proxy_figures import PROXY_FIGURES
from bench.results import Figure, Result, Settings, alternate, beside_echo
from bench.seed import EVERY_SIGNAL, LONG_LIVED, Seeded, ready, seed
from bench.sidecar_figures import SIDECAR_FIGURES
from bench.sides import BATCH, Batches, Creation, Refusal, Reporter, Validation, expect
from bench.tls_figures import TLS_FIGURES

__all__ = ["FIGURES", "Figure", "Reporter", "Result", "Settings"]


def _validate_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    reporter.step("validate_vs_echo: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / "validate", 10_000, EVERY_SIGNAL, age_ms=61_000))
    with serving(
        "sessiond", sessiond(seeded.data, seeded.config, settings.profile), settings.folder / "validate.log"
    ) as server:
        side = Validation(server, seeded, settings.validations, pulse=True)
        side.warm_up(seeded.count, reporter)
        beside_echo(settings, result, side, settings.validations, reporter)
    result.subject, result.details["live_sessions"] = "ValidateSession", seeded.count


def _create_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    command = sessiond(settings.folder / "create", profile=settings.profile)
    with serving("sessiond", command, settings.folder / "create.log") as server:
        side = Creation(server, settings.creations)
        # Twice as many echoes take about as long as the creations.
        beside_echo(settings, result, side, 2 * settings.creations, reporter)
    result.subject = "CreateSession, synchronous=FULL"


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
        alternate(result, subject, baseline, settings.pairs, reporter)
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
        calls = settings.validations // 16
        alternate(
            result,
            Batches(server, seeded, calls, forged=True),
            Batches(server, seeded, calls, forged=False),
            settings.pairs,
            reporter,
        )
        alone = Result(f"{result.name}, one a call", result.bar, result.at_most, "", "")
        calls = settings.validations // 2
        alternate(
            alone,
            Refusal(server, seeded, calls),
            Validation(server, seeded, calls, pulse=False),
            settings.pairs,
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
        found = measure(
            name,
            folder,
            size=attack.size,
            sessions=sessions,
            seconds=1.0,
            rounds=min(settings.pairs, 4),
            quiet_seconds=0.5,
        )
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


FIGURES = (
    Figure("validate_vs_echo", 0.70, _validate_vs_echo),
    Figure("create_vs_echo", 0.50, _create_vs_echo),
    Figure("validate_1m_vs_1k", 0.90, _validate_1m_vs_1k),
    Figure("forged_vs_valid", 0.80, _forged_vs_valid, at_most=True),
    Figure("honest_under_attack", 2.00, _honest_under_attack, at_most=True),
    Figure("cli_start", None, _cli_start, at_most=True),
    *TLS_FIGURES,
    *NATIVE_FIGURES,
    *COALESCING_FIGURES,
    *NEAR_CACHE_FIGURES,
    *POSTGRES_FIGURES,
    *SIDECAR_FIGURES,
    *PROXY_FIGURES,
    *DJANGO_FIGURES,
    *FASTAPI_FIGURES,
    *FLASK_FIGURES,
    *LATENCY_FIGURES,
)
