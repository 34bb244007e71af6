"""Units of a session's use: a validation with consequences, its data, and what an application noticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sessiond.changes.judging import Call, NamedSession, Outcome, Suspicion, checked_size, find, needs_of, react, settle
from sessiond.domain import session as lifecycle
from sessiond.domain.errors import VersionMismatch
from sessiond.domain.event import EventType
from sessiond.domain.judge import Presented, Verdict
from sessiond.domain.signals import Signal, SignalType
from sessiond.eventlog.journal import Needs, Work

__all__ = ["Report", "Settle", "UpdateData"]


@dataclass(frozen=True, slots=True)
class Settle:
    """Judge a token whose verdict has consequences: a first use, a suspicion, or activity that must be durable.

    Without `renews` a first use is left to the unit that comes after this one.
    """

    call: Call
    presented: Presented
    passive: bool
    suspicion: Suspicion | None = None
    renews: bool = True

    def needs(self) -> Needs:
        """The session."""
        return needs_of(self.call, self.presented)

    def apply(self, work: Work) -> Outcome:
        """Judge, and carry out what follows."""
        outcome = settle(work, self.call, self.presented, self.suspicion, renews=self.renews)
        session = outcome.session
        if session is None or self.passive or outcome.verdict is not Verdict.VALID:
            return outcome
        touched = lifecycle.touch(session, self.call.policy, work.now)
        if touched.authentication != session.authentication:
            work.put(touched)  # a remembered session's level has fallen
        else:
            work.put_activity(touched.id, touched.last_active, touched.idle_deadline)
        return Outcome(outcome.judgement, touched)


@dataclass(frozen=True, slots=True)
class Report:
    """Take in an application's own suspicion."""

    call: Call
    named: NamedSession

    def needs(self) -> Needs:
        """The session."""
        return needs_of(self.call, self.named)

    def apply(self, work: Work) -> Outcome:
        """React to it as to any signal. Raises `SessionNotFound`."""
        outcome = find(work, self.call, self.named)
        if outcome.session is None:
            return outcome
        signal = Signal(SignalType.REPORTED, "", self.call.reason)
        suspected = replace(outcome.judgement, signals=(signal,))
        react(work, self.call, outcome.session, suspected, fresh=True)
        return Outcome(suspected, work.session(outcome.session.id))


@dataclass(frozen=True, slots=True)
class UpdateData:
    """Set and delete keys of a session's data, all or none."""

    call: Call
    named: NamedSession
    changed: Mapping[str, bytes | None]
    expected_version: int | None

    def needs(self) -> Needs:
        """The session and its data."""
        needs = needs_of(self.call, self.named)
        return replace(needs, data=needs.sessions)

    def apply(self, work: Work) -> Outcome:
        """Raises `VersionMismatch` and, where the data would grow too large, `InvalidField`."""
        outcome = find(work, self.call, self.named)
        session = outcome.usable
        if session is None:
            return Outcome(outcome.judgement, None)
        if self.expected_version is not None and self.expected_version != session.data_version:
            raise VersionMismatch(self.expected_version, session.data_version)
        data = work.data(session.id)
        for key, value in self.changed.items():
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value
        session = lifecycle.with_data(session, checked_size("set", data, self.call.policy))
        work.put_data(session.id, self.changed)
        work.put(session)
        work.record(EventType.SESSION_DATA_CHANGED, session, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session)
