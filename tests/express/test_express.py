"""The npm package in clients/express: its tests pass with this server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.suites.fetching import GIVEN

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "express"
OLDEST_NODE = 20
WITH_CALLERS = ("attacks", "middleware", "outage", "store")
"""The tests that make calls, and so run against servers with callers too."""
# Each in the two formats of Node's test runner.
_COUNT = "^[#\N{INFORMATION SOURCE}] (\\w+) (\\d+)$"
_SKIPPED = "^ *(?:ok \\d+ - .*? # SKIP|\N{SMALL HYPHEN-MINUS} .*? \\([\\d.]+ms\\) #) (.+)$"


def npm(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run npm in the package."""
    return subprocess.run(["npm", *arguments], cwd=PACKAGE, env=env, capture_output=True, text=True, check=False)


def why_not() -> str:
    """Return why the package's tests cannot run here; empty if they can."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return f"node and npm are not installed; install Node {OLDEST_NODE} or newer"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < OLDEST_NODE:
        return f"node is {version}; install Node {OLDEST_NODE} or newer"
    return ""


def install() -> str:
    """Install the locked dependencies, unless they are. Return why that failed, in one line; empty if it did not."""
    lock = (PACKAGE / "package-lock.json").read_text(encoding="utf-8")
    installed = PACKAGE / "node_modules" / ".installed.json"
    if installed.exists() and installed.read_text(encoding="utf-8") == lock:
        return ""
    done = npm("ci", "--ignore-scripts")
    if done.returncode:
        return (done.stderr.strip() or f"npm ci ended with {done.returncode}").splitlines()[0]
    installed.write_text(lock, encoding="utf-8")
    return ""


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """Return how many tests passed. Fails with those that did not."""
    counts = {name: int(number) for name, number in re.findall(_COUNT, done.stdout, re.MULTILINE)}
    failed = re.findall(r"^ *not ok .*(?:\n.*){0,12}", done.stdout, re.MULTILINE)
    assert done.returncode == 0, "\n".join(failed) or done.stdout[-5_000:] + done.stderr[-5_000:]
    assert counts["fail"] == 0
    return counts["pass"]


def skips(output: str) -> list[str]:
    """Return why Node's test runner skipped tests, each reason once, in order."""
    return list(dict.fromkeys(re.findall(_SKIPPED, output, re.MULTILINE)))


@pytest.mark.parametrize(
    "output",
    [
        "ok 1 - passes\nok 2 - is about # signs # SKIP no network: (1ms)\n# skipped 1\n",
        "\N{CHECK MARK} passes (2ms)\n\N{SMALL HYPHEN-MINUS} is about # signs (0.25ms) # no network: (1ms)\n",
    ],
)
def test_the_reason_of_a_skip_is_found(output: str) -> None:
    """The reason is all that follows the mark, in both formats of Node's test runner."""
    assert skips(output) == ["no network: (1ms)"]


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "nothing is missing")
def test_the_package_for_express_passes_its_own_tests(subtests: pytest.Subtests) -> None:
    """The npm package's tests pass against this server, or skip with a reason; those of calls pass with callers too."""
    if problem := install():
        pytest.skip(f"the package's dependencies cannot be installed: {problem}")
    env = {**os.environ, "SESSIOND_PYTHON": sys.executable, "NODE_OPTIONS": ""}
    if given := os.environ.get(GIVEN):
        env[GIVEN] = str(Path(given).absolute())
    done = npm("test", env=env)
    assert passed(done) > 50
    for reason in skips(done.stdout):  # such as a suite that cannot be fetched
        with subtests.test():
            pytest.skip(reason)
    # The same with callers, after the first run because that builds the package.
    files = [f"test/{name}.test.mjs" for name in WITH_CALLERS]
    command = ["node", "--test", "--test-concurrency=2", "--test-timeout=300000", *files]
    env["SESSIOND_TEST_CALLERS"] = "1"
    done = subprocess.run(command, cwd=PACKAGE, env=env, capture_output=True, text=True, check=False)
    assert passed(done) > 40


def test_the_lock_file_names_no_registry() -> None:
    """The lock file of the npm package has no address to download from, so that each user's own registry is asked."""
    packages = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert all("integrity" in package for name, package in packages.items() if name)
