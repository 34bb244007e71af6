"""The figures about the native transport (see docs/decisions/0024-native-transport.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from bench.processes import serving, sessiond
from bench.results import Figure, Result, Settings, beside_echo
from bench.seed import EVERY_SIGNAL, seed
from bench.sides import Creation, Reporter, Validation

__all__ = ["NATIVE_FIGURES"]


@contextmanager
def _validation(settings: Settings, result: Result, reporter: Reporter) -> Iterator[Validation]:
    """Run a server on the native transport with 10,000 live sessions in memory."""
    reporter.step(f"{result.name}: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / result.name, 10_000, EVERY_SIGNAL, age_ms=61_000))
    command = sessiond(seeded.data, seeded.config, settings.profile, transport="native")
    with serving("sessiond, native", command, settings.folder / f"{result.name}.log") as server:
        side = Validation(server, seeded, settings.validations, pulse=True)
        side.warm_up(seeded.count, reporter)
        yield side
    result.subject, result.details["live_sessions"] = "ValidateSession, native", seeded.count


def _native_validate_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    with _validation(settings, result, reporter) as side:
        beside_echo(settings, result, side, settings.validations, reporter)


def _native_validate_vs_native_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    with _validation(settings, result, reporter) as side:
        beside_echo(settings, result, side, settings.validations, reporter, transport="native")


def _native_create_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    command = sessiond(settings.folder / "native-create", profile=settings.profile, transport="native")
    with serving("sessiond, native", command, settings.folder / "native-create.log") as server:
        side = Creation(server, settings.creations)
        beside_echo(settings, result, side, settings.creations, reporter)
    result.subject = "CreateSession, synchronous=FULL, native"


NATIVE_FIGURES = (
    Figure("native_validate_vs_echo", 3.00, _native_validate_vs_echo),
    Figure("native_validate_vs_native_echo", None, _native_validate_vs_native_echo),
    Figure("native_create_vs_echo", 1.00, _native_create_vs_echo),
)
