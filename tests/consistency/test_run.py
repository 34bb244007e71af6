"""The short form of the run for CI; `make consistency` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.consistency.checker import check
from tests.consistency.history import Kind
from tests.consistency.run import Plan, run
from tests.support.figures import report


@pytest.mark.slow
async def test_a_short_run_breaks_no_rule(tmp_path: Path) -> None:
    """Three replicas under random clients, with every kind of trouble drawn at random, break no rule of the checker."""
    ran = await run(Plan(seed=1, operations=1_500, clients=12), tmp_path)
    history = ran.history
    assert check(history) == []
    awaited = [one for one in history.operations if one.kind is Kind.REVOKE and one.waits and one.applied]
    report(f"{len(history.operations)} changes, {len(history.validations)} validations, trouble: {ran.trouble}")
    assert awaited
    assert ran.trouble
    assert all(stream.deliveries for stream in history.streams)
