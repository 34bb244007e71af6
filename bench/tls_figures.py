"""The figure about TLS: both sides with mutual TLS."""

from __future__ import annotations

import asyncio

from bench.load import LoadFailed
from bench.processes import serving, sessiond
from bench.results import Figure, Result, Settings, beside_echo
from bench.seed import EVERY_SIGNAL, seed
from bench.sides import Reporter, Validation
from bench.tls import make_tls

__all__ = ["TLS_FIGURES"]


def _validate_tls_vs_echo_tls(settings: Settings, result: Result, reporter: Reporter) -> None:
    reporter.step("validate_tls_vs_echo_tls: opening 10,000 sessions")
    try:
        tls = make_tls(settings.folder / "tls")
    except FileNotFoundError as error:
        raise LoadFailed(str(error)) from error
    seeded = asyncio.run(seed(settings.folder / "validate-tls", 10_000, EVERY_SIGNAL, age_ms=61_000))
    command = [*sessiond(seeded.data, seeded.config, settings.profile), *tls.serve_options()]
    with serving("sessiond, mutual TLS", command, settings.folder / "validate-tls.log", tls) as server:
        side = Validation(server, seeded, settings.validations, pulse=True)
        side.warm_up(seeded.count, reporter)
        beside_echo(settings, result, side, settings.validations, reporter)
    result.subject, result.details["live_sessions"] = "ValidateSession, mutual TLS", seeded.count


TLS_FIGURES = (Figure("validate_tls_vs_echo_tls", None, _validate_tls_vs_echo_tls),)
