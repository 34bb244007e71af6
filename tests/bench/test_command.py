"""`make bench`: choosing figures, and what a report says about each."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import __main__ as command
from bench.figures import FIGURES
from bench.results import Figure, Result, Settings
from bench.sides import Reporter

ROOT = Path(__file__).parents[2]
MADE = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")


def made(*arguments: str) -> str:
    """The last command that `make bench` with these arguments would run."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "-C", str(ROOT), "bench", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "ONLY")},
    )
    return done.stdout.splitlines()[-1].strip()


@MADE
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], "-m bench"),
        (["ONLY=latency"], "-m bench --only latency"),
        (["ONLY=latency  cli_start"], "-m bench --only latency --only cli_start"),
    ],
)
def test_only_chooses_figures(arguments: list[str], wanted: str) -> None:
    """`make bench ONLY=` passes each name, and without it nothing, so that all figures are measured."""
    assert made(*arguments).endswith(wanted)


@MADE
def test_only_is_documented() -> None:
    """`make help` lists the variable, and fits into 80 columns."""
    done = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True)
    assert "ONLY" in done.stdout
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_an_unknown_figure_is_refused() -> None:
    """A name that is no figure gets an error that lists the figures."""
    done = CliRunner().invoke(command.main, ["--only", "latencies"])
    assert done.exit_code == 2
    assert "'latencies' is not one of" in done.output
    assert "'latency'" in done.output


def test_each_figure_has_a_name_of_its_own() -> None:
    """No two figures have one name, and the report would not lose one."""
    names = [figure.name for figure in FIGURES]
    assert len(set(names)) == len(names)


def test_a_result_records_how_long_it_took(tmp_path: Path) -> None:
    """The duration of a figure is in its JSON, in seconds, with everything that was prepared for it."""

    def measure(settings: Settings, result: Result, reporter: Reporter) -> None:
        result.under_load = False
        result.pairs.append({"ratio": 1.0})

    class Silent:
        def step(self, text: str) -> None: ...

        def progress(self, text: str, done: int, total: int) -> None: ...

    result = Figure("quick", None, measure).run(Settings(1, tmp_path, tmp_path), Silent())
    assert 0 <= result.as_json()["duration_seconds"] < 60
    assert result.seconds > 0


def test_every_figure_is_documented() -> None:
    """bench/README.md describes each figure, and says how long each takes."""
    text = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    durations = text.partition("## How long it takes")[2]
    for figure in FIGURES:
        assert f"| `{figure.name}` |" in text.partition("## How long it takes")[0], figure.name
        assert f"`{figure.name}`" in durations, figure.name
