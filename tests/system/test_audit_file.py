"""The audit file: who may read and write it, what happens to lines that do not fit, and its rotation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessiond.system.audit_file import AuditFile, BadAuditFile
from tests.support.failed_start import run_sessiond

LINE = {"log": "audit", "action": "\x1b[2J\u202e"}


def lines_of(path: Path) -> list[Any]:
    """The lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_only_the_owner_may_read_a_new_file(tmp_path: Path) -> None:
    """A new file has the mode 0600, whatever the umask; what was in it before stays, and lines are appended."""
    path = tmp_path / "audit.log"
    before = os.umask(0)
    try:
        AuditFile(path).write(LINE)
        file = AuditFile(path)
        file.write(LINE)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert lines_of(path) == [LINE, LINE]
    assert "\x1b" not in path.read_text(encoding="ascii")
    with path.open("w"):
        pass  # logrotate with `copytruncate`
    file.write(LINE)
    assert lines_of(path) == [LINE]


def test_a_group_may_read(tmp_path: Path) -> None:
    """A file that a group may read, such as that of a log collector, is used and keeps its mode."""
    path = tmp_path / "audit.log"
    path.touch()
    path.chmod(0o640)
    AuditFile(path).write(LINE)
    assert path.stat().st_mode & 0o777 == 0o640


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def _writable(path: Path) -> None:
    path.touch()
    path.chmod(0o620)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (_link, "name a file, not a link"),
    "a folder": (Path.mkdir, "cannot be opened: Is a directory"),
    "a pipe": (os.mkfifo, "cannot be opened"),
    "a device": (lambda path: None, "is not a regular file; name another one"),
    "writable by others": (_writable, "who could change the past; run: chmod go-w"),
    "no folder": (lambda path: None, "cannot be opened: No such file or directory"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_trusted(case: str, tmp_path: Path) -> None:
    """What is no regular file, or may be written by others, is refused with the setting and the remedy."""
    make, problem = BAD[case]
    path = {"a device": Path("/dev/full"), "no folder": tmp_path / "none" / "audit.log"}.get(case, tmp_path / "audit")
    make(path)
    handles = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BadAuditFile) as caught:
        AuditFile(path)
    assert str(caught.value).startswith(f"log.audit_file: {path} ")
    assert problem in str(caught.value)
    assert len(os.listdir("/proc/self/fd")) == handles


def test_a_server_with_such_a_file_does_not_start(tmp_path: Path) -> None:
    """The server exits with code 78 and one line that names the setting, before it makes its data folder."""
    variable = {"SESSIOND_LOG_AUDIT_FILE": str(tmp_path / "none" / "audit.log")}
    code, stderr = run_sessiond(tmp_path, "serve", environment=variable)
    assert (code, stderr.count("\n")) == (78, 1), stderr
    assert stderr.startswith("Error: log.audit_file: ")
    assert not (tmp_path / "data").exists()


def test_a_line_is_whole_or_missing(tmp_path: Path) -> None:
    """A line of which only a part fits is an error, and the next one begins on a line of its own."""
    path = tmp_path / "audit.log"
    script = f"""
import resource, pathlib
from sessiond.system.audit_file import AuditFile
file = AuditFile(pathlib.Path({str(path)!r}))
file.write({{"n": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
for text in ("x" * 50, "y" * 50):
    try:
        file.write({{"n": text}})
    except OSError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.write({{"n": 3}})
file.write({{"n": 4}})
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines() == ["only 11 of 60 bytes could be written", "[Errno 27] File too large"]
    first, torn, *rest = path.read_text(encoding="ascii").splitlines()
    assert [json.loads(line) for line in (first, *rest)] == [{"n": 1}, {"n": 3}, {"n": 4}]
    assert torn == '{"n": "xxxx'


def test_a_renamed_file_is_left(tmp_path: Path) -> None:
    """After `reopen` lines go to a new file under the path; if that is impossible, on to the old one."""
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"
    file = AuditFile(path)
    file.write({"n": 1})
    path.rename(old)
    file.write({"n": 2})
    path.mkdir()
    with pytest.raises(BadAuditFile):
        file.reopen()
    file.write({"n": 3})
    path.rmdir()
    handles = len(os.listdir("/proc/self/fd"))
    file.reopen()
    assert len(os.listdir("/proc/self/fd")) == handles
    file.write({"n": 4})
    assert lines_of(old) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert lines_of(path) == [{"n": 4}]
    file.close()
