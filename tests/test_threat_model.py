"""The threat model: each promise names what holds it, and the pages that a reporter needs can be found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "threat-model.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_DECISION = re.compile(r"\]\((decisions/\d{4}-[\w-]+\.md)\)")


def promises(text: str) -> dict[str, str]:
    """Each promise of a text with what it names as holding it."""
    part = text.partition("\n## Promises\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in part.splitlines() if line.startswith("| ")]
    return {row[0].strip("| "): row[1].strip("| ") for row in rows if row[0] not in ("| promise", "| ---")}


def problems(text: str) -> list[str]:
    """What is wrong with the promises of a text."""
    found = []
    for promise, held_by in promises(text).items():
        tests, decisions = _TEST.findall(held_by), _DECISION.findall(held_by)
        if not tests and not decisions:
            found.append(f"{promise}: nothing holds it")
        for file, name in tests:
            path = ROOT / file
            if not path.exists() or not re.search(rf"^ *(async )?def {name}\(", path.read_text(encoding="utf-8"), re.M):
                found.append(f"{promise}: there is no {file}::{name}")
        found += [f"{promise}: there is no {page}" for page in decisions if not (PAGE.parent / page).exists()]
        rest = _DECISION.sub("", _TEST.sub("", held_by))
        if "tests/" in rest or "::" in rest:
            found.append(f"{promise}: {rest} names a test in another form")
    return found


def test_each_promise_is_held() -> None:
    """Each promise names at least one test or decision, and all that it names exist."""
    text = PAGE.read_text(encoding="utf-8")
    assert len(promises(text)) > 25
    assert problems(text) == []


@pytest.mark.parametrize(
    ("held_by", "problem"),
    [
        ("our good will", "nothing holds it"),
        ("`tests/test_threat_model.py::test_nothing`", "there is no tests/test_threat_model.py::test_nothing"),
        ("`tests/test_nothing.py::test_it`", "there is no tests/test_nothing.py::test_it"),
        ("[decision 0](decisions/0000-nothing.md)", "there is no decisions/0000-nothing.md"),
        ("[decision 37](decisions/0037-audit-log.md), tests/test_docs.py::it", "in another form"),
    ],
)
def test_a_promise_that_nothing_holds_is_found(held_by: str, problem: str) -> None:
    """A promise without a test or decision, or with one that does not exist, is reported."""
    page = f"# T\n\n## Promises\n\n| promise | held by |\n| --- | --- |\n| All is well | {held_by} |\n"
    (found,) = problems(page)
    assert found.startswith("All is well: ")
    assert problem in found


@pytest.mark.parametrize("page", ["README.md", "docs/README.md"])
def test_who_looks_finds_them(page: str) -> None:
    """Both entrances to the documentation link to SECURITY.md, the threat model, and who may call what."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for linked in ("SECURITY.md", "threat-model.md", "reference/access.md", "reference/audit.md"):
        assert re.search(rf"\]\([\w./-]*{re.escape(linked)}\)", text), linked
