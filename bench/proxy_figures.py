"""The figures about proxies (see docs/decisions/0038-proxies.md and 0039-forward-auth.md)."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from bench.envoy import percentiles, running_envoy
from bench.processes import Server, serving, sessiond
from bench.proxies import CONFIG, Bare, Checks, ForwardAuth, bare_command, page
from bench.results import Figure, Result, Settings, alternate, beside_echo, profiled
from bench.seed import Seeded, client_of, seed
from bench.sides import Reporter, Validation
from sessiond_client import Authentication, Client, ClientContext

__all__ = ["PROXY_FIGURES"]


@contextmanager
def _proxied(
    settings: Settings, result: Result, reporter: Reporter, transport: str = "grpcio"
) -> Iterator[tuple[Server, Seeded]]:
    """Run a server that proxies may ask, with 10,000 live sessions in memory."""
    reporter.step(f"{result.name}: opening 10,000 sessions")
    seeded = asyncio.run(seed(settings.folder / result.name, 10_000, CONFIG, age_ms=61_000))
    command = sessiond(seeded.data, seeded.config, settings.profile, transport=transport)
    with serving("sessiond", command, settings.folder / f"{result.name}.log") as server:
        Validation(server, seeded, 0, pulse=False).warm_up(seeded.count, reporter)
        yield server, seeded
    result.details["live_sessions"] = seeded.count


def _ext_authz_vs_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    with _proxied(settings, result, reporter) as (server, seeded):
        beside_echo(settings, result, Checks(server, seeded, settings.validations), settings.validations, reporter)
    result.subject = "Envoy's Check of a valid session"


def _native_ext_authz_vs_native_echo(settings: Settings, result: Result, reporter: Reporter) -> None:
    with _proxied(settings, result, reporter, "native") as (server, seeded):
        side = Checks(server, seeded, settings.validations)
        beside_echo(settings, result, side, settings.validations, reporter, transport="native")
    result.subject = "Envoy's Check of a valid session, native"


def _forward_auth_vs_bare(settings: Settings, result: Result, reporter: Reporter) -> None:
    with _proxied(settings, result, reporter) as (server, seeded):
        side = ForwardAuth(server, seeded, settings.validations)
        if settings.profile is not None:
            profiled(settings, side, reporter)
            return
        answer = [
            (name, value) for name, value in side.ask(0) if name.lower() not in ("date", "server", "content-length")
        ]
        with serving("bare", bare_command(answer), settings.folder / "bare.log") as other:
            bare = Bare(other, side, settings.validations)
            alternate(result, side, bare, settings.pairs, reporter)
    result.subject, result.baseline = "GET /check of a valid session", "a bare endpoint on the same ASGI stack"


def _envoy_check_overhead_us(settings: Settings, result: Result, reporter: Reporter) -> None:
    """What is called the ratio of a pair is the difference of the medians, in microseconds."""
    result.under_load, result.baseline = False, "none: microseconds"
    requests = settings.validations // 4
    agent = client_of(0).user_agent
    with (
        _proxied(settings, result, reporter) as (server, _),
        running_envoy(settings.folder, server.address) as (asks, plain),
        Client(server.address) as authority,
    ):
        created = authority.create(
            subject="ada",
            authentication=Authentication(level=1, methods=("pwd",)),
            client=ClientContext(ip_address="127.0.0.1", user_agent=agent),
        )
        headers = page(created.token.reveal(), agent)
        for port in (asks, plain):
            percentiles(port, headers, requests // 4)
        for number in range(settings.pairs):
            reporter.progress(result.name, number, settings.pairs)
            order = (asks, plain) if number % 2 else (plain, asks)
            taken = {port: percentiles(port, headers, requests) for port in order}
            found = {"with_check": taken[asks], "without": taken[plain]}
            over = {f"p{name}": taken[asks][at] - taken[plain][at] for at, name in enumerate((50, 99))}
            result.pairs.append({"ratio": over["p50"], "overhead_us": over, "p50_and_p99_us": found})
    reporter.progress(result.name, settings.pairs, settings.pairs)
    result.subject = "a request through Envoy that asks sessiond, less one that does not, p50 in us"
    result.details["overhead_us"] = {
        name: statistics.median(pair["overhead_us"][name] for pair in result.pairs) for name in ("p50", "p99")
    }
    result.details["requests_of_each_run"] = requests


PROXY_FIGURES = (
    Figure("ext_authz_vs_echo", 0.60, _ext_authz_vs_echo),
    Figure("native_ext_authz_vs_native_echo", None, _native_ext_authz_vs_native_echo),
    Figure("forward_auth_vs_bare", 0.50, _forward_auth_vs_bare),
    Figure("envoy_check_overhead_us", None, _envoy_check_overhead_us, at_most=True, needs_envoy=True),
)
