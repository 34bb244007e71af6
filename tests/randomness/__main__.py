"""`python -m tests.randomness`: judge 20,000 tokens, and what else is issued, with `ent` and `dieharder`.

Ends with 1 if something does not look random or was issued twice, or if a control does not behave as it must.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.randomness.issued import ORDERED, broken_generator, dieharder, ent, issue

_FOR_DIEHARDER = 240_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Issue, judge, and print a line for each kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.randomness", description=__doc__)
    parser.add_argument("--tokens", type=int, default=20_000, help="how many tokens (20,000)")
    parser.add_argument("--others", type=int, default=400, help="how many of each other kind (400)")
    given = parser.parse_args(arguments)
    missing = [program for program in ("ent", "dieharder") if shutil.which(program) is None]
    if "ent" in missing:
        parser.exit(1, "ent is not installed, and nothing was judged; run: apt install ent dieharder\n")
    if missing:
        _say("dieharder is not installed: its tests are left out; run: apt install dieharder")
    size = 16 * given.tokens
    samples = {"control: /dev/urandom": os.urandom(size), "control: a broken generator": broken_generator(size)}
    with tempfile.TemporaryDirectory() as folder:
        parts = issue(Path(folder), given.tokens, given.others)
    samples |= {kind: b"".join(raw) for kind, raw in parts.items()}
    failed = 0
    for kind, raw in samples.items():
        if kind in ORDERED:
            _say(f"ok     {kind}: {len(parts[kind])} without a duplicate; they begin with the time, and are not judged")
            continue
        judges = [ent] if missing or len(raw) < _FOR_DIEHARDER else [ent, dieharder]
        flaws = [flaw for judge in judges for flaw in judge(raw)]
        is_wrong = bool(flaws) is not ("broken" in kind)
        failed += is_wrong
        count = f"{len(parts[kind])} without a duplicate, " if kind in parts else ""
        named = " and ".join(judge.__name__ for judge in judges)
        outcome = "FAILED" if is_wrong else "ok"
        _say(f"{outcome:6} {kind}: {count}{len(raw)} bytes, {named}: {'; '.join(flaws[:3]) or 'pass'}")
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
