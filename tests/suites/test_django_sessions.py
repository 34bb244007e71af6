"""Django's own session tests, from Django's source distribution, against our backend, middleware and the authority."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import start_program
from tests.support.server import config_for, serving

_ROOT = Path(__file__).parents[2]

_ENGINE = "is about another engine's own store"
_TABLE = "is about Django's table of sessions"
_POLICY = "the authority's policy decides about the cookie, not Django's settings"

# The cases that were left out: by class, or by class and method.
LEFT_OUT = {
    "CookieSessionTests": "is about the engine that keeps all data in the cookie",
    "FileSessionPathLibTests": _ENGINE,
    "FileSessionTests": _ENGINE,
    "CustomDatabaseSessionTests": _ENGINE,
    "DatabaseSessionWithTimeZoneTests": _ENGINE,
    "CacheDBSessionWithTimeZoneTests": _ENGINE,
    "DatabaseSessionTests.test_aclear_expired": _TABLE,
    "DatabaseSessionTests.test_clearsessions_command": _TABLE,
    "DatabaseSessionTests.test_session_get_decoded": _TABLE,
    "DatabaseSessionTests.test_session_str": _TABLE,
    "DatabaseSessionTests.test_sessionmanager_save": _TABLE,
    "CacheDBSessionTests.test_cache_async_set_failure_non_fatal": _ENGINE,
    "CacheDBSessionTests.test_cache_set_failure_non_fatal": _ENGINE,
    "CacheDBSessionTests.test_exists_searches_cache_first": _ENGINE,
    "CacheDBSessionTests.test_load_overlong_key": "the same case of CacheSessionTests runs",
    "CacheDBSessionTests.test_non_default_cache": _ENGINE,
    "CacheSessionTests.test_create_and_save": _ENGINE,
    "CacheSessionTests.test_create_and_save_async": _ENGINE,
    "CacheSessionTests.test_default_cache": _ENGINE,
    "CacheSessionTests.test_non_default_cache": _ENGINE,
    "ClearSessionsCommandTests": "is about an engine that cannot remove expired sessions",
    "SessionBaseTests": "is about Django's abstract class",
    "SessionMiddlewareTests.test_empty_session_saved": "reads Django's table, and expects the cookie again unchanged",
    "SessionMiddlewareTests.test_no_httponly_session_cookie": f"{_POLICY}, and HttpOnly is always set",
    "SessionMiddlewareTests.test_save_every_request_with_non_empty_session_renews_session_cookie": (
        "the authority renews tokens when the policy says so; SESSION_SAVE_EVERY_REQUEST has no effect"
    ),
    "SessionMiddlewareTests.test_session_delete_on_end": f"{_POLICY}; the text of the header differs",
    "SessionMiddlewareTests.test_session_delete_on_end_with_custom_domain_and_path": _POLICY,
}


@dataclass
class Report:
    """What came of Django's tests."""

    everything: list[str]
    ran: list[str]
    failed: dict[str, str]
    skipped: int


async def run_suite(address: str, folder: Path) -> Report:
    """Run the tests in a process of their own: Django's settings hold for a whole process."""
    command = [sys.executable, "-m", "tests.suites.django_sessions", address, str(folder)]
    for name in LEFT_OUT:
        command += ["--without", name]
    process = await start_program(
        *command,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([".", "clients/python/src"])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return Report(**json.loads(out))


async def test_djangos_session_tests(tmp_path: Path, sources: Callable[[str], Path]) -> None:
    """Every case of Django's session tests passes or is listed with a reason, and `SessionTestsMixin` runs whole."""
    folder = await asyncio.to_thread(sources, "django")
    text = '[applications.default.cookie]\nsame_site = "Strict"\n'
    async with serving(config_for(tmp_path, text)) as app:
        report = await run_suite(app.address, folder)
    assert (report.failed, report.skipped) == ({}, 0)
    # Each engine's class repeats the cases of the mixin, which is how they are recognized.
    mixin = {method for kind, _, method in (name.partition(".") for name in report.ran) if kind == "SessionTestsMixin"}
    assert {f"CacheSessionTests.{method}" for method in mixin} < set(report.everything)
    own = {name for name in report.everything if name.partition(".")[2] not in mixin}
    left_out = {name for name in own if name in LEFT_OUT or name.partition(".")[0] in LEFT_OUT}
    assert own - left_out == {name for name in report.ran if not name.startswith("SessionTestsMixin.")}
    assert {name for name in LEFT_OUT if not any(case.startswith(name) for case in report.everything)} == set()
