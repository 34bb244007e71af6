"""Files that a server writes for other programs."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sessiond.system.reports import write_report


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    """A new report is a new private file, and no other file remains beside it."""
    path = tmp_path / "report"
    write_report(path, {"number": 1})
    before = path.open()
    with before:
        write_report(path, {"number": 2})
        assert json.loads(before.read()) == {"number": 1}
    assert json.loads(path.read_text()) == {"number": 2}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_that_was_left_is_replaced(tmp_path: Path) -> None:
    """A draft that a killed server left is replaced, and a symbolic link in its place is not followed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".report.{os.getpid()}").symlink_to(victim)
    write_report(tmp_path / "report", {})
    assert victim.read_text() == "precious"
    assert not (tmp_path / "report").is_symlink()


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    """A missing folder raises OSError."""
    with pytest.raises(OSError, match="No such file"):
        write_report(tmp_path / "none" / "report", {})
