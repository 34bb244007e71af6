"""Faults: authorities that are broken deliberately, each in one way. The machine must find every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sessiond.authority import validation
from sessiond.authority.sweeper import Sweeper
from sessiond.changes import idempotency, judging, limits, login, revocation
from sessiond.changes.idempotency import Retry
from sessiond.crypto.tokens import KeyRing
from sessiond.detection.suspicions import ReportedSignals
from sessiond.domain import judge as judge_module
from sessiond.domain import lifecycle
from sessiond.domain import session as session_module
from sessiond.domain.event import EventType
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session, passed_deadline
from sessiond.domain.values import NOBODY, ClientContext, Instant, Lifetimes, Millis
from sessiond.eventlog import work as work_module
from sessiond.eventlog.work import Work
from sessiond.store import writes
from sessiond.store.rows import session_row
from sessiond.store.sqlite import transaction
from sessiond.store.sqlite.store import SqliteStore
from sessiond.store.statements import STATEMENTS, ParameterStyle

__all__ = ["FAULTS"]


def no_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(session: Any, presented: Any, policy: Policy, now: Instant) -> Any:
        return judge_module.judge(session, presented, replace(policy, renewal_overlap=Millis(0)), now)

    monkeypatch.setattr(validation, "judge", broken)
    monkeypatch.setattr(judging, "judge", broken)


def a_late_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    late: Any = lambda session, now: passed_deadline(session, Instant(now - 1))  # noqa: E731 - a fault in one line
    monkeypatch.setattr(judge_module, "passed_deadline", late)


def no_revocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocation, "end_session", lambda work, call, session, cause: session)


def lazy_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "touch_granularity", property(lambda self: 10**12))


def lost_at_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Sweeper, *, everything: bool = False) -> int:
        return 0

    monkeypatch.setattr(Sweeper, "save_activity", broken)


def forked_successors(monkeypatch: pytest.MonkeyPatch) -> None:
    right = KeyRing.successor
    monkeypatch.setattr(KeyRing, "successor", lambda self, opened, generation: right(self, opened, generation + 1))


def rolls_that_tolerate_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    right = judge_module._judge_other_secret
    monkeypatch.setattr(
        judge_module, "_judge_other_secret", lambda s, p, policy, now: right(s, p, policy, Instant(s.rolled_at or 0))
    )


def replays_without_consequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "carry_out", lambda work, call, session, consequences, **_: session)


def alarm_after_the_deed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = judging.carry_out

    def broken(work: Any, *arguments: Any, **named: Any) -> Any:
        session = right(work, *arguments, **named)
        events = work._draft.events
        if len(events) > 1:
            events[-2:] = [replace(events[-2], type=events[-1].type), replace(events[-1], type=events[-2].type)]
        return session

    monkeypatch.setattr(judging, "carry_out", broken)


def a_suspicion_told_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReportedSignals, "was_reported", lambda self, session_id, kind, window, now: False)


def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "enforce_limit", lambda work, call, subject, own, choice: limits.LimitDecision())


def tickets_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_use_ticket", lambda work, choice: None)


def elevated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        session_module, "authentication_at", lambda session, policy, now: (session.elevation or session).authentication
    )


def repeats_that_are_new_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency.Recall, "apply", lambda self, work: None)


def _silent(monkeypatch: pytest.MonkeyPatch, *kinds: EventType) -> None:
    """Change sessions without recording these events."""
    right = Work.save

    def broken(self: Work, session: Session, type: EventType, *arguments: Any, **named: Any) -> Session:
        if type not in kinds:
            return right(self, session, type, *arguments, **named)
        self._draft.sessions[session.id] = session
        return session

    monkeypatch.setattr(Work, "save", broken)
    monkeypatch.setattr(work_module, "_check_recorded", lambda draft, before: None)  # it would notice the fault


def a_level_falls_without_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    _silent(monkeypatch, EventType.SESSION_LEVEL_LOWERED)


def an_old_token_comes_back_without_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    _silent(monkeypatch, EventType.OLD_TOKEN_PRESENTED)


def an_old_token_is_forgotten_at_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SqliteStore._prepare

    async def broken(self: SqliteStore, *arguments: Any) -> None:
        await right(self, *arguments)
        await self._db.all("UPDATE sessions SET old_token = NULL")

    monkeypatch.setattr(SqliteStore, "_prepare", broken)


def a_hold_within_the_fold_window_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    right = judging.carry_out

    def broken(work: Work, call: Any, session: Session, consequences: Any, **named: Any) -> Session:
        if consequences.requires_authentication and not work.is_unreported(
            session.id, consequences.judgement.signals, call.policy
        ):
            held = replace(session, must_authenticate=True)
            work._draft.sessions[session.id] = held
            return held
        return right(work, call, session, consequences, **named)

    monkeypatch.setattr(judging, "carry_out", broken)
    monkeypatch.setattr(work_module, "_check_recorded", lambda draft, before: None)


def logins_that_are_not_idempotent(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Retry.recall
    monkeypatch.setattr(Retry, "recall", lambda self, work: None if self.while_current else right(self, work))


def logins_that_are_repeated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Retry.keep
    monkeypatch.setattr(
        Retry,
        "keep",
        lambda self, work, message, granted: right(replace(self, while_current=False), work, message, None),
    )


def a_login_leaves_the_other_subject_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "end_session", lambda work, call, session, cause: session)


def lifetimes_past_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_bounded", lambda lifetimes, policy, persistent: lifetimes)
    monkeypatch.setattr(lifecycle, "_shorter", lambda limit, own: limit if own is None else own)


def a_refresh_keeps_the_old_idle_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    right = lifecycle.refresh

    def broken(
        session: Session,
        policy: Policy,
        now: Instant,
        lifetimes: Lifetimes | None = None,
        client: ClientContext = NOBODY,
    ) -> Session:
        kept = None if lifetimes is None else replace(lifetimes, idle=session.lifetimes.idle)
        return right(session, policy, now, kept, client)

    monkeypatch.setattr(lifecycle, "refresh", broken)


def labels_that_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    statements = STATEMENTS[ParameterStyle.QUESTION_MARK]
    right = statements["put_label"]
    template = right.template.replace("DO UPDATE SET value = excluded.value", "DO NOTHING")
    assert template != right.template
    monkeypatch.setattr(transaction, "_STATEMENTS", {**statements, "put_label": replace(right, template=template)})


def anybody_may_revoke(monkeypatch: pytest.MonkeyPatch) -> None:
    right = revocation.Revoke.apply
    monkeypatch.setattr(revocation.Revoke, "apply", lambda self, work: right(replace(self, owner=None), work))


def data_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    right = lifecycle.with_data

    def broken(session: Session, data_bytes: int) -> Session:
        return replace(right(session, data_bytes), data_version=max(1, session.data_version))

    monkeypatch.setattr(lifecycle, "with_data", broken)


def rows_without_their_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        writes, "session_row", lambda session, retention: session_row(session, retention) | {"revision": 1}
    )


def guests_are_kept_as_long_as_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "retention_of", lambda session, policy: policy.retention)


def a_late_repeat_starts_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_is_late", lambda session, policy, now: False)


FAULTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    no_overlap,
    a_late_deadline,
    no_revocation,
    lazy_activity,
    lost_at_stop,
    forked_successors,
    rolls_that_tolerate_for_ever,
    replays_without_consequences,
    alarm_after_the_deed,
    a_suspicion_told_each_time,
    no_limit,
    tickets_for_ever,
    elevated_for_ever,
    repeats_that_are_new_calls,
    a_level_falls_without_an_event,
    an_old_token_comes_back_without_an_event,
    an_old_token_is_forgotten_at_a_restart,
    a_hold_within_the_fold_window_is_silent,
    logins_that_are_not_idempotent,
    logins_that_are_repeated_for_ever,
    a_late_repeat_starts_nothing_again,
    a_login_leaves_the_other_subject_in,
    lifetimes_past_the_policy,
    a_refresh_keeps_the_old_idle_timeout,
    labels_that_are_not_found,
    anybody_may_revoke,
    data_of_another_version,
    rows_without_their_revision,
    guests_are_kept_as_long_as_subjects,
]
