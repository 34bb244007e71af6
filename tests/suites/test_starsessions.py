"""The suite of starsessions, with our middleware, gateway and authority in the place of its own parts."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sessiond.app import App
from tests.support.server import config_for, serving

ROOT = Path(__file__).parents[2]
COMMIT = "f2942f9be1ebe058a9629cb7a52d741c46c80168"
ADDRESS = "https://github.com/alex-oleshkevich/starsessions"

_COOKIE = "the policy says domain, path and attributes of the cookie, not arguments of the middleware"
_LIFETIME = (
    "the policy says how long a session lives, and the authority's clock counts, which the case does not set; the"
    " cookie is sent again only with a new token"
)
_LOADED = "there is no step of loading: a session is there in every request"
_EMPTIED = "a session that is emptied goes on, with its CSRF token and its user; a logout deletes the cookie"
_ALONE = "tests a class or function of starsessions alone"
_METADATA = "tests a record among the data of starsessions; the authority has the times of a session, by its clock"

LEFT_OUT = {
    "test_autoloading::test_loads_for_regex_paths": _LOADED,
    "test_autoloading::test_loads_for_string_paths": _LOADED,
    "test_encryptors": _ALONE,
    "test_expiring_session::test_expiring_session_must_not_extend_duration": _LIFETIME,
    "test_metadata::test_load_should_create_new_metadata": _METADATA,
    "test_metadata::test_load_should_not_overwrite_created_timestamp": _METADATA,
    "test_metadata::test_requires_loaded_session": _LOADED,
    "test_metadata::test_should_update_last_access_time_on_load": _METADATA,
    "test_middleware::test_domain_argument_set_in_cookie": _COOKIE,
    "test_middleware::test_invalid_cookie_name_raises": _COOKIE,
    "test_middleware::test_max_age_argument_set_in_cookie": _LIFETIME,
    "test_middleware::test_no_cookie_clear_outside_cookie_path": _COOKIE,
    "test_middleware::test_path_argument_set_in_cookie": _COOKIE,
    "test_middleware::test_same_site_argument_set_in_cookie": _COOKIE,
    "test_middleware::test_send_cookie_if_session_destroyed": _EMPTIED,
    "test_middleware::test_send_cookie_with_domain_if_session_destroyed_and_domain_set": _EMPTIED,
    "test_middleware::test_session_timedelta_lifetime": _LIFETIME,
    "test_middleware::test_store_error_propagates": (
        "breaks starsessions' store; an authority that is out of reach is answered with 503"
    ),
    "test_middleware::test_will_not_send_cookie_if_initially_empty_session_destroyed": (
        "presents a cookie that nobody issued, which the response deletes"
    ),
    "test_rolling_session::test_rolling_session_must_extend_duration": _LIFETIME,
    "test_serializers": _ALONE,
    "test_session::test_generate_session_id": _ALONE,
    "test_session::test_get_session_handler": _ALONE,
    "test_session::test_get_session_id": _ALONE,
    "backends.test_cookie": "is about data in a signed cookie; ours are in the authority",
    "backends.test_memory::test_in_memory_expires": "reads a member of starsessions' store",
    "backends.test_memory::test_in_memory_ttl_unit_is_seconds": _LIFETIME,
    "backends.test_redis": "is about a store on Redis",
}
"""The modules and cases that were left out, each with the reason."""


def cases_in(folder: Path) -> set[str]:
    """All cases of the suite, by module and name."""
    found = set()
    for file in (folder / "tests").rglob("test_*.py"):
        module = ".".join(file.relative_to(folder / "tests").with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.add(f"{module}::{node.name}")
    return found


def path_of(name: str) -> str:
    """The path of a module or the id of a case, for pytest."""
    module, separator, case = name.partition("::")
    return f"tests/{module.replace('.', '/')}.py{separator}{case}"


async def outcomes(app: App, folder: Path, report: Path, broken: str = "") -> dict[str, str]:
    """Run the suite in a process of its own, and return how each of its cases ended."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "starsessions_plugin", "-p", "no:cacheprovider"]
    command += ["-o", "addopts=", f"--junitxml={report}", "tests"]
    command += [f"--{'deselect' if '::' in name else 'ignore'}={path_of(name)}" for name in LEFT_OUT]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    paths = (folder, ROOT / "tests/suites", ROOT / "clients/python/src")
    environment |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "SESSIOND_SUITE_BROKEN": broken,
        "SESSIOND_TARGET": app.address,
    }
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode in (0, 1), done.stdout[-8000:] + done.stderr[-2000:]
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        module = case.attrib["classname"].removeprefix("tests.")
        found[f"{module}::{case.attrib['name']}"] = min(kinds, default="passed")
    return found


@pytest.fixture
async def named_session(tmp_path: Path) -> AsyncIterator[App]:
    """An authority whose cookies are called `session`, as the suite wants them."""
    name = 'name = "session"\nanonymous_name = "session"\n'
    text = f"[applications.default.cookie]\n{name}\n[applications.plain.cookie]\n{name}secure = false\n"
    async with serving(config_for(tmp_path, text)) as app:
        yield app


async def test_starsessions_own_suite(
    named_session: App, clones: Callable[[str, str, str], Path], tmp_path: Path
) -> None:
    """Each case of starsessions' suite passes, or is listed here with the reason why it was left out."""
    folder = clones("starsessions", ADDRESS, COMMIT)
    found = await outcomes(named_session, folder, tmp_path / "report.xml")
    assert {name: outcome for name, outcome in found.items() if outcome != "passed"} == {}
    listed = {name for name in cases_in(folder) if name in LEFT_OUT or name.partition("::")[0] in LEFT_OUT}
    assert set(found) == cases_in(folder) - listed
    assert {name for name in LEFT_OUT if "::" in name} <= listed


@pytest.mark.parametrize("broken", ["read", "write"])
async def test_the_suite_notices_what_is_missing(
    named_session: App, clones: Callable[[str, str, str], Path], tmp_path: Path, broken: str
) -> None:
    """If cookies are not read, or changes not written, cases of the suite fail."""
    folder = clones("starsessions", ADDRESS, COMMIT)
    found = await outcomes(named_session, folder, tmp_path / "report.xml", broken)
    assert "failure" in found.values()
