"""Which test executes which line, and how long each takes: recorded once for a state of the tree, kept in build/."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import math
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from coverage import CoverageData

from tests.mutation.copies import Copy, named_in
from tests.mutation.mutants import Mutant

__all__ = ["CHOSEN", "Recording", "load_or_record", "tests_for"]

_TIMING = re.compile(r"^([\d.]+)s (?:setup|call|teardown) +(.+)$", re.MULTILINE)
# A test that plants a fault of its own expects a failure, and gets it from a mutant too: it kills nothing.
CHOSEN = ("-m", "not slow and not measured", "-k", "not finds_a_fault")
"""Which tests of a file are run, in pytest's terms."""

_LONGEST_TEST = 120.0
"""Seconds after which a test hangs even without a mutant."""

_FIRST_SECONDS, _FIRST_TESTS, _FIRST_FILES = 4.0, 150, 3
"""How much runs before the rest is even collected: enough for most mutants, small enough to start at once."""

_IMPORT_SECONDS = 60.0
"""How much runs against a mutant of a line that only imports execute: nearly every test may use it."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A run of the unmutated tree. `seconds` has the tests that passed, `failing` those that did not.

    `root` is the tree that the tests are read from.
    """

    seconds: Mapping[str, float]
    failing: tuple[str, ...]
    coverage_file: Path
    root: Path

    @functools.cached_property
    def _coverage(self) -> CoverageData:
        data = CoverageData(str(self.coverage_file))
        data.read()
        return data

    @functools.cache  # noqa: B019 - one recording a process
    def tests_by_line(self, module: str) -> Mapping[int, frozenset[str]]:
        """The passing tests that execute a line, for each line that is executed; none if only imports execute it."""
        contexts = self._coverage.contexts_by_lineno(module)
        return {
            line: frozenset(test for context in names if (test := context.rpartition("|")[0]) in self.seconds)
            for line, names in contexts.items()
        }

    @functools.cache  # noqa: B019 - one recording a process
    def tests_importing(self, module: str) -> frozenset[str]:
        """The passing tests of the files that import the module by name, be it in a test."""
        files = {test.partition("::")[0] for test in self.seconds}
        importing = {file for file in files if _dotted(module) in _imports(self.root / file)}
        return frozenset(test for test in self.seconds if test.partition("::")[0] in importing)

    def runs_at_import(self, mutant: Mutant) -> bool:
        """Whether imports execute the mutated lines and no test does: members of enums, defaults, constants."""
        by_line = self.tests_by_line(mutant.module)
        executed = [by_line[line] for line in mutant.executed if line in by_line]
        return bool(executed) and not union(executed)

    def covering(self, mutant: Mutant) -> frozenset[str]:
        """The tests that execute the mutated lines.

        If only imports execute them: the tests that execute any line of the module, and those of the files that import
        it. Coverage does not see a test that reads a constant, or creates an object whose `__init__` is generated.
        """
        by_line = self.tests_by_line(mutant.module)
        if self.runs_at_import(mutant):
            return union(by_line.values()) | self.tests_importing(mutant.module)
        return union(by_line[line] for line in mutant.executed if line in by_line)


def union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    """Every member of any."""
    return frozenset().union(*sets)


def _dotted(module: str) -> str:
    path = PurePosixPath(module).with_suffix("")
    return ".".join(path.parent.parts if path.name == "__init__" else path.parts)


def _imports(file: Path) -> set[str]:
    """What a file imports: modules, and names from modules, which may be modules too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def load_or_record(copy: Copy, tests: Sequence[str], ignored: Sequence[str], cache: Path) -> Recording:
    """The recording of the tree that `copy` is a copy of, made now if the cache has none."""
    folder = cache / _digest(copy.root, (*tests, *ignored, *CHOSEN))
    summary, coverage_file = folder / "tests.json", folder / "coverage"
    if not summary.exists():
        shutil.rmtree(cache, ignore_errors=True)  # recordings of other states of the tree
        folder.mkdir(parents=True, exist_ok=True)
        seconds, failing = _record(copy, tests, ignored, coverage_file)
        summary.write_text(json.dumps({"seconds": seconds, "failing": failing}), encoding="utf-8")
    known = json.loads(summary.read_text(encoding="utf-8"))
    return Recording(known["seconds"], tuple(known["failing"]), coverage_file, copy.root)


def _digest(root: Path, arguments: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(arguments).encode())
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".sql", ".toml") and path.is_file():
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _record(
    copy: Copy, tests: Sequence[str], ignored: Sequence[str], coverage_file: Path
) -> tuple[dict[str, float], list[str]]:
    settings = coverage_file.with_name("coveragerc")
    settings.write_text(f"[run]\nrelative_files = true\ndata_file = {coverage_file}\n", encoding="utf-8")
    arguments = ["-q", "-n", "2", *CHOSEN, "--durations=0", "--durations-min=0"]
    arguments += ["--cov=.", "--cov-context=test", f"--cov-config={settings}", "--cov-report=", *tests]
    arguments += [f"--ignore={path}" for path in ignored]
    run = copy.pytest(arguments, writes_bytecode=True, seconds_a_test=_LONGEST_TEST)
    seconds: defaultdict[str, float] = defaultdict(float)
    for duration, test in _TIMING.findall(run.output):
        seconds[test] += float(duration)
    failing = named_in(run.output, seconds)
    if run.code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not coverage_file.exists():
        raise RuntimeError(
            f"the tests of the unmutated tree could not be recorded (exit code {run.code}):\n{run.output[-3000:]}"
        )
    return {test: duration for test, duration in seconds.items() if test not in failing}, failing


def tests_for(mutant: Mutant, recording: Recording, kills: Mapping[str, int]) -> list[list[str]]:
    """The tests to run against a mutant, in one or two batches, those likeliest to fail first.

    These are the tests that execute the mutated lines: first the file that mirrors the module, then its folder, then
    the rest; within each, tests that killed before and quick ones come first. All others of the mirroring file come
    last: the line may be behind a cache that another test filled. If only imports execute the lines, the tests stop at
    `_IMPORT_SECONDS`.
    """
    parts = PurePosixPath(mutant.module).parts[1:]
    folder = "/".join(["tests", *parts[:-1], ""])
    file = f"{folder}test_{PurePosixPath(parts[-1]).stem}"
    covering = recording.covering(mutant)

    def urgency(test: str) -> tuple[int, int, float, str]:
        place = 3 if test not in covering else 0 if test.startswith(file) else 1 if test.startswith(folder) else 2
        return place, -kills.get(test, 0), recording.seconds[test], test

    first: list[str] = []
    rest: list[str] = []
    files: set[str] = set()
    spent, longest = 0.0, _IMPORT_SECONDS if recording.runs_at_import(mutant) else math.inf
    for test in sorted(covering | {test for test in recording.seconds if test.startswith(file)}, key=urgency):
        if spent >= longest:
            break
        files.add(test.partition("::")[0])
        fits = spent < _FIRST_SECONDS and len(first) < _FIRST_TESTS and len(files) <= _FIRST_FILES
        (first if fits and not rest else rest).append(test)
        spent += recording.seconds[test]
    return [batch for batch in (first, rest) if batch]
