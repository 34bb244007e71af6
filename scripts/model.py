"""Check the models of docs/model/ with spin.

Each rule of a model can be removed by a macro. The model with all rules must hold in every state that can be reached;
without a rule, spin must find the error that the rule prevents. The run fails if one of these is not so, if a search
was not exhaustive, or if a statement of a model never runs, because then the model does not show what it says.

    python -m scripts.model                    check all models
    python -m scripts.model fill lease         check these models
    python -m scripts.model --trace lease ACK_BEFORE_APPLY      show the shortest way to an error
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "docs" / "model"
MAX_DEPTH = 200_000
"""Steps of the longest path that is searched."""
MAX_MEMORY = 2_000
"""Megabytes for one search."""
MAX_SECONDS = 240
"""For one search."""
_WORKERS = 2
_ROW = "{:<9} {:<28} {:>10} {:>7} {:>8}  {}"
_STORY = re.compile(r"\s*(\w[\w ]*: .*)")
"""A line that a model prints: who does it, and what."""


class SearchFailed(Exception):
    """A model could not be compiled or searched."""


@dataclass(frozen=True)
class Variant:
    """A model, and what of it is different.

    model    the name of its file, without the suffix
    name     for the table; a control has the name of the macro that removes its rule
    macros   the macros to define, each as NAME or NAME=VALUE
    breaks   a part of the assertion that must fail; empty if the model must hold
    """

    model: str
    name: str
    macros: tuple[str, ...] = ()
    breaks: str = ""


@dataclass(frozen=True)
class Search:
    """The result of a search: its size, and why it is not as expected; empty if it is."""

    states: int
    depth: int
    seconds: float
    problem: str


def _controls(model: str, breaks: str, *names: str, macros: tuple[str, ...] = ()) -> Iterator[Variant]:
    return (Variant(model, name, (*macros, name), breaks) for name in names)


_NEAR_CACHE = "cacheLease"
_REPLICA = "(lease>0)"
_STALE = "wanted"
_TOO_OLD = "!((carried[tab].secret"
_ALARM = "overtaken||("
_LOGOUT = "!(cookie.rolled)"
VARIANTS = (
    Variant("lease", "one authority", ("EMBEDDED", "LEASE=4")),
    *_controls(
        "lease",
        _NEAR_CACHE,
        "COUNT_FROM_RECEIPT",
        "IGNORE_NONCE",
        "NO_DRIFT_ALLOWANCE",
        "ACK_BEFORE_APPLY",
        "GRANT_BEFORE_EVENTS",
        "FORGET_WITH_STREAM",
        "FORGET_AT_RESTART",
        macros=("EMBEDDED",),
    ),
    Variant("lease", "replicas", ("LEASE=3",)),
    *_controls("lease", _NEAR_CACHE, "REPLICA_IGNORES_CACHES", "GRANT_BEYOND_OWN_LEASE", "FORGET_STOPPED_REPLICA"),
    *_controls("lease", _REPLICA, "REPLICA_COUNTS_BEFORE_LOG", "REPLICA_COUNTS_FROM_RECEIPT"),
    Variant("fill", "all rules"),
    *_controls("fill", _STALE, "NO_AT_LEAST", "NO_FENCE", "SHARE_OVERTAKEN", "START_AT_NOW"),
    Variant("rotation", "all rules"),
    *_controls("rotation", "issued[", "FRESH_SECRET"),
    *_controls("rotation", "isRolledAway", "ROLL_KEEPS_SECRET"),
    *_controls("rotation", _TOO_OLD, "NO_OVERLAP", "SHORT_RENEWAL", "RENEWAL_WITHIN_REPEAT"),
    *_controls("rotation", _ALARM, "FORKED_CHAIN", "SHORT_ROLL_TOLERANCE", "NO_LOST_ANSWER_TOLERANCE"),
    *_controls("rotation", "0||(", "OVERTAKEN_COUNTS"),
    *_controls("rotation", _LOGOUT, "NO_RESTART_AT_LATE_REPEAT", "MISSED_ROLL_DISCARDS", "COPY_DISCARDS"),
)


def missing_programs() -> str:
    """Return what must be installed, and how; empty if nothing is missing."""
    missing = [name for name, found in (("spin", shutil.which("spin")), ("gcc", _compiler())) if not found]
    if not missing:
        return ""
    return f"missing: {' and '.join(missing)}. On Debian, run: apt install {' '.join(missing)}"


def _compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("clang")


def problem_of(output: str, variant: Variant, source: Sequence[str]) -> str:
    """Return why the output of a search is not what the variant must give; empty if it is.

    `source` has the lines of the model.
    """
    broken = re.search(r"pan:\d+: (.*) \(at depth \d+\)", output)
    if "Full statespace search" not in output or "errors:" not in output:
        return "the search did not end"
    if broken is not None:
        said = broken[1].removeprefix("assertion violated").strip()
        if variant.breaks and variant.breaks in said.replace(" ", ""):
            return ""
        return f"{'another error' if variant.breaks else 'an error'}: {said}"
    for mark in ("max search depth too small", "Search not completed", "MEMLIM", "out of memory"):
        if mark in output:
            return f"the search was not exhaustive: {mark}"
    if variant.breaks:
        return "no error was found"
    if unreached := [line for line in _unreached(output) if "assert(" not in source[line - 1]]:
        return f"never run: {', '.join(f'{variant.model}.pml:{line}' for line in unreached)}"
    return ""


def _unreached(output: str) -> list[int]:
    """Return the lines with statements that were never run, but for the ends of processes."""
    found = re.findall(r"\.pml:(\d+), state \d+, \"(.*)\"", output)
    return sorted({int(line) for line, statement in found if statement != "-end-"})


def search(variant: Variant, folder: Path, models: Path = MODELS, max_depth: int = MAX_DEPTH) -> Search:
    """Search all states of a variant, or for the shortest way to an error. Raises `SearchFailed`.

    `folder` gets the generated files; after an error was found also `NAME.pml.trail`.
    """
    began = time.perf_counter()
    _prepare(variant, folder, models)
    output = _run([str(folder / "pan"), f"-m{max_depth}"], folder, may_fail=True)
    source = (models / f"{variant.model}.pml").read_text(encoding="utf-8").splitlines()
    states = re.search(r"(\d+) states, stored", output)
    depth = re.search(r"depth reached (\d+)", output)
    return Search(
        int(states[1]) if states else 0,
        int(depth[1]) if depth else 0,
        time.perf_counter() - began,
        problem_of(output, variant, source),
    )


def _prepare(variant: Variant, folder: Path, models: Path) -> None:
    """Generate and compile the search."""
    compiler = _compiler()
    macros = [f"-D{macro}" for macro in variant.macros]
    # Without -o3, spin joins statements and then reports some as never run that did run.
    _run(
        ["spin", f"-P{compiler} -E -x c", "-o3", *macros, "-a", str(models / f"{variant.model}.pml")],
        folder,
    )
    # Breadth first finds the shortest way to an error, depth first takes less memory.
    order = ["-DBFS"] if variant.breaks else []
    options = ["-w", "-O1", "-DSAFETY", f"-DMEMLIM={MAX_MEMORY}", *order]
    _run([str(compiler), *options, "-o", "pan", "pan.c"], folder)


def _run(command: Sequence[str], folder: Path, *, may_fail: bool = False) -> str:
    try:
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=MAX_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise SearchFailed(f"{Path(command[0]).name} took longer than {MAX_SECONDS} s") from None
    output = run.stdout + run.stderr
    if not may_fail and run.returncode != 0:
        raise SearchFailed(f"{Path(command[0]).name} failed:\n{output.strip()}")
    return output


def check(variants: Sequence[Variant], models: Path = MODELS, max_depth: int = MAX_DEPTH) -> bool:
    """Check the variants and print a table. Return whether each is as expected. Raises `SearchFailed`."""

    def search_one(variant: Variant) -> Search:
        with TemporaryDirectory() as folder:
            return search(variant, Path(folder), models, max_depth)

    print(_ROW.format("model", "variant", "states", "depth", "seconds", "verdict"))
    is_expected = True
    with ThreadPoolExecutor(_WORKERS) as pool:
        for variant, found in zip(variants, pool.map(search_one, variants), strict=True):
            verdict = f"FAILED: {found.problem}" if found.problem else "error found" if variant.breaks else "holds"
            seconds = f"{found.seconds:.1f}"
            print(_ROW.format(variant.model, variant.name, found.states, found.depth, seconds, verdict), flush=True)
            is_expected = is_expected and not found.problem
    return is_expected


def trace(variant: Variant, models: Path = MODELS) -> Iterator[str]:
    """Return the steps to the error of a control, as the model tells them. Raises `SearchFailed`."""
    with TemporaryDirectory() as folder:
        found = search(variant, Path(folder), models)
        if found.problem:
            raise SearchFailed(found.problem)
        trail = Path(folder) / f"{variant.model}.pml.trail"
        macros = [f"-D{macro}" for macro in variant.macros]
        told = _run(
            ["spin", f"-P{_compiler()} -E -x c", *macros, "-t", "-k", str(trail), f"{models / variant.model}.pml"],
            Path(folder),
        )
    for line in told.splitlines():
        if line.startswith("spin: text of failed assertion"):
            yield line.removeprefix("spin: text of ")
            return
        if (step := _STORY.fullmatch(line)) and not line.startswith(("spin:", "Starting")):
            yield step[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the models. Return exit code 1 if something is not as expected or a program is missing."""
    models = tuple(dict.fromkeys(variant.model for variant in VARIANTS))
    parser = ArgumentParser(prog="python -m scripts.model", description="Check the models of docs/model/ with spin.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"one of {', '.join(models)}; all without one")
    parser.add_argument("--trace", nargs=2, metavar=("MODEL", "CONTROL"), help="show the shortest way to its error")
    given = parser.parse_args(arguments)
    if unknown := set(given.models) - set(models):
        parser.error(f"unknown model {', '.join(sorted(unknown))}; choose from {', '.join(models)}")
    traced = [variant for variant in VARIANTS if variant.breaks and [variant.model, variant.name] == given.trace]
    if given.trace and not traced:
        names = ", ".join(f"{variant.model} {variant.name}" for variant in VARIANTS if variant.breaks)
        parser.error(f"unknown control {' '.join(given.trace)}; choose from {names}")
    if missing := missing_programs():
        print(missing, file=sys.stderr)
        return 1
    try:
        if traced:
            print(*trace(traced[0]), sep="\n")
            return 0
        return 0 if check([one for one in VARIANTS if one.model in (given.models or models)]) else 1
    except SearchFailed as failed:
        print(failed, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
