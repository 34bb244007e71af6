"""The figures about Flask: a page that reads a cart with sessions in sessiond, beside the same page with others."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.flask_site import cart_of
from bench.processes import serving, sessiond
from bench.redis_server import running_redis
from bench.results import Figure, Result, Settings, alternate
from bench.seed import EVERY_SIGNAL
from bench.sides import Reporter
from bench.web_load import CONNECTIONS, Visitor, WebPage

__all__ = ["FLASK_FIGURES"]

_SETTLED = 6.0
"""Seconds after a login until the site may answer from its near cache: for five, it sees its own changes."""
_NEAR = "a page of Flask that reads a cart, near cache on"


@contextmanager
def _side(settings: Settings, name: str, kind: str, place: str) -> Iterator[WebPage]:
    """Run a site of this kind, with a user on each connection."""
    command = [sys.executable, "-m", "bench.flask_site", kind, place]
    with serving(kind, command, settings.folder / f"{name}-{kind}.log") as server:
        visitors = [Visitor(server) for _ in range(CONNECTIONS)]
        users = [f"user-{number}" for number in range(CONNECTIONS)]
        for visitor, user in zip(visitors, users, strict=True):
            visitor.request("POST", f"/login?user={user}")
        wanted = [{"user": user, "cart": cart_of(user)} for user in users]
        yield WebPage(server, "/cart", visitors, wanted, settings.validations)


def _compare(settings: Settings, result: Result, reporter: Reporter, subject: str, baseline: str) -> None:
    reporter.step(f"{result.name}: starting both sites")
    folder = settings.folder / result.name
    folder.mkdir()
    config = folder / "sessiond.toml"
    config.write_text(EVERY_SIGNAL, encoding="utf-8")
    with ExitStack() as running:
        authority = running.enter_context(
            serving("authority", sessiond(folder / "data", config), folder / "sessiond.log")
        )
        redis = running.enter_context(running_redis(folder)).address if baseline.startswith("redis") else ""
        page = running.enter_context(_side(settings, result.name, subject, authority.address))
        beside = running.enter_context(_side(settings, result.name, baseline, redis))
        time.sleep(_SETTLED)
        alternate(result, page, beside, settings.pairs, reporter)
    result.details["connections"] = CONNECTIONS


def _flask_vs_redis(settings: Settings, result: Result, reporter: Reporter) -> None:
    _compare(settings, result, reporter, "sessiond", "redis")
    result.subject, result.baseline = _NEAR, "with Flask-Session on Redis, which writes at each request by default"


def _flask_vs_redis_read_only(settings: Settings, result: Result, reporter: Reporter) -> None:
    _compare(settings, result, reporter, "sessiond", "redis_read_only")
    result.subject, result.baseline = _NEAR, "with Flask-Session on Redis, which writes changed sessions only"


def _flask_vs_cookie(settings: Settings, result: Result, reporter: Reporter) -> None:
    _compare(settings, result, reporter, "sessiond", "cookie")
    result.subject, result.baseline = _NEAR, "with Flask's own signed cookie, without any server"


def _flask_without_near_cache(settings: Settings, result: Result, reporter: Reporter) -> None:
    _compare(settings, result, reporter, "sessiond_without_near_cache", "redis")
    result.subject = "a page of Flask that reads a cart, near cache off"
    result.baseline = "with Flask-Session on Redis, which writes at each request by default"


FLASK_FIGURES = (
    Figure("flask_vs_redis", 1.00, _flask_vs_redis, needs_redis=True),
    Figure("flask_vs_redis_read_only", None, _flask_vs_redis_read_only, needs_redis=True),
    Figure("flask_vs_cookie", None, _flask_vs_cookie),
    Figure("flask_without_near_cache", None, _flask_without_near_cache, needs_redis=True),
)
