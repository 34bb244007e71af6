"""Whole campaigns on a throwaway package: a negative control, since a harness that kills everything proves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.mutation.campaign import Fate

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parent.parent.parent
MODULE = '''"""A package to mutate."""

SIZES = [5]


def is_adult(age):
    return age >= 18


def is_small(size):
    return size < 10


def count_down(number):
    while number:
        number = number - 1
    return number


def unused():
    return 5 + 1
'''
TESTS = """
import pytest
from pkg.module import SIZES, count_down, is_adult, is_small

def test_is_adult_at_10_and_30():
    assert [is_adult(age) for age in (10, 30)] == [False, True]

@pytest.mark.parametrize("size", SIZES)
def test_is_small(size):
    assert is_small(size)

def test_count_down():
    assert count_down(3) == 0

def test_red():
    assert is_adult(17), "fails on the unmutated tree too"
"""
WORDS = '"""Constants, which imports execute and no test does."""\n\nRED = "red"\nBLUE = "blue"\n'
NAMES = """
from pkg import words

def test_red():
    assert words.RED == "red"
"""
JUDGED = """
[[equivalent]]
module = "pkg/module.py"
function = "unused"
before = "return 5 + 1"
after = "return 5 - 1"
reason = "Nobody calls it."

[[equivalent]]
module = "pkg/module.py"
function = "count_down"
before = "while number:"
after = "while not (number):"
reason = "Wrong: a test sees it."
"""


FILES = {
    "pytest.ini": "",
    "equivalent.toml": JUDGED,
    "pkg/__init__.py": "",
    "pkg/module.py": MODULE,
    "pkg/words.py": WORDS,
    "tests/test_module.py": TESTS,
    "tests/test_names.py": NAMES,
}


@dataclass(frozen=True)
class Campaign:
    """One that has ended: its exit code, what it printed, and the results that it wrote, by line before and after."""

    code: int
    printed: str
    report: dict[str, Any]

    def result(self, before: str, after: str) -> tuple[Fate, str]:
        """The fate of a mutant, and its detail."""
        (found,) = [
            r for r in self.report["results"] if (r["change"]["before"], r["change"]["after"]) == (before, after)
        ]
        return Fate(found["fate"]), found["detail"]


def campaign(root: Path, *arguments: str) -> Campaign:
    """Run one on the package below `root`, as a process."""
    command = [sys.executable, "-m", "tests.mutation", "pkg", "--root", str(root), "--patience", "3"]
    command += ["--equivalent", str(root / "equivalent.toml"), *arguments]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300)
    assert run.stderr == ""
    report = json.loads((root / "build" / "mutate.json").read_text(encoding="utf-8"))
    return Campaign(run.returncode, run.stdout, report)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of one module, its tests, and a list of one mutant that is equivalent and of one that is not."""
    root = tmp_path_factory.mktemp("throwaway")
    for name, text in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def ended(root: Path) -> Campaign:
    return campaign(root)


def test_a_weak_test_leaves_a_survivor(ended: Campaign) -> None:
    """A boundary that no test looks at survives and is printed with its place, and the campaign ends with 1."""
    assert ended.result("return age >= 18", "return age > 18") == (Fate.SURVIVED, "")
    assert "pkg/module.py:7 is_adult\n    return age >= 18\n    -> return age > 18\n" in ended.printed
    assert ended.code == 1


def test_a_test_that_fails_kills(ended: Campaign) -> None:
    """A mutant that a test notices is killed, and the report names the test."""
    killed = ended.result("number = number - 1", "number = None")
    assert killed == (Fate.KILLED, "tests/test_module.py::test_count_down")


def test_a_broken_import_kills(ended: Campaign) -> None:
    """A mutant with which the tests cannot even be collected is killed."""
    fate, detail = ended.result("SIZES = [5]", "SIZES = None")
    assert (fate, "tests/test_module.py" in detail) == (Fate.KILLED, True)


def test_another_name_of_a_test_kills_nothing(ended: Campaign) -> None:
    """A mutant that only renames a parametrized test survives."""
    assert ended.result("SIZES = [5]", "SIZES = [6]") == (Fate.SURVIVED, "")


def test_what_only_an_import_executes(ended: Campaign) -> None:
    """A mutant of a constant meets the tests of the files that import its module, whatever lines these execute."""
    assert ended.result('RED = "red"', 'RED = "XXredXX"') == (Fate.KILLED, "tests/test_names.py::test_red")
    assert ended.result('BLUE = "blue"', 'BLUE = "XXblueXX"') == (Fate.SURVIVED, "")


def test_what_no_test_executes(ended: Campaign) -> None:
    """A survivor on a line that no test executes says so."""
    assert ended.result("return 5 + 1", "return 6 + 1") == (Fate.SURVIVED, "no test executes it")


def test_a_loop_without_end_is_a_kill(ended: Campaign) -> None:
    """A mutant with which a test never ends times out, names the test, and counts as killed."""
    hung = ended.result("number = number - 1", "number = number + 1")
    assert hung == (Fate.TIMEOUT, "tests/test_module.py::test_count_down")
    folder = ended.report["folders"]["pkg"]
    killed, survived = folder["killed"] + folder["timeout"], folder["survived"]
    assert ended.report["score"] == pytest.approx(100 * killed / (killed + survived))


def test_a_listed_mutant_is_not_run(ended: Campaign) -> None:
    """A mutant that is listed as equivalent is reported with its reason and counts neither way."""
    assert ended.result("return 5 + 1", "return 5 - 1") == (Fate.EQUIVALENT, "Nobody calls it.")
    assert ended.report["folders"]["pkg"]["equivalent"] == 2


def test_a_red_test_kills_nothing(ended: Campaign) -> None:
    """A test that fails without any mutant is named and left out."""
    assert ended.report["failing"] == ["tests/test_module.py::test_red"]
    assert "kill nothing:\ntests/test_module.py::test_red" in ended.printed


def test_the_tree_is_not_touched(root: Path, ended: Campaign) -> None:
    """After a campaign the tree has what it had before, and `build`."""
    assert ended.report["results"]
    outside = [path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != "build"]
    assert {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in outside} == FILES


def test_a_wrong_entry_is_found_by_a_recheck(root: Path, ended: Campaign) -> None:
    """A recheck runs just the listed mutants, and ends with 1 if a test kills one."""
    rechecked = campaign(root, "--recheck")
    assert rechecked.code == 1
    assert rechecked.result("while number:", "while not (number):")[0] is Fate.KILLED
    assert rechecked.result("return 5 + 1", "return 5 - 1")[0] is Fate.SURVIVED
    assert rechecked.report["folders"]["pkg"]["skipped"] == len(ended.report["results"]) - 2


def test_a_sample_is_the_start_of_the_order(root: Path, ended: Campaign) -> None:
    """With the same seed a limited campaign tries the same mutants as a full one, and ends with 0 at the bar."""
    sample = campaign(root, "--limit", "2", "--bar", "0")
    tried, all_of_them = ([r["change"] for r in c.report["results"]] for c in (sample, ended))
    assert len(tried) == 2
    assert all(change in all_of_them for change in tried)
    assert sample.code == 0


def test_no_mutant_is_started_when_time_is_up(root: Path) -> None:
    """A campaign without time tries nothing, and a score of nothing is under the bar."""
    idle = campaign(root, "--minutes", "0")
    assert (idle.code, idle.report["results"]) == (1, [])
