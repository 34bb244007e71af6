"""The authority and a simple model of it, side by side through any story that Hypothesis thinks of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from sessiond.authority import validation
from sessiond.authority.sweeper import Sweeper
from sessiond.changes import idempotency, judging, login, revocation
from sessiond.crypto.tokens import KeyRing
from sessiond.domain import judge as judge_module
from sessiond.domain import lifecycle
from sessiond.domain.policy import Policy
from sessiond.domain.session import passed_deadline
from sessiond.domain.values import Instant, Millis
from sessiond.domain.watch import SuspicionFold
from tests.machine.machine import AuthorityMachine

_SETTINGS = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# A fault must be found, not made small. Longer stories find the rarer ones sooner.
_CONTROL = settings(
    _SETTINGS, max_examples=400, stateful_step_count=60, phases=[Phase.generate], report_multiple_bugs=False
)


def test_authority_and_model_agree() -> None:
    """Through creation, use, renewal, rolls, revocation, waiting, sweeps and crashes every answer is the model's."""
    run_state_machine_as_test(AuthorityMachine, settings=_SETTINGS)


def _no_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(session: Any, presented: Any, policy: Policy, now: Instant) -> Any:
        return judge_module.judge(session, presented, replace(policy, renewal_overlap=Millis(0)), now)

    monkeypatch.setattr(validation, "judge", broken)
    monkeypatch.setattr(judging, "judge", broken)


def _a_late_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    late: Any = lambda session, now: passed_deadline(session, Instant(now - 1))  # noqa: E731 - a fault in a line
    monkeypatch.setattr(judge_module, "passed_deadline", late)


def _no_revocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "end_session", lambda work, call, session, cause: session)


def _lazy_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "touch_granularity", property(lambda self: 10**12))


def _lost_at_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Sweeper, *, all_of_it: bool = False) -> int:
        return 0

    monkeypatch.setattr(Sweeper, "save_activity", broken)


def _forked_successors(monkeypatch: pytest.MonkeyPatch) -> None:
    right = KeyRing.successor
    monkeypatch.setattr(KeyRing, "successor", lambda self, opened, generation: right(self, opened, generation + 1))


def _rolls_that_tolerate_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    right = judge_module._judge_other_secret
    monkeypatch.setattr(
        judge_module, "_judge_other_secret", lambda s, p, policy, now: right(s, p, policy, Instant(s.rolled_at or 0))
    )


def _replays_without_consequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "react", lambda work, call, session, judgement, fresh: judgement)


def _alarm_after_the_deed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = judging.react

    def broken(work: Any, *arguments: Any, **named: Any) -> Any:
        judgement = right(work, *arguments, **named)
        events = work._draft.events
        if len(events) > 1:
            events[-2:] = [replace(events[-2], type=events[-1].type), replace(events[-1], type=events[-2].type)]
        return judgement

    monkeypatch.setattr(judging, "react", broken)


def _a_suspicion_told_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SuspicionFold, "news", lambda self, session_id, signals, window, now: tuple(signals))


def _no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_make_room", lambda work, call, subject, own, choice: login._Room())


def _tickets_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_use_ticket", lambda work, choice: None)


def _elevated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lifecycle, "authentication_at", lambda session, policy, now: (session.elevation or session).authentication
    )


def _repeats_that_are_new_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency.Recall, "apply", lambda self, work: None)


@pytest.mark.parametrize(
    "break_it",
    [
        _no_overlap,
        _a_late_deadline,
        _no_revocation,
        _lazy_activity,
        _lost_at_stop,
        _forked_successors,
        _rolls_that_tolerate_for_ever,
        _replays_without_consequences,
        _alarm_after_the_deed,
        _a_suspicion_told_each_time,
        _no_limit,
        _tickets_for_ever,
        _elevated_for_ever,
        _repeats_that_are_new_calls,
    ],
)
def test_the_machine_finds_a_fault(
    monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """An authority that is broken on purpose is told from the model: the machine can fail."""
    break_it(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(AuthorityMachine, settings=_CONTROL)
