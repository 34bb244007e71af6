"""The figures about the sidecar and about workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Load, Run, drive, framed
from bench.processes import Server, serving, sessiond, sidecar
from bench.results import Figure, Result, Settings, alternate
from bench.seed import LONG_LIVED, Seeded, seed
from bench.sides import BODIES, SERVICE, SPREAD, Reporter, Validation, expect, too_few_bytes

__all__ = ["SIDECAR_FIGURES"]

_MOST_OF_AUTHORITY = 0.2
"""The authority may use that share of the sidecar's CPU time while the sidecar answers from memory."""


class _FromMemory(Validation):
    """ValidateSession at a cache, which reports activity to the authority once for each answer that it keeps."""

    def __init__(self, server: Server, seeded: Seeded, requests: int, authority: Server | None = None) -> None:
        super().__init__(server, seeded, requests, pulse=False)
        self._authority = authority

    def run(self, number: int) -> Run:
        """Run the load once. Each token must be VALID before and afterwards, and the authority hardly asked."""
        chosen = [(number * BODIES + i + BODIES) * SPREAD % self._seeded.count for i in range(BODIES)]
        before = [self._stub.validate(self.request(n)) for n in chosen]
        bodies = [framed(self.request(n)) for n in chosen]
        used = 0.0 if self._authority is None else self._authority.cpu_seconds()
        run = drive(Load(self.server, SERVICE + "ValidateSession", bodies, self._requests))
        if self._authority is not None:
            used = self._authority.cpu_seconds() - used
            expect(
                used < _MOST_OF_AUTHORITY * run.server_cores * run.seconds + 0.1,
                f"the authority used {used:.2f} s of CPU time: does the sidecar answer from memory?",
            )
        for n in chosen:
            last = self._stub.validate(self.request(n, passive=True))
            expect(last.session.session_id == str(self._seeded.session_id(n)), "the response is for another session")
        least = min(response.ByteSize() for response in before) + 5 - 6
        expect(run.body_bytes >= run.requests * least, too_few_bytes(run))
        return run


def _sidecar_vs_upstream(settings: Settings, result: Result, reporter: Reporter) -> None:
    reporter.step("sidecar_vs_upstream: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / "sidecar", 10_000, LONG_LIVED))
    command = sessiond(seeded.data, seeded.config)
    with (
        serving("authority", command, settings.folder / "upstream.log") as authority,
        serving("sidecar", sidecar(authority), settings.folder / "sidecar.log") as near,
    ):
        baseline = Validation(authority, seeded, settings.validations, pulse=False)
        baseline.warm_up(seeded.count, reporter)
        alternate(
            result,
            _FromMemory(near, seeded, settings.validations, authority),
            baseline,
            settings.pairs,
            reporter,
        )
        result.details["sidecar_resident_bytes"] = near.resident_bytes()
    result.subject, result.baseline = "ValidateSession at a sidecar, from memory", "the same at the authority"


def _workers_2_vs_1(settings: Settings, result: Result, reporter: Reporter) -> None:
    """Measure the validations of a server with two workers over those of one with one."""
    result.under_load = False
    with (
        _working(settings.folder / "workers-2", 2, reporter) as (two, seeded_two),
        _working(settings.folder / "workers-1", 1, reporter) as (one, seeded_one),
    ):
        sides = {
            "two": _FromMemory(two, seeded_two, settings.validations),
            "one": _FromMemory(one, seeded_one, settings.validations),
        }
        for side in sides.values():
            side.warm_up(1_000, reporter)
            side.run(-1)
        for number in range(settings.pairs):
            reporter.progress("workers_2_vs_1", number, settings.pairs)
            order = ("one", "two") if number % 2 else ("two", "one")
            rates = {name: sides[name].run(number).throughput for name in order}
            result.pairs.append({"ratio": rates["two"] / rates["one"], "validations_per_second": rates})
    reporter.progress("workers_2_vs_1", settings.pairs, settings.pairs)
    result.subject, result.baseline = "a server with two workers", "one with one worker"
    result.details["cores"] = os.cpu_count()


@contextmanager
def _working(folder: Path, count: int, reporter: Reporter) -> Iterator[tuple[Server, Seeded]]:
    reporter.step(f"workers_2_vs_1: opening 10,000 sessions for {count} of them")
    seeded = asyncio.run(seed(folder, 10_000, LONG_LIVED))
    command = [*sessiond(seeded.data, seeded.config), "--workers", str(count)]
    with serving(f"{count} workers", command, folder.with_suffix(".log")) as server:
        yield server, seeded


# Two workers need a core each, and the load and the owner two more.
_TWO_WORKERS = 1.50 if (os.cpu_count() or 1) >= 4 else None

SIDECAR_FIGURES = (
    Figure("sidecar_vs_upstream", 0.95, _sidecar_vs_upstream),
    Figure("workers_2_vs_1", _TWO_WORKERS, _workers_2_vs_1),
)
