"""The figures about TLS: both sides with mutual TLS, and sessiond with callers, an audit file and metrics beside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from bench.load import LoadFailed
from bench.processes import serving, sessiond
from bench.results import Figure, Result, Settings, beside_echo
from bench.seed import EVERY_SIGNAL, seed
from bench.sides import Reporter, Validation, expect
from bench.tls import CLIENT_NAME, MutualTls, make_tls
from scripts.postgres import free_port
from sessiond_client import Client, Grant, Role, TlsFiles

__all__ = ["TLS_FIGURES"]

_SCRAPE_EVERY = 5.0
"""Seconds. Prometheus's default is a minute, and most set 15 seconds."""


def _validate_tls_vs_echo_tls(settings: Settings, result: Result, reporter: Reporter) -> None:
    _validate_vs_echo_tls(settings, result, reporter, "validate_tls_vs_echo_tls")


def _validate_all_on_vs_echo_tls(settings: Settings, result: Result, reporter: Reporter) -> None:
    _validate_vs_echo_tls(settings, result, reporter, "validate_all_on_vs_echo_tls", metrics_port=free_port())
    result.subject += f", metrics asked for every {_SCRAPE_EVERY:.0f} s"


def _validate_vs_echo_tls(
    settings: Settings, result: Result, reporter: Reporter, name: str, metrics_port: int = 0
) -> None:
    reporter.step(f"{name}: opening 10,000 sessions")
    folder = settings.folder / name
    try:
        tls = make_tls(folder / "tls")
    except FileNotFoundError as error:
        raise LoadFailed(str(error)) from error
    audit, metrics = folder.absolute() / "audit.log", f"127.0.0.1:{metrics_port}" if metrics_port else ""
    # The sections of servers and logs come first: `EVERY_SIGNAL` ends inside a table.
    config = f'[server]\nmetrics_listen = "{metrics}"\n[log]\naudit_file = "{audit}"\n{EVERY_SIGNAL}'
    seeded = asyncio.run(seed(folder / "data", 10_000, config, age_ms=61_000))
    command = [*sessiond(seeded.data, seeded.config, settings.profile), *tls.serve_options()]
    with serving("sessiond, mutual TLS", command, folder / "server.log", tls) as server, _scraping(metrics) as scrapes:
        _add_callers(server.address, tls)
        side = Validation(server, seeded, settings.validations, pulse=True)
        side.warm_up(seeded.count, reporter)
        beside_echo(settings, result, side, settings.validations, reporter)
        expect(audit.read_text(encoding="utf-8").count("CreateCaller") == 2, "the audit log does not have both callers")
        expect(not metrics or len(scrapes) > 1, "the metrics were not asked for")
    result.subject = "ValidateSession, mutual TLS, a caller by its certificate, audit log"
    result.details["live_sessions"] = seeded.count


@contextmanager
def _scraping(address: str) -> Iterator[list[int]]:
    """Ask for the metrics during the block as Prometheus does, if there is an address. Yield the size of each page."""
    sizes: list[int] = []
    ended = threading.Event()

    def scrape() -> None:
        while not ended.wait(_SCRAPE_EVERY):
            with urlopen(f"http://{address}/metrics", timeout=10) as page:
                sizes.append(len(page.read()))

    thread = threading.Thread(target=scrape, daemon=True)
    if address:
        thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        if address:
            thread.join()


def _add_callers(address: str, tls: MutualTls) -> None:
    """From now on each call is authorized: h2load's certificate proves a caller that may validate."""
    files = TlsFiles(ca=tls.authority, certificate=tls.client_certificate, key=tls.client_key)
    with Client(address, tls=files) as anyone:
        first = anyone.create_caller("ops", [Grant(role=Role.ADMIN)])
    with Client(address, tls=files, key=first.key) as ops:
        grants = [Grant(role=Role.VALIDATOR)]
        ops.create_caller("bench", grants, certificate_names=[CLIENT_NAME], without_key=True)


TLS_FIGURES = (
    Figure("validate_tls_vs_echo_tls", 0.70, _validate_tls_vs_echo_tls),
    Figure("validate_all_on_vs_echo_tls", 0.60, _validate_all_on_vs_echo_tls),
)
