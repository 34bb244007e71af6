"""The checker reports replicas without one of their protections, and has nothing to say about sound ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.consistency.checker import check
from tests.consistency.scenarios import SCENARIOS, play


@pytest.mark.measured  # it loads the machine, and needs it: nothing may run beside it
@pytest.mark.slow
@pytest.mark.parametrize("fault", SCENARIOS)
async def test_a_broken_protection_is_reported(fault: str, tmp_path: Path, database: str) -> None:
    """Without a protection the scenario that needs it breaks its rule, and the checker reports that."""
    history = await play(fault, tmp_path, database, broken=True)
    assert {violation.rule for violation in check(history)} == {SCENARIOS[fault].rule}


@pytest.mark.measured  # it loads the machine, and needs it: nothing may run beside it
@pytest.mark.slow
@pytest.mark.parametrize("fault", SCENARIOS)
async def test_sound_replicas_pass(fault: str, tmp_path: Path, database: str) -> None:
    """The same scenario with sound replicas breaks no rule."""
    assert check(await play(fault, tmp_path, database, broken=False)) == []
