"""The authority and a simple model of it, compared over any story that Hypothesis generates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.faults import FAULTS
from tests.machine.machine import AuthorityMachine

_SETTINGS = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# A fault must be found, not minimized. Longer stories find rare faults sooner.
_CONTROL = settings(
    _SETTINGS, max_examples=400, stateful_step_count=60, phases=[Phase.generate], report_multiple_bugs=False
)


@pytest.mark.slow
def test_authority_and_model_agree() -> None:
    """Over creation, use, renewal, rolls, revocation, waiting, sweeps and crashes, every response is the model's."""
    run_state_machine_as_test(AuthorityMachine, settings=_SETTINGS)


@pytest.mark.slow
def test_authority_and_model_agree_over_postgres(monkeypatch: pytest.MonkeyPatch, postgres: str) -> None:
    """The same over Postgres, in fewer stories."""
    monkeypatch.setattr(AuthorityMachine, "postgres", postgres)
    run_state_machine_as_test(AuthorityMachine, settings=settings(_SETTINGS, max_examples=15))


@pytest.mark.parametrize("break_it", FAULTS)
def test_the_machine_finds_a_fault(
    monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The machine can fail: it finds each authority that is broken deliberately."""
    break_it(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(AuthorityMachine, settings=_CONTROL)
