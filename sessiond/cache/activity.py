"""Activity that the store does not have yet: known at once, written behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sessiond.domain.lifecycle import with_activity
from sessiond.domain.session import Activity, Session
from sessiond.domain.values import ClientContext, Instant, Millis, SessionId

__all__ = ["UnsavedActivity", "Unsaved"]


class Unsaved(NamedTuple):
    """The last activity of a session that is not saved, and the session as it was then."""

    session: Session
    activity: Activity


class UnsavedActivity:
    """The last activity of each session until a commit has it, whether or not the session itself stays in memory."""

    def __init__(self) -> None:
        self._unsaved: dict[SessionId, Unsaved] = {}
        # In which second each of them is to be looked at: walking all of them each second would take too long.
        self._calendar: dict[int, dict[SessionId, None]] = {}

    def note(
        self, session: Session, at: Instant, idle_deadline: Instant | None, client: ClientContext | None
    ) -> Activity | None:
        """Take in activity; what is the last of the session now, None if that is saved.

        It never moves backwards, and one of an unknown client leaves the last known client.
        """
        known = self._unsaved.get(session.id)
        if at <= (session.last_active if known is None else known.activity.at):
            return None if known is None else known.activity
        if client is None or not (client.ip_address or client.user_agent):
            client = None if known is None else known.activity.client
        activity = Activity(session.id, at, idle_deadline, client)
        if known is None:
            self._look_again(session.id, at)
        self._unsaved[session.id] = Unsaved(session, activity)
        return activity

    def added_to(self, session: Session) -> Session:
        """A session with the activity that is not saved; itself if there is none."""
        unsaved = self._unsaved.get(session.id)
        return session if unsaved is None else with_activity(session, unsaved.activity)

    def saved(self, session_id: SessionId, at: Instant) -> None:
        """Forget what a commit has: activity up to that time."""
        unsaved = self._unsaved.get(session_id)
        if unsaved is not None and unsaved.activity.at <= at:
            del self._unsaved[session_id]

    def drop(self, session_id: SessionId) -> None:
        """Forget the activity of a session that has ended."""
        self._unsaved.pop(session_id, None)

    def all(self) -> Iterable[Unsaved]:
        """All of it, as it is now."""
        return list(self._unsaved.values())

    def quiet(self, now: Instant, lag: Callable[[Unsaved], Millis]) -> list[Activity]:
        """The activity of sessions without more of it for their `lag`. What is not saved then is quiet again at once.

        In the order in which it is due: a session in use is looked at about once for each `lag`.
        """
        found: list[Activity] = []
        for second in sorted(second for second in self._calendar if second <= now // 1_000):
            for session_id in self._calendar.pop(second):
                if (unsaved := self._unsaved.get(session_id)) is None:
                    continue
                due = unsaved.activity.at + lag(unsaved)
                if due <= now:
                    found.append(unsaved.activity)
                self._look_again(session_id, due)
        return found

    def _look_again(self, session_id: SessionId, at: int) -> None:
        self._calendar.setdefault(at // 1_000, {})[session_id] = None
