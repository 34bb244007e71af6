"""Starlette's own tests of requests, responses and WebSockets, with our middleware in front of every application."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient

ROOT = Path(__file__).parents[2]
MODULES = (
    "test_requests.py",
    "test_responses.py",
    "test_websockets.py",
    "test_formparsers.py",
    "test_background.py",
    "test_endpoints.py",
    "test_exceptions.py",
    "test_routing.py",
    "middleware/test_base.py",
)
LEFT_OUT = {
    "test_requests.py::test_request_headers": "needs the package zstandard, which is not installed, also without ours",
    "test_websockets.py::test_websocket_headers": "the same",
}


@pytest.mark.slow
async def test_starlette_behind_the_middleware(sources: Callable[[str], Path], app: App) -> None:
    """What Starlette's tests check of requests, responses and WebSockets holds behind the middleware too."""
    async with AsyncClient(app.address) as client:
        token = (await client.create(subject="alice")).token.reveal()
    folder = sources("starlette")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "behind_middleware",
        "-p",
        "no:cacheprovider",
        "-k",
        "not trio",
    ]
    command += [f"--deselect=tests/{case}" for case in LEFT_OUT]
    command += ["-p", "no:asyncio", "-o", "addopts=", *(f"tests/{name}" for name in MODULES)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests/suites", ROOT / "clients/python/src"))),
        "SESSIOND_TARGET": app.address,
        "SESSIOND_COOKIE": f"__Host-id={token}",
    }
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100
