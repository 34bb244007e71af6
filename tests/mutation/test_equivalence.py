"""Which mutants are taken to be equivalent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.equivalence import is_equivalent_by_construction, load_equivalent, stale
from tests.mutation.mutants import Change

ROOT = Path(__file__).parent.parent.parent
LIST = Path(__file__).with_name("equivalent.toml")
ENTRY = """
[[equivalent]]
module = "module.py"
function = "f"
before = "return 1"
after = "return 2"
reason = "Nobody calls it."
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('def f(): "says 1"', 'def f(): "says 2"'),
        ("def f(a: int) -> int: return a", "def f(a: str) -> None: return a"),
        ("if TYPE_CHECKING: x = 1", "if TYPE_CHECKING: x = 2"),
        ("Either = int | str\ndef f(a: Either): pass", "Either = None\ndef f(a: Either): pass"),
        ('Id = NewType("Id", int)\nf(Id)', 'Id = NewType("Id", None)\nf(Id)'),
        ("cast(int, a)", "cast(None, a)"),
        ('log.info("done", count=1)', "log.info(None, count=1)"),
        ('self._log.info("done")', 'self._log.info("DONE")'),
        ('raise Refused("no such thing")', 'raise Refused("NO SUCH THING")'),
        ('raise Refused(f"no such {thing + 1}")', 'raise Refused(f"no such {thing - 1}")'),
        ('a.encode("utf-8")', 'a.encode("UTF-8")'),
        ("f(a, last=False)", "f(a, last=None)"),
        ("def f(a: Box | None = None): pass", 'def f(a: Box | None = ""): pass'),
        ("f(1)", "f("),
    ],
)
def test_equivalent_by_construction(before: str, after: str) -> None:
    """A change of documentation, types, log text, wording, case or falseness is skipped, and so is broken code."""
    assert is_equivalent_by_construction(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("LIMIT = 1", "LIMIT = 2"),
        ("Either = int | str\nisinstance(a, Either)", "Either = None\nisinstance(a, Either)"),
        ("def f(a: int = 1): pass", "def f(a: int = 2): pass"),
        ("a: int = 1", "a: int = 2"),
        ("field(repr=False)", "field(repr=True)"),
        ("cast(int, a)", "cast(int, b)"),
        ("f(a, last=True)", "f(a, last=None)"),
        ("f(a, last=False)", "f(a, last=True)"),
        ("f(a, last=0)", "f(a, last=1)"),
        ('log.info("done", count=1)', 'log.info("done", count=2)'),
        ('log.info("done")', "pass"),
        ('raise Refused("session_id", "no such session")', 'raise Refused("SESSION_ID", "no such session")'),
        ('text = "no such session"', 'text = "NO SUCH SESSION"'),
    ],
)
def test_a_change_of_behaviour_is_tried(before: str, after: str) -> None:
    """A change of a value, a default, a logged value, a field's name or another text is no equivalent."""
    assert not is_equivalent_by_construction(before, after)


def test_a_listed_mutant_is_found_by_its_key(tmp_path: Path) -> None:
    """An entry of the list is found by module, function and both lines, and by nothing less."""
    (tmp_path / "equivalent.toml").write_text(ENTRY, encoding="utf-8")
    judged = load_equivalent(tmp_path / "equivalent.toml")
    assert judged == {Change("module.py", "f", "return 1", "return 2"): "Nobody calls it."}
    assert Change("module.py", "g", "return 1", "return 2") not in judged
    assert Change("module.py", "f", "return 1", "return 0") not in judged


@pytest.mark.parametrize("missing", ["function", "reason"])
def test_an_entry_has_every_part(tmp_path: Path, missing: str) -> None:
    """An entry without one of its parts, the reason included, is an error."""
    lines = [line for line in ENTRY.splitlines() if not line.startswith(missing)]
    (tmp_path / "equivalent.toml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match="an entry has the texts"):
        load_equivalent(tmp_path / "equivalent.toml")


def test_a_stale_entry_is_found(tmp_path: Path) -> None:
    """An entry is stale if its module is gone or no longer has its lines."""
    (tmp_path / "module.py").write_text("def f():\n    return min(\n        a,\n    )\n", encoding="utf-8")
    kept = Change("module.py", "f", "return min( a, )", "return None")
    edited, gone = Change("module.py", "f", "return max(", "pass"), Change("gone.py", "f", "return", "pass")
    assert stale({kept: "", edited: "", gone: ""}, tmp_path) == [edited, gone]


def test_the_list_of_the_project_is_not_stale() -> None:
    """Every mutant listed as equivalent still has its module and its lines."""
    assert stale(load_equivalent(LIST), ROOT) == []
