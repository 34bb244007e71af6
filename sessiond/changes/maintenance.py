"""Maintenance units, which no call requests, and the unit that records events that belong to no session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sessiond.changes.judging import expire_due
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.session import Activity, activity_of
from sessiond.domain.values import Cause, Revision, SessionId
from sessiond.eventlog.work import NOTHING, QUIET, Needs, Work

__all__ = ["Expire", "ForgetAnswers", "Prune", "PruneLog", "RecordOther", "SaveActivity", "Total"]


@immutable
class SaveActivity:
    """Save activity that is only in memory."""

    activities: Sequence[Activity]

    def needs(self) -> Needs:
        """Return what to read: nothing, because the store checks each activity itself."""
        return QUIET

    def apply(self, work: Work) -> None:
        """Save the last activity of each session and its idle deadline."""
        for activity in self.activities:
            work.put_activity(activity)


@immutable
class Expire:
    """Expire those of the given sessions whose deadline has passed; the time of the end is the deadline itself.

    `fallback` is the policy for sessions of applications that are no longer configured.
    """

    ids: Sequence[SessionId]
    policies: Mapping[str, Policy]
    fallback: Policy

    def needs(self) -> Needs:
        """Return what to read: the sessions."""
        return Needs(sessions=self.ids)

    def apply(self, work: Work) -> int:
        """Return how many sessions expired. If unsaved activity has extended a session, save the activity instead."""
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
    """Delete the history of ended sessions whose retention has passed."""

    ids: Sequence[SessionId]

    def needs(self) -> Needs:
        """Return what to read: nothing, because the store deletes only sessions that have ended."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Delete the sessions."""
        work.prune(self.ids)


@immutable
class PruneLog:
    """Move the horizon of the log."""

    horizon: Revision

    def needs(self) -> Needs:
        """Return what to read: nothing."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Delete the log up to the new horizon."""
        work.move_horizon(self.horizon)


@immutable
class ForgetAnswers:
    """Delete some of the kept answers that have expired."""

    def needs(self) -> Needs:
        """Return what to read: nothing."""
        return QUIET

    def apply(self, work: Work) -> None:
        """Delete the expired answers."""
        work.forget_answers()


@immutable
class Total:
    """The count of a call that took several units. It changes nothing; `Idempotent` keeps it for repeats."""

    count: int

    def needs(self) -> Needs:
        """Return what to read: nothing."""
        return NOTHING

    def apply(self, work: Work) -> int:
        """Return the count."""
        return self.count


@immutable
class RecordOther:
    """Record an event that belongs to no session: a source that guesses, a policy that changed."""

    type: EventType
    application: str
    cause: Cause
    source: str = ""

    def needs(self) -> Needs:
        """Return what to read: nothing."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Record the event."""
        work.record_other(self.type, self.application, self.cause, source=self.source)
