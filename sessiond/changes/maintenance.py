"""Units of maintenance: what must happen though nobody asks, and what is recorded about no single session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sessiond.changes.judging import expire_due
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.session import Activity, activity_of
from sessiond.domain.values import Cause, Revision, SessionId
from sessiond.eventlog.work import NOTHING, Needs, Work

__all__ = ["Expire", "ForgetAnswers", "Prune", "PruneLog", "RecordOther", "SaveActivity", "Total"]


@immutable
class SaveActivity:
    """Write behind the activity that only memory has."""

    activities: Sequence[Activity]

    def needs(self) -> Needs:
        """Nothing: the store itself never revives nor moves backwards."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Write the last activity and the deadline that follows from it."""
        for activity in self.activities:
            work.put_activity(activity)


@immutable
class Expire:
    """End the named sessions whose deadline has passed, at the deadline itself."""

    ids: Sequence[SessionId]
    policies: Mapping[str, Policy]
    fallback: Policy

    def needs(self) -> Needs:
        """The sessions."""
        return Needs(sessions=self.ids)

    def apply(self, work: Work) -> int:
        """How many this ended. One that only memory knows to be active gets its activity written instead."""
        ended = 0
        for session_id in self.ids:
            session = work.session(session_id)
            if session is None or session.ending is not None:
                continue
            policy = self.policies.get(session.application, self.fallback)
            if expire_due(work, session, policy).ending is None:
                work.put_activity(activity_of(session))
            else:
                ended += 1
        return ended


@immutable
class Prune:
    """Drop the history of ended sessions whose retention is over."""

    ids: Sequence[SessionId]

    def needs(self) -> Needs:
        """Nothing: the store drops only what has ended."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Drop them."""
        work.prune(self.ids)


@immutable
class PruneLog:
    """Move the horizon."""

    horizon: Revision

    def needs(self) -> Needs:
        """Nothing."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Drop the log up to the new horizon."""
        work.move_horizon(self.horizon)


@immutable
class ForgetAnswers:
    """Drop some of the kept answers that have expired."""

    def needs(self) -> Needs:
        """Nothing."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Drop them."""
        work.forget_answers()


@immutable
class Total:
    """The count of a call that took several units. Changes nothing; it is there to be kept as the answer to repeats."""

    count: int

    def needs(self) -> Needs:
        """Nothing."""
        return NOTHING

    def apply(self, work: Work) -> int:
        """The count."""
        return self.count


@immutable
class RecordOther:
    """Record an event about no single session: a source that guesses, a policy that changed."""

    type: EventType
    application: str
    cause: Cause
    source: str = ""

    def needs(self) -> Needs:
        """Nothing."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Record it."""
        work.record_other(self.type, self.application, self.cause, source=self.source)
