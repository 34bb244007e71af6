"""`python -m tests.mutation`: report which mutants of the given folders the tests kill; ends with 1 under the bar."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.campaign import Campaign, Fate, Plan, Result
from tests.mutation.equivalence import load_equivalent, stale
from tests.mutation.mutants import find_mutants, in_sample_order, modules_of
from tests.mutation.report import Report

_HERE = Path(__file__).parent
_IGNORED = (
    "canary clients config demo eventlog express faults ha hostile model mutation randomness sessionctl simulation "
    "store attacks/test_flood.py"
)
"""Tests that run whole processes, load a server, test other packages, or would test this one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("targets", nargs="+", help="folders or files to mutate")
    parser.add_argument("--seed", type=int, default=1, help="the order of the sample (default 1)")
    parser.add_argument("--minutes", type=float, default=20, help="start no mutant after this time (default 20)")
    parser.add_argument("--limit", type=int, help="try at most so many mutants")
    parser.add_argument("--bar", type=float, default=95, help="the score, in per cent, to reach (default 95)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--patience", type=float, default=10, help="seconds a test gets beside 5 times its usual time")
    parser.add_argument("--root", type=Path, default=_HERE.parent.parent, help="the tree to copy and mutate")
    parser.add_argument("--equivalent", type=Path, default=_HERE / "equivalent.toml")
    parser.add_argument("--recheck", action="store_true", help="run just the mutants that are listed as equivalent")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the copies are removed
    root: Path = given.root.resolve()
    targets = [Path(target).as_posix() for target in given.targets]
    judged = load_equivalent(given.equivalent)
    for change in stale(judged, root):
        _say(f"stale entry in {given.equivalent.name}: {change}")
    mutants = in_sample_order(find_mutants(root, modules_of(root, targets)), given.seed)
    ignored = tuple(path for name in _IGNORED.split() if (root / (path := f"tests/{name}")).exists())
    plan = Plan(
        root,
        ("tests",),
        ignored,
        judged,
        workers=given.workers,
        seconds=60 * given.minutes,
        limit=given.limit,
        patience=given.patience,
        rechecks=given.recheck,
    )
    _say(f"{len(mutants)} mutants; recording which test executes which line, unless build/mutation has it ...")
    with Campaign(plan) as campaign:
        recording = campaign.recording
        _say(f"{len(recording.seconds)} tests pass, {len(recording.failing)} fail and are left out")
        report = Report(targets, given.seed, given.bar, len(mutants), recording.failing)
        end, told = time.monotonic() + plan.seconds, time.monotonic()

        def heard(result: Result) -> None:
            nonlocal told
            report.results.append(result)
            if result.fate is Fate.SURVIVED:
                change = result.change
                _say(f"survived: {change.module}:{result.line} {change.before} -> {change.after or '(removed)'}")
            if time.monotonic() - told >= 10:
                told = time.monotonic()
                _say(report.progress(end - told))

        try:
            campaign.run(mutants, heard)
        finally:  # a run that is interrupted has results too
            report.write(root / "build" / "mutate.json")
            _say(report.text())
    if given.recheck:
        return int(any(result.fate in (Fate.KILLED, Fate.TIMEOUT) for result in report.results))
    return int(not report.holds)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
