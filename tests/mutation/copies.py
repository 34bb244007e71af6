"""A copy of the tree that one worker mutates and tests, so that the working tree is never touched."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Copy", "Run", "first_fault", "named_in"]

_NOT_COPIED = {".git", ".tmp", ".venv", "build", "data", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_PLUGIN = Path(__file__).parent / "plugin"
_FAULTS = re.compile(r"^(?:FAILED|ERROR) (.+)$", re.MULTILINE)
# pytest -v names the test (and where an inherited one stands), and on the same line faulthandler ends it.
_TIMEOUT = re.compile(r"^(?P<test>.*?)(?: <- \S+)? Timeout \(\d+:\d\d:\d\d", re.MULTILINE)
_MOST_MEMORY = 8 << 30  # a mutant that never stops to allocate must not take the machine with it
_MTIMES = itertools.count(1_000)  # in seconds since 1970, when no real file was written


@dataclass(frozen=True)
class Run:
    """How a run of pytest ended. `hung` is the test that took several times its usual time, if one did."""

    code: int
    timed_out: bool
    output: str
    hung: str = ""

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.code == pytest.ExitCode.OK and not self.timed_out


class Copy:
    """A copy of the tree, its own bytecode included."""

    def __init__(self, source: Path, root: Path) -> None:
        self.root = root
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

        def skipped(folder: str, names: list[str]) -> set[str]:
            return (_NOT_COPIED if Path(folder) == source else {"node_modules"}) & set(names)

        shutil.copytree(source, root, ignore=skipped, symlinks=True)

    def pytest(
        self,
        arguments: Sequence[str],
        *,
        writes_bytecode: bool = False,
        seconds_a_test: float = 0,
        seconds: float | None = None,
    ) -> Run:
        """Run tests in the copy. A test that takes longer than `seconds_a_test` ends the run; 0 sets no limit."""
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no_shrinking"]
        command += [f"--basetemp={self.root / '.tmp'}", "-o", "faulthandler_exit_on_timeout=true"]
        command += ["-o", f"faulthandler_timeout={seconds_a_test}"]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, [self.root, self.root / "clients" / "python" / "src", _PLUGIN])),
            "PYTHONDONTWRITEBYTECODE": "" if writes_bytecode else "1",
        }
        self._process = subprocess.Popen(
            [*command, *arguments],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        if hasattr(resource, "prlimit"):  # Linux
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self._process.pid, resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        if self._stopped:
            self.stop()
        try:
            output, _ = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._end_all()
            return Run(self._process.returncode, timed_out=True, output="")
        timeout = _TIMEOUT.search(output)
        if timeout is None:
            return Run(self._process.returncode, timed_out=False, output=output)
        self._end_all()
        return Run(self._process.returncode, timed_out=True, output=output, hung=timeout["test"])

    @contextlib.contextmanager
    def changed(self, module: str, source: str) -> Iterator[None]:
        """Have another source for one module, and the original one again after the block.

        Python takes bytecode to be fresh if time and size of its source are the same: a mutant has a time of its own.
        """
        path = self.root / module
        original, status = path.read_bytes(), path.stat()
        path.write_text(source, encoding="utf-8")
        moment = next(_MTIMES)
        os.utime(path, (moment, moment))
        try:
            yield
        finally:
            path.write_bytes(original)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def stop(self) -> None:
        """End the run that is under way, from another thread; each later one ends at once."""
        self._stopped = True
        self._end_all()

    def _end_all(self) -> None:
        """End pytest and what its tests started in this copy, in sessions of their own (Linux only)."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if link.readlink() == self.root:
                    os.kill(int(link.parent.name), signal.SIGKILL)
        if process is not None:
            process.wait()


def first_fault(output: str) -> str:
    """What pytest's summary names first, be it a test or a file that could not be collected; else its last line."""
    named = _FAULTS.search(output)
    return (named[0] if named else output.strip().rpartition("\n")[2])[:200]


def named_in(output: str, tests: Collection[str]) -> list[str]:
    """The tests, of those given, that pytest's summary calls failed. It writes a reason after ` - `."""
    found = {}
    for line in _FAULTS.findall(output):
        candidates = [test for test in tests if line == test or line.startswith(f"{test} - ")]
        found.update(dict.fromkeys(candidates))
    return list(found)
