"""Files that a server writes for other programs."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
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


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to], ids=["a symbolic link", "a file"])
def test_a_draft_that_appears_in_between_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path, Path], None]
) -> None:
    """If something takes the place of the draft after it was removed, writing fails and leaves it unchanged."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path, draft = tmp_path / "report", tmp_path / f".report.{os.getpid()}"
    write_report(path, {"number": 1})
    unlink = Path.unlink
    planted: list[Path] = []

    def unlink_and_plant(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        if not planted:
            planted.append(self)
            plant(self, victim)

    monkeypatch.setattr(Path, "unlink", unlink_and_plant)
    with pytest.raises(FileExistsError):
        write_report(path, {"number": 2})
    assert planted == [draft]
    assert victim.read_text() == "precious"
    assert json.loads(path.read_text()) == {"number": 1}


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    """A missing folder raises OSError."""
    with pytest.raises(OSError, match="No such file"):
        write_report(tmp_path / "none" / "report", {})
