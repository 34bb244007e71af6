"""The figure about TLS: both sides with mutual TLS, and sessiond with callers and an audit file beside."""

from __future__ import annotations

import asyncio

from bench.load import LoadFailed
from bench.processes import serving, sessiond
from bench.results import Figure, Result, Settings, beside_echo
from bench.seed import EVERY_SIGNAL, seed
from bench.sides import Reporter, Validation, expect
from bench.tls import CLIENT_NAME, MutualTls, make_tls
from sessiond_client import Client, Grant, Role, TlsFiles

__all__ = ["TLS_FIGURES"]


def _validate_tls_vs_echo_tls(settings: Settings, result: Result, reporter: Reporter) -> None:
    reporter.step("validate_tls_vs_echo_tls: opening 10,000 sessions")
    try:
        tls = make_tls(settings.folder / "tls")
    except FileNotFoundError as error:
        raise LoadFailed(str(error)) from error
    audit = settings.folder.absolute() / "audit.log"
    config = f'{EVERY_SIGNAL}\n[log]\naudit_file = "{audit}"\n'
    seeded = asyncio.run(seed(settings.folder / "validate-tls", 10_000, config, age_ms=61_000))
    command = [*sessiond(seeded.data, seeded.config, settings.profile), *tls.serve_options()]
    with serving("sessiond, mutual TLS", command, settings.folder / "validate-tls.log", tls) as server:
        _add_callers(server.address, tls)
        side = Validation(server, seeded, settings.validations, pulse=True)
        side.warm_up(seeded.count, reporter)
        beside_echo(settings, result, side, settings.validations, reporter)
        expect(audit.read_text(encoding="utf-8").count("CreateCaller") == 2, "the audit log does not have both callers")
    result.subject = "ValidateSession, mutual TLS, a caller by its certificate, audit log"
    result.details["live_sessions"] = seeded.count


def _add_callers(address: str, tls: MutualTls) -> None:
    """From now on each call is authorized: h2load's certificate proves a caller that may validate."""
    files = TlsFiles(ca=tls.authority, certificate=tls.client_certificate, key=tls.client_key)
    with Client(address, tls=files) as anyone:
        first = anyone.create_caller("ops", [Grant(role=Role.ADMIN)])
    with Client(address, tls=files, key=first.key) as ops:
        grants = [Grant(role=Role.VALIDATOR)]
        ops.create_caller("bench", grants, certificate_names=[CLIENT_NAME], without_key=True)


TLS_FIGURES = (Figure("validate_tls_vs_echo_tls", 0.70, _validate_tls_vs_echo_tls),)
