"""`sessiond` as a separate process that fails to start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["UNPRIVILEGED", "needs_setpriv", "run_sessiond"]

UNPRIVILEGED = ("setpriv", "--bounding-set=-all") if os.getuid() == 0 else ()
"""Takes root's privileges away, so that it can neither write everywhere nor use every port."""
needs_setpriv = pytest.mark.skipif(
    bool(UNPRIVILEGED) and shutil.which("setpriv") is None,
    reason="running as root without setpriv, which drops root's privileges",
)


def run_sessiond(
    folder: Path, *arguments: str, prefix: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run `sessiond` in that folder until it exits; return its exit code and standard error.

    Variables of this process that configure sessiond or gRPC are not passed on.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != "GRPC_VERBOSITY" and not name.startswith("SESSIOND_")
    }
    run = subprocess.run(
        [*prefix, sys.executable, "-m", "sessiond", *arguments],
        cwd=folder,
        env=inherited | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.stdout == ""
    return run.returncode, run.stderr
