"""Which mutants there are, and in which order they are tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.mutants import Change, Mutant, find_mutants, in_sample_order, modules_of

SOURCE = '''
from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Box"]


@dataclass(frozen=True, slots=True)
class Box:
    size: int | None = 3

    def fits(self, other: Box | None) -> bool:
        """Whether it does: 1 or 0."""
        log(self)
        match other:
            case None:
                return True
            case Box(size) if size:
                return size < self.size
        return False
'''


def mutants_of(folder: Path, source: str) -> list[Mutant]:
    (folder / "module.py").write_text(source, encoding="utf-8")
    return find_mutants(folder, ["module.py"])


def changes_of(folder: Path, source: str) -> list[tuple[str, str]]:
    changes = [mutant.change() for mutant in mutants_of(folder, source)]
    return [(change.before, change.after) for change in changes]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("size: int | None = 3", "size: int | None = 4"),
        ("log(self)", "pass"),
        ("return size < self.size", "return size <= self.size"),
        ("return True", "return False"),
        ("case None: return True", ""),
    ],
)
def test_mutants_of_each_kind(tmp_path: Path, before: str, after: str) -> None:
    """Values, comparisons, calls without an answer and the cases of a match all have mutants."""
    assert (before, after) in changes_of(tmp_path, SOURCE)


@pytest.mark.parametrize("line", ["from __future__", "__all__", "@dataclass", "def fits"])
def test_what_is_never_mutated(tmp_path: Path, line: str) -> None:
    """Imports, `__all__`, decorators and annotations have no mutants."""
    assert [before for before, _ in changes_of(tmp_path, SOURCE) if before.startswith(line)] == []


@pytest.mark.parametrize("condition", ["ready", "self.ready", "ready()", "(found := ready())"])
def test_a_bare_condition_is_negated(tmp_path: Path, condition: str) -> None:
    """A condition without an operator has its negation for a mutant."""
    assert (f"if {condition}:", f"if not ({condition.strip('()')}") in [
        (before, after[: len(f"if not ({condition.strip('()')}")])
        for before, after in changes_of(tmp_path, f"if {condition}:\n    pass\n")
    ]


def test_a_mutant_knows_its_function(tmp_path: Path) -> None:
    """A change names the module, the function with its class, and the lines before and after."""
    changes = [mutant.change() for mutant in mutants_of(tmp_path, SOURCE)]
    assert Change("module.py", "Box.fits", "return size < self.size", "return size <= self.size") in changes


def test_a_change_is_the_same_on_another_line(tmp_path: Path) -> None:
    """Text that is put before a function does not alter the changes in it."""
    assert changes_of(tmp_path, SOURCE) == changes_of(tmp_path, f'"""New."""\n\n{SOURCE}')


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    """The same seed gives the same order and another seed another one, of the same mutants."""
    mutants = mutants_of(tmp_path, SOURCE)
    assert in_sample_order(mutants, 7) == in_sample_order(mutants_of_again := list(mutants), 7)
    assert in_sample_order(mutants, 7) != in_sample_order(mutants_of_again, 8)
    assert set(in_sample_order(mutants, 7)) == set(mutants)


def test_two_readings_give_the_same_order(tmp_path: Path) -> None:
    """A sample can be repeated: reading the tree again gives the same changes in the same order."""
    first, second = (in_sample_order(mutants_of(tmp_path, SOURCE), 7) for _ in range(2))
    assert [mutant.change() for mutant in first] == [mutant.change() for mutant in second]


def test_each_line_comes_before_any_comes_twice(tmp_path: Path) -> None:
    """The order begins with one mutant of each line that has any."""
    mutants = mutants_of(tmp_path, SOURCE)
    lines = {mutant.line for mutant in mutants}
    assert {mutant.line for mutant in in_sample_order(mutants, 1)[: len(lines)]} == lines


def test_a_mutant_knows_the_lines_of_its_statement(tmp_path: Path) -> None:
    """Coverage is asked for a statement from its first line on, even if the mutated node is further down."""
    (mutant,) = [m for m in mutants_of(tmp_path, "def f(\n    a,\n    b=1,\n):\n    pass\n") if m.line == 3]
    assert mutant.executed == range(1, 4)


def test_folders_and_files_are_targets(tmp_path: Path) -> None:
    """A folder stands for every module below it, a file for itself, and each module comes once."""
    for name in ("a/b/c.py", "a/d.py", "e.py", "f.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert modules_of(tmp_path, ["a", "e.py", "a/d.py"]) == ["a/b/c.py", "a/d.py", "e.py"]


def test_a_target_that_is_gone(tmp_path: Path) -> None:
    """A folder that was renamed is an error, never an empty sample."""
    with pytest.raises(FileNotFoundError, match="gone: no such file or folder"):
        modules_of(tmp_path, ["gone"])
