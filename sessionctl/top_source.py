"""What `top` asks the server, in threads: its position, its events, its live sessions and its locks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from sessionctl.clock import now
from sessionctl.refusals import explained
from sessionctl.settings import Settings
from sessionctl.top_state import State
from sessiond_client import (
    Authority,
    Checkpoint,
    ClientUnusable,
    Event,
    Events,
    EventType,
    InvalidArgument,
    NotServed,
    OutOfRange,
    PermissionDenied,
    SessiondError,
    Unauthenticated,
)

__all__ = ["Source"]

_MOST_COUNTED = 10_000
"""The live sessions of an application that are counted. A larger number is shown as this one with a plus sign."""
_MOST_IN_ALL = 50_000
"""The same for all applications together."""
_PAGE = 1000
_MOST_NAMED = 100
"""The applications that a filter of events may name."""
_LOCK_EVENTS = (EventType.SOURCE_LOCKED, EventType.SOURCE_UNLOCKED)
_SURVEY_SECONDS = 30.0
"""How often sessions are counted and locks are read if no events can be had."""
_LEAST_SECONDS = 1.0
"""The least time between two such rounds. Each makes calls for each application, which the audit log records."""
_JOIN_SECONDS = 1.0
_CHECKPOINT_SECONDS = 1.0


class Source:
    """Asks one server until it is stopped, and reports to the state whatever it says."""

    def __init__(self, asked: Settings, state: State, seconds: float) -> None:
        """`seconds`: how often the server's position is read."""
        self._asked, self._state, self._seconds = asked, state, seconds
        self._client = asked.client()
        self._stopped, self._survey, self._surveyed = threading.Event(), threading.Event(), threading.Event()
        self._events: Events[Event | Checkpoint] | None = None
        self._has_events = False
        self._uncounted = True
        self._threads = [
            threading.Thread(target=work, name=f"top {work.__name__}", daemon=True)
            for work in (self._poll, self._follow, self._look_around)
        ]

    def start(self) -> Authority:
        """Ask once, and then begin to ask on and on. Raises SessiondError if the first call fails."""
        authority = self._client.authority()
        self._state.answered(authority, now())
        for thread in self._threads:
            thread.start()
        return authority

    def wait(self, seconds: float) -> None:
        """Wait until sessions have been counted and locks read for the first time, at most so long."""
        self._surveyed.wait(seconds)

    def stop(self) -> None:
        """Ask no more, and give up what is under way."""
        self._stopped.set()
        self._survey.set()
        if self._events is not None:
            self._events.close()
        self._client.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(_JOIN_SECONDS)

    # What each thread does

    def _poll(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                authority = self._client.authority(timeout=self._asked.timeout)
            except ClientUnusable:
                return  # the command ends
            except SessiondError as error:
                self._state.failed(self._reason(error), now())
            else:
                self._state.answered(authority, now())

    def _follow(self) -> None:
        """Follow the events. If their log is another one, begin again, and count again."""
        names = [self._asked.application] if self._asked.application else []
        while not self._stopped.is_set():
            try:
                self._read(names)
            except ClientUnusable:
                return
            except (OutOfRange, InvalidArgument):
                self._stopped.wait(1.0)
            except PermissionDenied as error:
                own = [] if names else self._applications()[:_MOST_NAMED]
                if not own:
                    self._give_up_events(error)
                    return
                names = own  # a caller may have roles for some applications only
            except (NotServed, Unauthenticated) as error:
                self._give_up_events(error)
                return

    def _read(self, names: Sequence[str]) -> None:
        with self._client.events(
            applications=names, include_checkpoints=True, checkpoint_interval=_CHECKPOINT_SECONDS
        ) as events:
            self._events, self._uncounted = events, True
            if self._stopped.is_set():
                return
            for item in events:
                if isinstance(item, Event):
                    self._state.happened(item)
                    if item.type in _LOCK_EVENTS:
                        self._survey.set()
                elif self._uncounted:
                    self._has_events = True
                    self._state.follows()
                    self._survey.set()

    def _give_up_events(self, error: SessiondError) -> None:
        self._events = None
        self._state.lacks("events", self._needs(error, "subscriber"))
        self._survey.set()

    def _look_around(self) -> None:
        """Read the locks and count the sessions: with events when one of them says so, otherwise again and again."""
        while not self._stopped.is_set():
            is_asked = self._survey.wait(_SURVEY_SECONDS)
            self._survey.clear()
            if self._has_events and not is_asked:
                continue
            with suppress(ClientUnusable):
                if not self._stopped.is_set():
                    self._attempt("locked sources", self._read_locks)
                if not self._stopped.is_set() and (self._uncounted or not self._has_events):
                    self._uncounted = not self._attempt("live sessions", self._count)
            self._surveyed.set()
            self._stopped.wait(_LEAST_SECONDS)

    def _attempt(self, what: str, work: Callable[[], None]) -> bool:
        """Whether the work could be done. Otherwise the reason is shown, unless nothing at all can be reached."""
        try:
            work()
        except ClientUnusable:
            raise
        except PermissionDenied as error:
            self._state.lacks(what, self._needs(error, "operator"))
        except SessiondError as error:
            self._state.lacks(what, self._reason(error))
        else:
            self._state.has(what)
            return True
        return False

    def _read_locks(self) -> None:
        found = []
        for name in self._applications():
            with replace(self._asked, application=name).client() as client:
                found += list(client.list_source_locks(page_size=_PAGE))
        self._state.locked(found)

    def _count(self) -> None:
        left = _MOST_IN_ALL
        for name in self._applications():
            most = min(_MOST_COUNTED, left)
            if self._stopped.is_set() or most < 1:
                return
            self._state.begin_count(name)
            # From a state that includes every event that was applied before: the others are applied twice, harmlessly.
            cursor = (self._events.cursor or "") if self._events is not None else ""
            with replace(self._asked, application=name).client() as client:
                sessions = client.list(page_size=_PAGE, at_least=cursor)
                ids = {session.session_id for session in islice(sessions, most)}
                is_complete = len(ids) < most or next(sessions, None) is None
            self._state.counted(name, ids, is_complete=is_complete)
            left -= len(ids)

    def _applications(self) -> list[str]:
        """The applications that are shown, of those that the server lets this caller see."""
        if self._asked.application:
            return [self._asked.application]
        return [application.name for application in self._client.authority().applications]

    def _reason(self, error: SessiondError) -> str:
        failure = explained(error, self._asked)
        return error.message if failure is None else failure.message

    def _needs(self, error: SessiondError, role: str) -> str:
        """Why a call was refused, in words that name the role."""
        if isinstance(error, PermissionDenied):
            return f"not permitted; this caller needs the role {role}"
        return self._reason(error)
