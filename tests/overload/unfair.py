"""`sessiond` in which no call waits for those of other callers: the negative control of the tests beside it."""

from __future__ import annotations

import asyncio

from sessiond.access.turns import Lane, Turns
from sessiond.cli import main


def _at_once(_: Turns, lane: Lane, weight: int) -> asyncio.Future[None] | None:
    lane.in_work += weight
    return None


if __name__ == "__main__":
    Turns.begin = _at_once  # type: ignore[method-assign, assignment]  # the fault
    main(prog_name="sessiond")
