"""The figures about FastAPI: a page that reads a cart with sessions in sessiond, beside the same page with others."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.fastapi_app import cart_of
from bench.processes import serving, sessiond
from bench.redis_server import running_redis
from bench.results import Figure, Result, Settings, alternate
from bench.seed import EVERY_SIGNAL
from bench.sides import Reporter
from bench.web_load import CONNECTIONS, Visitor, WebPage

__all__ = ["FASTAPI_FIGURES"]

_SETTLED = 6.0
"""Seconds after a login until the application may answer from its near cache: for five, it sees its own changes."""


@contextmanager
def _side(settings: Settings, name: str, kind: str, place: str) -> Iterator[WebPage]:
    command = [sys.executable, "-m", "bench.fastapi_app", kind, place]
    with serving(kind, command, settings.folder / f"{name}-{kind}.log") as server:
        visitors = [Visitor(server) for _ in range(CONNECTIONS)]
        users = [f"user-{number}" for number in range(CONNECTIONS)]
        for visitor, user in zip(visitors, users, strict=True):
            visitor.request("POST", f"/login?user={user}")
        wanted = [{"user": user, "cart": cart_of(user)} for user in users]
        yield WebPage(server, "/cart", visitors, wanted, settings.validations)


def _compare(settings: Settings, result: Result, reporter: Reporter, subject: str, baseline: str) -> None:
    reporter.step(f"{result.name}: starting both applications")
    folder = settings.folder / result.name
    folder.mkdir()
    config = folder / "sessiond.toml"
    config.write_text(EVERY_SIGNAL, encoding="utf-8")
    with ExitStack() as running:
        authority = running.enter_context(
            serving("authority", sessiond(folder / "data", config), folder / "sessiond.log")
        )
        places = {"redis": running.enter_context(running_redis(folder)).address} if baseline == "redis" else {}
        under_test, reference = (
            running.enter_context(_side(settings, result.name, kind, places.get(kind, authority.address)))
            for kind in (subject, baseline)
        )
        time.sleep(_SETTLED)
        alternate(result, under_test, reference, settings.pairs, reporter)
    result.details["connections"] = CONNECTIONS


def _fastapi_vs_redis(settings: Settings, result: Result, reporter: Reporter) -> None:
    _compare(settings, result, reporter, "sessiond", "redis")
    result.subject, result.baseline = "a page of FastAPI that reads a cart, near cache on", "with starsessions on Redis"


def _fastapi_vs_cookie(settings: Settings, result: Result, reporter: Reporter) -> None:
    _compare(settings, result, reporter, "sessiond", "cookie")
    result.subject, result.baseline = "a page of FastAPI that reads a cart, near cache on", "with a signed cookie"


def _fastapi_without_near_cache(settings: Settings, result: Result, reporter: Reporter) -> None:
    _compare(settings, result, reporter, "sessiond_without_near_cache", "redis")
    result.subject, result.baseline = "a page of FastAPI, near cache off", "with starsessions on Redis"


FASTAPI_FIGURES = (
    Figure("fastapi_vs_redis", 1.00, _fastapi_vs_redis, needs_redis=True),
    Figure("fastapi_vs_cookie", None, _fastapi_vs_cookie),
    Figure("fastapi_without_near_cache", None, _fastapi_without_near_cache, needs_redis=True),
)
