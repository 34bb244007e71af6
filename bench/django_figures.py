"""The figures about Django: sessions with data from a near cache, and whole requests, beside Django's own sessions."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.processes import serving, sessiond
from bench.redis_server import running_redis
from bench.results import Figure, Result, Settings
from bench.seed import EVERY_SIGNAL
from bench.sides import Reporter, expect

__all__ = ["DJANGO_FIGURES"]

_SESSIONS = 500


class _Reader:
    """A process that reads sessions, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, count: int) -> dict[str, float]:
        """Read so many sessions; return the rate, and the CPU time of the process for each."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self.line())
        return found

    def line(self) -> str:
        """Return the next line that the process prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        expect(line != "", "a process that reads sessions failed; its error is above")
        return line


@contextmanager
def _reader(*arguments: str) -> Iterator[_Reader]:
    """Run one side, ready to read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.django_sessions", str(_SESSIONS), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        reader = _Reader(process)
        expect(reader.line() == "ready\n", "a process that reads sessions did not begin")
        yield reader
    finally:
        process.kill()
        process.communicate()


def _beside_django(
    settings: Settings, result: Result, reporter: Reporter, engine: str, *, redis: bool, ours: str = "near_cache"
) -> None:
    result.under_load = False
    reporter.step(f"{result.name}: opening {_SESSIONS:,} sessions on both sides")
    folder = settings.folder / result.name
    folder.mkdir()
    config = folder / "sessiond.toml"
    config.write_text(EVERY_SIGNAL, encoding="utf-8")
    with ExitStack() as running:
        server = running.enter_context(serving("sessiond", sessiond(folder / "data", config), folder / "sessiond.log"))
        cache = [running.enter_context(running_redis(folder)).address] if redis else []
        readers = {
            "subject": running.enter_context(_reader(ours, server.address)),
            "baseline": running.enter_context(_reader(engine, str(folder), *cache)),
        }
        # A near cache reads several times as fast as Django's sessions; so the runs take about as long.
        faster = 10 if ours == "near_cache" else 1
        counts = {"subject": faster * (settings.validations // 2), "baseline": settings.validations // 2}
        for number in range(settings.pairs):
            reporter.progress(result.name, number, settings.pairs)
            order = ("subject", "baseline") if number % 2 else ("baseline", "subject")
            runs = {side: readers[side].run(counts[side]) for side in order}
            ratio = runs["subject"]["per_second"] / runs["baseline"]["per_second"]
            result.pairs.append({"ratio": ratio, "first": order[0]} | runs)
    reporter.progress(result.name, settings.pairs, settings.pairs)
    result.subject = "a validation with data from the near cache, one thread"
    for side in readers:
        for key in ("per_second", "client_cpu_us"):
            result.details[f"{key}_of_{side}"] = statistics.median(pair[side][key] for pair in result.pairs)


def _near_cache_vs_django_db(settings: Settings, result: Result, reporter: Reporter) -> None:
    _beside_django(settings, result, reporter, "db", redis=False)
    result.baseline = "Django's session engine db, on SQLite"


def _near_cache_vs_django_cached_db(settings: Settings, result: Result, reporter: Reporter) -> None:
    _beside_django(settings, result, reporter, "cached_db", redis=True)
    result.baseline = "Django's session engine cached_db, cached in Redis on loopback"


def _django_page(settings: Settings, result: Result, reporter: Reporter) -> None:
    _beside_django(settings, result, reporter, "page_cached_db", redis=True, ours="page_sessiond")
    result.subject = "a page that reads the session, through SessiondMiddleware with the near cache"
    result.baseline = "the same page with Django's session engine cached_db, cached in Redis on loopback"


DJANGO_FIGURES = (
    Figure("django_page", None, _django_page, needs_redis=True),
    Figure("near_cache_vs_django_cached_db", None, _near_cache_vs_django_cached_db, needs_redis=True),
    Figure("near_cache_vs_django_db", None, _near_cache_vs_django_db),
)
