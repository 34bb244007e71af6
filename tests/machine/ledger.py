"""A follower that knows sessions only by their events, and checks the rows of the store against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sessiond.domain.event import Event, EventType
from sessiond.domain.session import Session, SessionState
from sessiond.domain.signals import Reaction
from sessiond.domain.values import NOBODY, Authentication, Instant, Labels, Revision, SessionId

__all__ = ["Ledger"]

_SHOWS_AUTHENTICATION = (
    EventType.SESSION_CREATED,
    EventType.SESSION_AUTHENTICATED,
    EventType.SESSION_LEVEL_LOWERED,
)
_ENDS = {EventType.SESSION_REVOKED: SessionState.REVOKED, EventType.SESSION_EXPIRED: SessionState.EXPIRED}


@dataclass(frozen=True, slots=True)
class _Known:
    """The content of a session according to the events so far."""

    revision: Revision
    subject: str
    generation: int
    labels: Labels
    authentication: Authentication | None = None
    state: SessionState = SessionState.ACTIVE
    held: bool = False
    old_token: bool | None = False
    """None: the row decides, because a refresh clears the mark only for a repeated login."""
    data_changes: int = 0


class Ledger:
    """The log so far, and the rows when they were last checked."""

    def __init__(self) -> None:
        self.revision = Revision(0)
        self._known: dict[SessionId, _Known] = {}
        self._rows: dict[SessionId, Session] = {}
        self._first_versions: dict[SessionId, int] = {}  # the version of the data: 1 for a session opened with data

    def follow(self, events: Sequence[Event]) -> None:
        """Read the events that follow the known ones; they must be in order and without a gap."""
        for event in events:
            assert event.revision == self.revision + 1
            self.revision = event.revision
            if event.session_id is not None:
                self._known[event.session_id] = _after(self._known.get(event.session_id), event)

    def ids(self) -> list[SessionId]:
        """Return the ids of all sessions in the log."""
        return list(self._known)

    def explain(self, session_id: SessionId, row: Session | None) -> None:
        """Check a row against the events so far and its earlier state. A pruned session must have no row."""
        known, before = self._known[session_id], self._rows.get(session_id)
        if row is None:
            assert known.state is not SessionState.ACTIVE, "a live session has gone"
            self._rows.pop(session_id, None)
            return
        assert row.revision == known.revision, f"the last event about {row} has revision {known.revision}"
        assert (row.subject, row.generation, row.labels) == (known.subject, known.generation, known.labels)
        assert (row.authentication, row.state) == (known.authentication, known.state)
        assert row.must_authenticate == known.held
        marked = row.old_token is not None
        assert known.old_token in (None, marked)
        self._known[session_id] = known = replace(known, old_token=marked)
        first = row.data_version - known.data_changes
        assert first in (0, 1)
        assert first == self._first_versions.setdefault(session_id, first)
        if before is not None:
            assert row.last_active >= before.last_active
            assert row.revision >= before.revision
            if row.revision == before.revision:
                assert _without_activity(row) == _without_activity(before), "a session has changed without an event"
        self._rows[session_id] = row


def _after(before: _Known | None, event: Event) -> _Known:
    assert (before is None) == (event.type is EventType.SESSION_CREATED)
    if before is None:
        return _Known(event.revision, event.subject, event.generation, event.labels, event.authentication)
    assert before.state is SessionState.ACTIVE, f"{event.type} of a session that has ended"
    known = before
    match event.type:
        case EventType.HIJACK_SUSPECTED:
            if event.reaction is not Reaction.STEP_UP or before.held:
                return before  # reported, but nothing has changed
            known = replace(before, held=True)
        case EventType.OLD_TOKEN_PRESENTED:
            assert not before.old_token
            known = replace(before, old_token=True)
        case EventType.SESSION_REFRESHED:
            known = replace(before, old_token=None if before.old_token else before.old_token)
        case EventType.SESSION_AUTHENTICATED:
            known = replace(before, held=False, old_token=False)
        case EventType.SESSION_DATA_CHANGED:
            known = replace(before, data_changes=before.data_changes + 1)
        case EventType.SESSION_REVOKED | EventType.SESSION_EXPIRED:
            known = replace(before, state=_ENDS[event.type])
    if event.type in _SHOWS_AUTHENTICATION:
        known = replace(known, authentication=event.authentication)
    return replace(
        known, revision=event.revision, subject=event.subject, generation=event.generation, labels=event.labels
    )


def _without_activity(session: Session) -> Session:
    return replace(session, last_active=Instant(0), idle_deadline=None, last_client=NOBODY)
