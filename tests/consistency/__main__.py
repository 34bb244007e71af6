"""`python -m tests.consistency`: run random clients against three replicas under faults, and check what they saw."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from tests.consistency.checker import check
from tests.consistency.history import write
from tests.consistency.run import Plan, Ran, run


def main() -> int:
    """Run as the arguments say. Return 1 if there is a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.consistency", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the seed of all choices (default 1)")
    parser.add_argument("--operations", type=int, default=20_000, help="how many operations (default 20,000)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="work for so long at most (default: no limit)")
    parser.add_argument("--clients", type=int, default=24, help="how many at a time (default 24)")
    parser.add_argument("--no-trouble", action="store_true", help="without faults")
    parser.add_argument("--folder", type=Path, help="keep the history and the replicas' logs there")
    given = parser.parse_args()
    plan = Plan(given.seed, given.operations, given.seconds, given.clients, trouble=not given.no_trouble)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sessiond-consistency-") as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        ran = uvloop.run(run(plan, folder))
        write(ran.history, folder / "history.json")
    violations = check(ran.history)
    _say(_summary(ran, time.monotonic() - began))
    for violation in violations[:50]:
        _say(f"VIOLATION {violation}")
    _say(f"{len(violations)} violations (seed {plan.seed})")
    return int(bool(violations))


def _summary(ran: Ran, seconds: float) -> str:
    history = ran.history
    done = Counter(f"{one.kind} {one.outcome}" for one in history.operations)
    seen = Counter(one.verdict or "no answer" for one in history.validations)
    awaited = sum(one.waits and one.applied for one in history.operations)
    held = sum(one.at_least is not None and bool(one.verdict) for one in history.validations)
    received = sum(len(stream.deliveries) for stream in history.streams)
    return "\n".join(
        (
            f"{len(history.operations) + len(history.validations)} operations in {seconds:.0f} s",
            f"  changes: {_counts(done)}; {awaited} awaited revocations",
            f"  validations: {_counts(seen)}; {held} with a consistency token",
            f"  {ran.hits} validations answered by near caches, {ran.by_workers} by workers",
            f"  {len(history.log)} events, {received} received by {len(history.streams)} subscribers",
            f"  trouble: {_counts(Counter(ran.trouble))}",
        )
    )


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
