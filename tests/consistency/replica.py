"""`python -m tests.consistency.replica [--fault NAME] serve ...`: `sessiond` with one of its protections broken."""

from __future__ import annotations

import argparse

from sessiond.cli import main
from tests.consistency.broken import FAULTS

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.consistency.replica", description=__doc__)
    parser.add_argument("--fault", choices=sorted(FAULTS))
    given, rest = parser.parse_known_args()
    if given.fault is not None:
        FAULTS[given.fault]()
    main(rest, prog_name="sessiond")
