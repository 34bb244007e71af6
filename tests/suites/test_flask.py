"""Flask's whole own suite, and Flask-Session's, with sessions of sessiond in every application."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sessiond.app import App
from tests.suites import fetching, flask_plugin

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients/python/src"

_COOKIE = "the policy says path, domain, attributes and name of the cookie, not SESSION_COOKIE_* of the application"
_KEY = "there is no secret key: nothing is signed by the application, and a session is always available"
_LIFETIME = "the policy says how long a session lives, and when its cookie is sent again"
_REPLACED = "the application replaces the session interface after sessiond was set up, which is an error"

FLASK = {
    "test_session_path": _COOKIE,
    "test_session_using_application_root": _COOKIE,
    "test_session_using_session_settings": _COOKIE,
    "test_session_using_samesite_attribute": _COOKIE,
    "test_session_cookie_setting": _COOKIE,
    "test_session_dynamic_cookie_name": _COOKIE,
    "test_missing_session": _KEY,
    "test_session_secret_key_fallbacks": _KEY,
    "test_session_transactions_no_null_sessions": _KEY,
    "test_session_expiration": _LIFETIME,
    "test_session_refresh_vary": _LIFETIME,
    "test_open_session_with_endpoint": _REPLACED,
}
"""Cases of Flask's suite that fail, each with the reason why it must."""

WITHOUT_SESSIONS = {"test_bad_environ_raises_bad_request": "fails without sessiond too, with the installed Werkzeug"}

FLASK_SESSION = {"test_null_session": _KEY}


async def outcomes(app: App, folder: Path, report: Path, *arguments: str) -> dict[str, str]:
    """Run a suite in a process of its own, and return how each of its cases ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", flask_plugin.__name__, "-p", "no:asyncio"]
    command += ["-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    environ = {**os.environ, flask_plugin.TARGET: app.address, "PYTHONPATH": f"{ROOT}:{CLIENT}"}
    for name in [name for name in environ if name.startswith("PYTEST")]:
        del environ[name]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr  # passed, or failed: anything else did not run
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[case.attrib["name"]] = min(kinds, default="passed")
    return found


def broken(found: dict[str, str]) -> set[str]:
    """The cases that failed."""
    return {name for name, outcome in found.items() if outcome in ("failure", "error")}


@pytest.mark.slow
async def test_flasks_own_suite(app: App, sources: Callable[[str], Path], tmp_path: Path) -> None:
    """With sessions of sessiond in every application, all cases of Flask's suite pass but the ones listed here."""
    found = await outcomes(app, sources("flask"), tmp_path / "report.xml", "tests")
    assert len(found) > 400
    assert broken(found) - set(WITHOUT_SESSIONS) == set(FLASK)


async def test_flask_sessions_own_suite(app: App, tmp_path: Path) -> None:
    """The cases of Flask-Session's suite pass, whatever server they name, but for the one listed here."""
    try:  # the source distributions of later versions have no tests any more
        folder = fetching.sources("flask-session", "0.5.0")
    except fetching.NotFetched as reason:
        pytest.skip(str(reason))
    found = await outcomes(app, folder, tmp_path / "report.xml", "-c", os.devnull, "test_session.py")
    assert len(found) == 8
    assert broken(found) == set(FLASK_SESSION)
