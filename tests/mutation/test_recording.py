"""Which tests run against a mutant."""

from __future__ import annotations

from pathlib import Path

import pytest
from coverage import CoverageData

from tests.mutation.mutants import Mutant, find_mutants
from tests.mutation.recording import Recording
from tests.mutation.recording import tests_for as batches_for

SOURCE = 'RED = "red"\n\n\ndef twice(number):\n    return number * 2\n\n\ndef unused():\n    return 1\n'
FILES = {
    "pkg/colours.py": SOURCE,
    "tests/test_by_name.py": "from pkg.colours import RED\n",
    "tests/test_by_package.py": "from pkg import colours\n",
    "tests/test_by_module.py": "def test():\n    import pkg.colours\n",
    "tests/test_others.py": "import pkg\nfrom pkg.coloursets import RED\n",
    "tests/test_twice.py": "",
}


def recording(root: Path, seconds: float = 0.1) -> Recording:
    """One of a tree in which each file has one test, of which only `test_twice.py` executes a line of the module."""
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    coverage = CoverageData(str(root / "coverage"))
    for context, lines in (("", [1, 4, 8]), ("tests/test_twice.py::test|run", [5])):
        coverage.set_context(context)
        coverage.add_lines({"pkg/colours.py": lines})
    coverage.write()
    tests = [f"{name}::test" for name in FILES if name.startswith("tests/")]
    return Recording(dict.fromkeys(tests, seconds), (), root / "coverage", root)


def mutant_at(root: Path, line: int) -> Mutant:
    """The first mutant of that line."""
    return next(mutant for mutant in find_mutants(root, ["pkg/colours.py"]) if mutant.line == line)


@pytest.mark.parametrize(
    ("line", "files"),
    [
        pytest.param(1, ["by_module", "by_name", "by_package", "twice"], id="executed by imports"),
        pytest.param(5, ["twice"], id="executed by a test"),
        pytest.param(9, [], id="executed by nothing"),
    ],
)
def test_the_tests_of_a_line(tmp_path: Path, line: int, files: list[str]) -> None:
    """A line that only imports execute gets every test that may use the module; any other, those that execute it."""
    recorded = recording(tmp_path)
    batches = batches_for(mutant_at(tmp_path, line), recorded, {})
    assert sorted(test for batch in batches for test in batch) == [f"tests/test_{file}.py::test" for file in files]


def test_the_tests_of_an_import_are_bounded(tmp_path: Path) -> None:
    """Against a line that only imports execute no test starts once the tests before it take a minute."""
    recorded = recording(tmp_path, seconds=30.0)
    batches = batches_for(mutant_at(tmp_path, 1), recorded, {})
    assert sum(map(len, batches)) == 2
