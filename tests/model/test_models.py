"""The models of docs/model/ and their runner: what holds, what is found, and what must never pass for a proof."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.model import MODELS, ROOT, VARIANTS, Variant, check, main, missing_programs, problem_of, search, trace

README = MODELS / "README.md"
needs_spin = pytest.mark.skipif(bool(missing_programs()), reason=missing_programs() or "nothing is missing")
HOLDS, CONTROL = Variant("tiny", "rule"), Variant("tiny", "NO_RULE", ("NO_RULE",), "seen<2")
SOURCE = """
byte seen;
active proctype counting() {
    do
    :: seen < 1 -> seen++
#ifdef NO_RULE
    :: seen == 1 -> printf("counting: goes on\\n"); seen++
#endif
    od
}
active proctype property() {
end: do :: assert(seen < 2) od
}
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a folder with a small model, `tiny`."""
    (tmp_path / "tiny.pml").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def change(models: Path, old: str, new: str) -> None:
    """Change the small model."""
    assert old in SOURCE
    (models / "tiny.pml").write_text(SOURCE.replace(old, new), encoding="utf-8")


@needs_spin
@pytest.mark.slow  # each takes seconds, all of them more than a minute
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: f"{variant.model}-{variant.name.replace(' ', '-')}")
def test_each_model_holds_and_each_control_is_found(variant: Variant, tmp_path: Path) -> None:
    """A model holds in all states that can be reached, and without one of its rules the error is found."""
    found = search(variant, tmp_path)
    assert found.problem == ""
    assert found.states > 0


@needs_spin
def test_a_model_that_holds_passes(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If a model holds and its control is found, the run passes, and the table has a row for each."""
    assert check([HOLDS, CONTROL], models)
    assert [row.split()[-1] for row in capsys.readouterr().out.splitlines()] == ["verdict", "holds", "found"]


@needs_spin
@pytest.mark.parametrize(
    ("old", "new", "variant", "problem"),
    [
        ("seen < 1 ->", "seen < 9 ->", HOLDS, "an error: (seen<2)"),
        ("NO_RULE", "ANOTHER", CONTROL, "no error was found"),
        ("seen < 2)", "seen < 1)", CONTROL, "another error: (seen<1)"),
        ("seen < 1 ->", "seen < 1 -> assert(seen < 9);", HOLDS, ""),
        ("do\n    ::", "do\n    :: seen == 7 -> seen = 0\n    ::", HOLDS, "never run: tiny.pml:5"),
        ("end: do", "do :: seen < 1 -> break od; false; do", HOLDS, "an error: invalid end state"),
    ],
    ids=["broken", "not found", "another", "assertion", "unreached", "stuck"],
)
def test_a_run_fails_if_a_result_is_not_as_expected(
    models: Path, tmp_path: Path, old: str, new: str, variant: Variant, problem: str
) -> None:
    """An error in a model, no error or another one in a control, and a statement that never runs fail the run."""
    change(models, old, new)
    assert search(variant, tmp_path, models).problem == problem


@needs_spin
def test_a_search_that_is_cut_short_proves_nothing(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A search that reaches its depth limit fails the run, although it has found no error."""
    assert not check([HOLDS], models, max_depth=2)
    assert "FAILED: the search was not exhaustive: max search depth too small" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("", "the search did not end"),
        ("Full statespace search for:\npan: out of memory\n", "the search did not end"),
        ("Bit statespace search for:\nerrors: 0\n", "the search did not end"),
        (
            "pan: reached -DMEMLIM bound\nWarning: Search not completed\nFull statespace search for:\nerrors: 0\n",
            "the search was not exhaustive: Search not completed",
        ),
        ("Full statespace search for:\nerrors: 0\n", ""),
    ],
)
def test_only_a_complete_search_counts(output: str, problem: str) -> None:
    """Without spin's statement that all states were searched, the run fails."""
    assert problem_of(output, HOLDS, []) == problem


@needs_spin
def test_a_trace_tells_the_way_to_the_error(models: Path) -> None:
    """A trace has the steps that the model prints, and ends with the assertion that fails."""
    assert list(trace(CONTROL, models)) == ["counting: goes on", "failed assertion: assert((seen<2))"]


def test_every_rule_that_can_be_removed_is_removed() -> None:
    """Each macro that a model tests is used by one of the variants, so no control is forgotten."""
    for path in MODELS.glob("*.pml"):
        tested = set(re.findall(r"(?m)^#ifn?def (\w+)|defined\((\w+)\)", path.read_text(encoding="utf-8")))
        used = {macro.partition("=")[0] for one in VARIANTS if one.model == path.stem for macro in one.macros}
        assert {name for pair in tested for name in pair if name} == used, path.name


def test_every_variant_is_explained() -> None:
    """The page about the models names each of them, and each control."""
    page = README.read_text(encoding="utf-8")
    assert [one.name for one in VARIANTS if one.breaks and f"`{one.name}`" not in page] == []
    assert [path.name for path in MODELS.glob("*.pml") if f"({path.name})" not in page] == []


def test_every_file_that_a_model_names_exists() -> None:
    """A model refers to files of the repository that are there."""
    for path in MODELS.glob("*.pml"):
        named = re.findall(r"[\w/.-]+/[\w.-]+\.(?:py|md|proto)\b", path.read_text(encoding="utf-8"))
        assert named, path.name
        bases = (ROOT, ROOT / "sessiond", ROOT / "clients" / "python" / "src")
        assert [name for name in named if not any((base / name).exists() for base in bases)] == []


def test_a_missing_program_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without spin and a compiler the run ends with exit code 1, and says in one line how to install them."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([]) == 1
    assert capsys.readouterr().err == "missing: spin and gcc. On Debian, run: apt install spin gcc\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["leases"], "unknown model leases; choose from lease"), (["--trace", "fill", "NO"], "unknown control fill NO")],
)
def test_an_unknown_name_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown model or control ends the run with the names that can be used."""
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err
