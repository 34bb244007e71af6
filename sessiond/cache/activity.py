"""Activity that is known in memory and not saved in the store yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sessiond.domain.lifecycle import with_activity
from sessiond.domain.session import Activity, Session
from sessiond.domain.values import ClientContext, Instant, Millis, SessionId

__all__ = ["UnsavedActivity", "Unsaved"]


class Unsaved(NamedTuple):
    """The unsaved last activity of a session, and the session as it was at that time."""

    session: Session
    activity: Activity


class UnsavedActivity:
    """The last activity of each session until it is committed, independent of whether the session itself is cached."""

    def __init__(self) -> None:
        self._unsaved: dict[SessionId, Unsaved] = {}
        # The sessions to check in each second: checking all of them every second would take too long.
        self._calendar: dict[int, dict[SessionId, None]] = {}

    def note(
        self, session: Session, at: Instant, idle_deadline: Instant | None, client: ClientContext | None
    ) -> Activity | None:
        """Record activity. Return the session's last activity if it is unsaved, else None.

        Activity never moves backwards. Activity of an unknown client keeps the last known client.
        """
        known = self._unsaved.get(session.id)
        if at <= (session.last_active if known is None else known.activity.at):
            return None if known is None else known.activity
        if client is None or not (client.ip_address or client.user_agent):
            client = None if known is None else known.activity.client
        activity = Activity(session.id, at, idle_deadline, client)
        if known is None:
            self._schedule_check(session.id, at)
        self._unsaved[session.id] = Unsaved(session, activity)
        return activity

    def apply_to(self, session: Session) -> Session:
        """Return the session with its unsaved activity; unchanged if it has none."""
        unsaved = self._unsaved.get(session.id)
        return session if unsaved is None else with_activity(session, unsaved.activity)

    def saved(self, session_id: SessionId, at: Instant) -> None:
        """Forget the activity of a session up to the time that a commit has saved."""
        unsaved = self._unsaved.get(session_id)
        if unsaved is not None and unsaved.activity.at <= at:
            del self._unsaved[session_id]

    def drop(self, session_id: SessionId) -> None:
        """Forget the activity of a session that has ended."""
        self._unsaved.pop(session_id, None)

    def all(self) -> Iterable[Unsaved]:
        """Return a snapshot of all unsaved activity."""
        return list(self._unsaved.values())

    def quiet(self, now: Instant, lag: Callable[[Unsaved], Millis]) -> list[Activity]:
        """Return the activity of sessions that have had no newer activity for `lag` milliseconds.

        Activity that is returned and not saved is returned again by the next call. The order is that of the due times.
        A session in use is checked about once per `lag`.
        """
        found: list[Activity] = []
        for second in sorted(second for second in self._calendar if second <= now // 1_000):
            for session_id in self._calendar.pop(second):
                if (unsaved := self._unsaved.get(session_id)) is None:
                    continue
                due = unsaved.activity.at + lag(unsaved)
                if due <= now:
                    found.append(unsaved.activity)
                self._schedule_check(session_id, due)
        return found

    def _schedule_check(self, session_id: SessionId, at: int) -> None:
        self._calendar.setdefault(at // 1_000, {})[session_id] = None
