"""The demo checks every step that it prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = re.compile(r"[A-Za-z0-9_-]{70}")


def test_the_demo_succeeds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """`python -m demo` succeeds, shows steps, alarms and reactions, no token and no colour, and deletes its files."""
    result = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for word in ("REPLAYED", "HIJACK_SUSPECTED", "reaction REVOKE_SESSION", "INSUFFICIENT", "SOURCE_LOCKED"):
        assert word in result.stdout
    assert "\x1b" not in result.stdout
    assert not TOKEN.search(result.stdout + result.stderr)
    assert list(tmp_path.iterdir()) == []
