"""The plots: drawn from a report, valid SVG, the same each time, and readable in light and dark."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from click.testing import CliRunner
from matplotlib.text import Text

from bench import plots
from bench.latency import PATHS
from bench.open_loop import histogram

SVG = "{http://www.w3.org/2000/svg}"
FILES = ["latency-distribution.svg", "latency-percentiles.svg"]


def report_of(*, saturated: bool = False) -> dict[str, Any]:
    """A small report: two paths at two loads, two rounds."""
    latencies = [0.001 * (1 + number % 7) for number in range(200)]
    names = ("echo", "near_cache")
    loads = [
        {
            "per_second": rate,
            "seconds": 1.0,
            "paths": {
                name: {
                    "title": f"the path {name}",
                    "saturated": saturated and rate == 1_000,
                    "p50_us": 900.0 * (1 + number),
                    "p99_us": 4_000.0,
                    "p99_9_us": 7_000.0,
                }
                for number, name in enumerate(names)
            },
        }
        for rate in (200, 1_000)
    ]
    rounds = [
        {
            "runs": [
                {"path": name, "per_second": rate, "histogram": histogram(latencies)}
                for name in names
                for rate in (200, 1_000)
            ]
        }
        for _ in range(2)
    ]
    return {"figures": {"latency": {"details": {"latency": loads}, "pairs": rounds}}}


def texts_of(file: Path) -> set[str]:
    """The texts in an SVG file. Fails if it is not one."""
    root = ElementTree.parse(file).getroot()
    assert root.tag == f"{SVG}svg"
    return {"".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")}


def test_the_plots_are_svg_files_with_each_path(tmp_path: Path) -> None:
    """Both plots are valid SVG, and name each path and each load as text."""
    files = plots.draw(report_of(), tmp_path / "new" / "folder")
    assert sorted(file.name for file in files) == FILES
    for file in files:
        wanted = {"the path echo", "the path near_cache", "200 questions a second", "1,000 questions a second"}
        assert wanted <= texts_of(file)


def test_the_same_report_gives_the_same_files(tmp_path: Path) -> None:
    """Two drawings of one report are equal, byte for byte, and another report gives other files."""
    first, again = (plots.draw(report_of(), tmp_path / name) for name in ("first", "again"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]
    other = plots.draw(report_of(saturated=True), tmp_path / "other")
    assert first[0].read_bytes() != other[0].read_bytes()


def test_the_plots_bear_no_date_and_no_version(tmp_path: Path) -> None:
    """Nothing in the files depends on when, or with which version, they were drawn."""
    for file in plots.draw(report_of(), tmp_path):
        text = file.read_text(encoding="utf-8")
        assert "dc:date" not in text
        assert "Matplotlib" not in text


def test_the_plots_follow_the_colour_scheme(tmp_path: Path) -> None:
    """Text, background and grid are three colours, and each of them has a rule for a dark scheme."""
    for file in plots.draw(report_of(), tmp_path):
        text = file.read_text(encoding="utf-8")
        _, found, rules = text.partition("@media (prefers-color-scheme: dark)")
        assert found
        for light, dark in plots._DARK.items():
            assert f"{light}" in rules
            assert f"{dark} !important" in rules
        styles = [element.get("style", "") for element in ElementTree.parse(file).getroot().iter(f"{SVG}text")]
        assert styles
        assert all(f"fill: {plots._INK}" in style for style in styles)


def test_a_saturated_path_is_marked(tmp_path: Path) -> None:
    """A path that could not keep up is marked in the plot of the percentiles; one that could is not."""
    file = plots.draw(report_of(saturated=True), tmp_path)[0]
    assert "saturated" in texts_of(file)
    assert "saturated" not in texts_of(plots.draw(report_of(), tmp_path)[0])


def test_no_labels_overlap() -> None:
    """With the paths of the benchmark, no two texts of a plot overlap."""
    report = report_of()
    (loads,) = (report["figures"]["latency"]["details"]["latency"],)
    for load in loads:
        load["paths"] = {
            path.name: next(iter(load["paths"].values())) | {"title": path.title, "saturated": True} for path in PATHS
        }
    runs = [
        {"path": path.name, "per_second": rate, "histogram": "160:100 180:10"}
        for path in PATHS
        for rate in (200, 1_000)
    ]
    with mpl.rc_context(plots._STYLE):
        for figure in (plots._percentiles(loads), plots._distribution(loads, runs)):
            figure.draw_without_rendering()
            texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
            boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
            assert len({text for text, _ in boxes} & {path.title for path in PATHS}) == len(PATHS)
            assert [(a[0], b[0]) for a, b in combinations(boxes, 2) if a[1].overlaps(b[1])] == []


def test_the_command_writes_the_plots(tmp_path: Path) -> None:
    """`python -m bench.plots REPORT --out FOLDER` writes the files, and prints where they are."""
    report = tmp_path / "bench.json"
    report.write_text(json.dumps(report_of()), encoding="utf-8")
    done = CliRunner().invoke(plots.main, [str(report), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES
    assert all(name in done.output for name in FILES)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"figures": {"cli_start": {}}}', "has no figure 'latency'; run: make bench ONLY=latency"),
        ("{}", "has no figure 'latency'"),
        ("not json", "Expecting value"),
    ],
)
def test_a_report_without_the_figure_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """A report without the figure gets an error that names the file and says how to measure it."""
    report = tmp_path / "bench.json"
    report.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(plots.main, [str(report), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert str(report) in done.output
    assert problem in done.output
    assert not (tmp_path / "out").exists()
