"""The unit that changes a session's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sessiond.changes.judging import OpenedSessionRef, Outcome, checked_size, find, needs_of, size_of
from sessiond.domain import lifecycle
from sessiond.domain.call import Call
from sessiond.domain.errors import VersionMismatch
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.session import Session
from sessiond.eventlog.work import Needs, Work

__all__ = ["UpdateData"]


@immutable
class UpdateData:
    """Set (bytes) and delete (None) keys of a session's data, all or none. `shows`: return the data after the change.

    With an `expected_version` the change is made only if the data still has that version.
    """

    call: Call
    named: OpenedSessionRef
    changed: Mapping[str, bytes | None]
    expected_version: int | None
    shows: bool = False

    def needs(self) -> Needs:
        """Return what to read: the session and its data."""
        needs = needs_of(self.call, self.named)
        return replace(needs, data=needs.sessions)

    def apply(self, work: Work) -> Outcome:
        """Change the data. Raises `SessionNotFound`, `VersionMismatch`, and `InvalidField` if it would be too large."""
        outcome = find(work, self.call, self.named)
        session = outcome.usable
        if session is None:
            return Outcome(outcome.judgement, None)
        if self.expected_version is not None and self.expected_version != session.data_version:
            raise VersionMismatch(self.expected_version, session.data_version)
        session = lifecycle.with_data(session, self._size_after(work, session))
        work.put_data(session.id, self.changed)
        session = work.save(session, EventType.SESSION_DATA_CHANGED, self.call.cause, self.call.client)
        return Outcome(outcome.judgement, session, data=work.data(session.id) if self.shows else None)

    def _size_after(self, work: Work, session: Session) -> int:
        """Return the size after the change. It uses only the changed keys, so that other values need no decryption."""
        count, size = work.data_count(session.id), session.data_bytes
        for key, value in self.changed.items():
            before = work.data_value(session.id, key)
            count += (value is not None) - (before is not None)
            size += size_of(key, value) - size_of(key, before)
        return checked_size("set", count, size, self.call.policy)
