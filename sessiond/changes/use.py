"""Units for the use of a session: a validation with consequences, and a suspicion reported by an application."""

from __future__ import annotations

from dataclasses import replace

from sessiond.changes.judging import (
    OpenedSessionRef,
    Outcome,
    Suspicion,
    carry_out,
    find,
    judge_and_apply,
    needs_of,
    save_lowered,
)
from sessiond.domain import lifecycle
from sessiond.domain.call import Call
from sessiond.domain.immutable import immutable
from sessiond.domain.judge import Presented, Verdict
from sessiond.domain.reactions import consequences_of
from sessiond.domain.session import activity_of
from sessiond.domain.signals import Signal, SignalType
from sessiond.eventlog.work import Needs, Work

__all__ = ["Report", "Use"]


@immutable
class Use:
    """Judge a token whose verdict has consequences: a successor's first use, a suspicion, or activity to be saved.

    passive     the use does not count as activity
    suspicion   the signals that were found outside the transaction
    renews      whether a successor's first use is carried out; False leaves it to the unit that follows
    quiet       activity is all that is expected to be recorded
    """

    call: Call
    presented: Presented
    passive: bool
    suspicion: Suspicion | None = None
    renews: bool = True
    quiet: bool = False

    def needs(self) -> Needs:
        """Return what to read: the session."""
        return replace(needs_of(self.call, self.presented), quiet=self.quiet)

    def apply(self, work: Work) -> Outcome:
        """Judge the token and carry out the consequences."""
        call = self.call
        outcome = judge_and_apply(work, call, self.presented, self.suspicion, renews=self.renews)
        session = outcome.session
        if session is None or self.passive or outcome.verdict is not Verdict.VALID:
            return outcome
        touched = lifecycle.touch(session, call.policy, work.now, call.client)
        # After a long idle time the level of a remembered session has dropped. Activity must not restore it: save it.
        saved = save_lowered(work, call, session, touched)
        if saved is touched:
            work.put_activity(activity_of(touched))
        return Outcome(outcome.judgement, saved)


@immutable
class Report:
    """React to a suspicion that an application reports."""

    call: Call
    named: OpenedSessionRef

    def needs(self) -> Needs:
        """Return what to read: the session."""
        return needs_of(self.call, self.named)

    def apply(self, work: Work) -> Outcome:
        """React as to any other signal. Raises `SessionNotFound`."""
        outcome = find(work, self.call, self.named, allow_suspicious=True)
        if outcome.session is None:
            return outcome
        signal = Signal(SignalType.REPORTED, "", self.call.reason)
        suspected = replace(outcome.judgement, signals=(signal,))
        consequences = consequences_of(outcome.session, suspected, self.call.policy)
        carry_out(work, self.call, outcome.session, consequences, always=True)
        return Outcome(suspected, None)
