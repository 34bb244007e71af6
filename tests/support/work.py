"""Units of work without a journal: what one decides for a state that the test provides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sessiond.cache.activity import UnsavedActivity
from sessiond.detection.suspicions import ReportedSignals
from sessiond.domain.call import Call, Caller
from sessiond.domain.event import Event
from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.session import Session
from sessiond.domain.signals import SignalType
from sessiond.domain.values import NOBODY, ClientContext, Instant, Millis, Revision, SessionId
from sessiond.eventlog.work import Read, Work
from sessiond.store.contract import KeptAnswer
from tests.support.clock import START

__all__ = ["HEAD", "KnownMemory", "call_of", "types_of", "work_on"]

HEAD = Revision(100)
"""The log's head before the unit."""


@dataclass
class KnownMemory:
    """What a process knows in addition to its store: unsaved activity, and recent reports."""

    activity: UnsavedActivity = field(default_factory=UnsavedActivity)
    reported: ReportedSignals = field(default_factory=ReportedSignals)

    def with_activity(self, session: Session) -> Session:
        """See `Memory`."""
        return self.activity.apply_to(session)

    def was_reported(self, session_id: SessionId, kind: SignalType, window: Millis, now: Instant) -> bool:
        """See `Memory`."""
        return self.reported.was_reported(session_id, kind, window, now)

    def is_own_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """See `Memory`."""
        return client == session.client

    def is_denied_client(self, session: Session, client: ClientContext, policy: Policy) -> bool:
        """See `Memory`."""
        return False

    def is_new_old_token(self, session: Session, client: ClientContext, others: Sequence[ClientContext]) -> bool:
        """See `Memory`."""
        return session.old_token is None

    def presented_old_token(
        self, session: Session, client: ClientContext, policy: Policy, others: Sequence[ClientContext]
    ) -> bool:
        """See `Memory`."""
        return False


def work_on(
    *sessions: Session, now: int = START, answers: Iterable[KeptAnswer] = (), memory: KnownMemory | None = None
) -> Work:
    """Return the work of a transaction that has read these sessions and answers."""
    memory = memory or KnownMemory()
    read = Read({s.id: memory.with_activity(s) for s in sessions}, {}, {answer.key: answer for answer in answers})
    return Work(Instant(now), HEAD, read, memory)


def call_of(policy: Policy = PRESETS["owasp-low"], client: ClientContext = NOBODY, **fields: Any) -> Call:
    """Return a call about a client, under this policy."""
    values: dict[str, Any] = {"application": "default", "caller": Caller("caller")}
    return Call(policy=policy, client=client, **(values | fields))


def types_of(events: Iterable[Event]) -> list[str]:
    """Return the types of the events, in their order."""
    return [event.type.value for event in events]
