"""Plots of the figure `latency`: `python -m bench.plots build/bench.json` writes them to `docs/images`.

The same report always gives the same files. They follow the colour scheme of the reader, light or dark.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from bench.open_loop import bucket_bound_us, read_histogram

__all__ = ["draw"]

_INK, _PAPER, _GRID = "#1f2328", "#ffffff", "#d1d9e0"
_DARK = {_INK: "#e6edf3", _PAPER: "#0d1117", _GRID: "#3d444d"}
_COLOURS = ("#a8803f", "#7a828e", "#d9730d", "#2f81f7", "#2da44e", "#a371f7", "#d1477a", "#1b9aaa")
"""One for each path; each has enough contrast on both backgrounds."""
_PERCENTILES = (("p50_us", "p50", "o"), ("p99_us", "p99", "D"), ("p99_9_us", "p99.9", "s"))
_SLOWEST = (0.5, 0.1, 0.01, 0.001)
_STYLE: Any = {
    "svg.hashsalt": "sessiond",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.facecolor": _PAPER,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": _PAPER,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.08,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the figure `latency` of a report into `folder`, and return the files.

    Raises `ValueError` if the report has no such figure.
    """
    found = report.get("figures", {}).get("latency")
    if found is None:
        raise ValueError("the report has no figure 'latency'; run: make bench ONLY=latency")
    loads = found["details"]["latency"]
    runs = [run for pair in found["pairs"] for run in pair["runs"]]
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        return [
            _save(_percentiles(loads), folder / "latency-percentiles.svg"),
            _save(_distribution(loads, runs), folder / "latency-distribution.svg"),
        ]


def _percentiles(loads: list[dict[str, Any]]) -> Figure:
    """One row for each path, with its three percentiles; one panel for each load."""
    figure, panels = _panels(loads, share_x=True, height=0.9 + 0.42 * len(loads[0]["paths"]))
    for axes, load in zip(panels, loads, strict=True):
        paths = list(load["paths"].values())
        for row, (path, colour) in enumerate(zip(paths, _COLOURS, strict=False)):
            values = [path[key] / 1_000 for key, _, _ in _PERCENTILES]
            axes.plot(values, [row] * len(values), color=colour, linewidth=2.0)
            for (_, _, marker), value in zip(_PERCENTILES, values, strict=True):
                axes.plot(value, row, marker, color=colour, markersize=6)
            if path["saturated"]:
                # Above the line: beside it there may be the names of the paths, or the next panel.
                axes.annotate(
                    "saturated",
                    ((values[0] * values[-1]) ** 0.5, row),
                    (0, 5),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                )
        axes.set_yticks(range(len(paths)), [path["title"] for path in paths])
        axes.set_ylim(len(paths) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.margins(x=0.1)
        axes.xaxis.set_major_formatter(FuncFormatter(_plain))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("milliseconds from the scheduled time")
    marks = [
        panels[0].plot([], [], marker, color=_INK, markersize=6, label=name)[0] for _, name, marker in _PERCENTILES
    ]
    figure.legend(handles=marks, loc="outside upper right", ncols=len(marks), frameon=False)
    return figure


def _distribution(loads: list[dict[str, Any]], runs: list[dict[str, Any]]) -> Figure:
    """The latency that a share of the questions exceeds, one line for each path; one panel for each load."""
    figure, panels = _panels(loads, share_x=False, height=3.4)
    for axes, load in zip(panels, loads, strict=True):
        for (name, path), colour in zip(load["paths"].items(), _COLOURS, strict=False):
            of_path = [run for run in runs if run["path"] == name and run["per_second"] == load["per_second"]]
            counts = read_histogram(*(run["histogram"] for run in of_path))
            axes.plot(*_exceeded(counts), color=colour, linewidth=1.8, label=path["title"])
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1.0, _SLOWEST[-1])
        axes.xaxis.set_major_locator(FixedLocator(_SLOWEST))
        axes.xaxis.set_major_formatter(FixedFormatter(["p50", "p90", "p99", "p99.9"]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid()
        axes.set_xlabel("percentile, all rounds together")
    panels[0].set_ylabel("milliseconds")
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _exceeded(counts: Counter[int]) -> tuple[list[float], list[float]]:
    """Return the shares of questions that took longer, from large to small, and what they took longer than, in ms."""
    shares, latencies, slower = [], [], counts.total()
    for bucket in sorted(counts):
        slower -= counts[bucket]
        latencies.append(bucket_bound_us(bucket) / 1_000)
        shares.append(slower / counts.total())
    return shares, latencies


def _panels(loads: list[dict[str, Any]], *, share_x: bool, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(9.2, height + 0.6), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, len(loads), sharey=True, sharex=share_x, squeeze=False)[0])
    for axes, load in zip(panels, loads, strict=True):
        axes.set_title(f"{load['per_second']:,.0f} questions a second", fontsize=10, loc="left")
    return figure, panels


def _plain(value: float, _: int | None) -> str:
    return f"{value:,.10g}"


def _save(figure: Figure, file: Path) -> Path:
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.read_text(encoding="utf-8")
    # matplotlib cannot write style sheets. This one replaces three colours, for readers that prefer a dark scheme.
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark} !important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    head, defs, rest = text.partition(" <defs>\n")
    lines = f"{head} {style}\n{defs}{rest}".splitlines()
    file.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
    return file


@click.command()
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("docs/images"), show_default=True)
def main(report: Path, out: Path) -> None:
    """Draw the plots of REPORT, the JSON that `python -m bench` wrote."""
    try:
        files = draw(json.loads(report.read_text(encoding="utf-8")), out)
    except ValueError as error:
        raise click.ClickException(f"{report}: {error}") from None
    for file in files:
        click.echo(file)


if __name__ == "__main__":
    main()
