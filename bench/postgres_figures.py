"""The figures about Postgres and replicas."""

from __future__ import annotations

import asyncio
import os
import statistics
from concurrent.futures import ThreadPoolExecutor

from bench import postgres
from bench.processes import serving, sessiond
from bench.results import Figure, Result, Settings, beside_echo
from bench.seed import EVERY_SIGNAL, LONG_LIVED, seed
from bench.sides import Reporter, Validation

__all__ = ["POSTGRES_FIGURES"]


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
            beside_echo(settings, result, side, settings.validations, reporter)
    result.subject, result.details["live_sessions"] = "ValidateSession over Postgres, cached", seeded.count


def _two_replicas_vs_one(settings: Settings, result: Result, reporter: Reporter) -> None:
    """Measure the validations of two replicas under load at the same time, over those of one."""
    result.under_load = False
    with postgres.running(settings.folder) as database:
        config = postgres.config_of(database, LONG_LIVED)
        seeded = asyncio.run(seed(settings.folder / "replica-1", 10_000, config))
        second = postgres.another_folder(seeded, settings.folder / "replica-2")
        with (
            serving("first", sessiond(seeded.data, seeded.config), settings.folder / "replica-1.log") as one,
            serving("second", sessiond(second, seeded.config), settings.folder / "replica-2.log") as other,
            ThreadPoolExecutor(2) as pool,
        ):
            sides = [Validation(server, seeded, settings.validations, pulse=False) for server in (one, other)]
            for side in sides:
                side.warm_up(seeded.count, reporter)
            for number in range(settings.pairs):
                reporter.progress("two_replicas_vs_one", number, settings.pairs)
                alone = sides[number % 2].run(number)
                both = list(pool.map(lambda side, run: side.run(run), sides, [number + 100] * 2))
                together = sum(run.throughput for run in both)
                rates = {"alone": alone.throughput, "together": together}
                result.pairs.append({"ratio": together / alone.throughput, "validations_per_second": rates})
    reporter.progress("two_replicas_vs_one", settings.pairs, settings.pairs)
    result.subject, result.baseline = "two replicas at the same time", "one of them"
    result.details["cores"] = os.cpu_count()


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


# Two servers, Postgres and the load need a core each, and the load two.
_TWO_REPLICAS = 1.60 if (os.cpu_count() or 1) >= 6 else None

POSTGRES_FIGURES = (
    Figure("pg_create_vs_single_tx", 4.00, _pg_create_vs_single_tx),
    Figure("pg_validate_vs_echo", 0.70, _pg_validate_vs_echo),
    Figure("two_replicas_vs_one", _TWO_REPLICAS, _two_replicas_vs_one),
    Figure("revoke_visible_ms", 50.00, _revoke_visible_ms, at_most=True),
    Figure("awaited_revoke_ms", None, _awaited_revoke_ms, at_most=True),
)
