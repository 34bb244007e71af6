"""The short form of the run for CI; `make consistency` is the long one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.figures import report

ROOT = Path(__file__).parent.parent.parent
NO_FORKS = {"GRPC_ENABLE_FORK_SUPPORT": "0"}  # the processes that it starts use no gRPC of this one


@pytest.mark.measured  # it loads the machine, and needs it: nothing may run beside it
@pytest.mark.slow
def test_a_short_run_breaks_no_rule(tmp_path: Path) -> None:
    """Three replicas under random clients, with trouble of every kind drawn at random, break no rule of the checker."""
    # In a process of its own: it restarts its database, and gRPC does not stand a fork beside its threads.
    plan = ["--seed", "1", "--seconds", "20", "--clients", "12", "--folder", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "tests.consistency", *plan],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        cwd=ROOT,
        env=os.environ | NO_FORKS,
    )
    report(run.stdout)
    assert run.returncode == 0, run.stdout
    assert "\n0 violations" in run.stdout
