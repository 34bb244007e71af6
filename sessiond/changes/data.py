"""The unit that changes a session's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sessiond.changes.judging import NamedSession, Outcome, checked_size, find, needs_of
from sessiond.domain import lifecycle
from sessiond.domain.call import Call
from sessiond.domain.errors import VersionMismatch
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.eventlog.work import Needs, Work

__all__ = ["UpdateData"]


@immutable
class UpdateData:
    """Set (bytes) and delete (None) keys of a session's data, all or none."""

    call: Call
    named: NamedSession
    changed: Mapping[str, bytes | None]
    expected_version: int | None

    def needs(self) -> Needs:
        """The session and its data."""
        needs = needs_of(self.call, self.named)
        return replace(needs, data=needs.sessions)

    def apply(self, work: Work) -> Outcome:
        """Raises `VersionMismatch` and, if the data would grow too large, `InvalidField`."""
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
        session = work.save(session, EventType.SESSION_DATA_CHANGED, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session, data=data)
