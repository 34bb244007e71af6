"""Ending any number of sessions: in steps that each fit into one deadline, counted, and safe to interrupt."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from types import FrameType
from typing import Any, TypedDict

import click

from sessiond_client import Client, DeadlineExceeded, RevokedAll, Session, SessiondError

__all__ = ["Filter", "Halted", "revoke_all", "shown_progress"]

_STEP = 500
"""Sessions. A server on a slow disk ends as many in a second."""
_PATIENCE = 3
"""So many deadlines in a row that end nothing, and it is given up."""
_TICK = timedelta(milliseconds=1)


class Filter(TypedDict):
    """Which sessions; see `Client.list` and `Client.revoke_all`."""

    subject: str | None
    labels: dict[str, str]


class Halted(Exception):
    """It could not go on. `ended` sessions are known to have ended; those of one step more may have.

    `cause` is what the client raised, or KeyboardInterrupt.
    """

    def __init__(self, ended: int, cause: SessiondError | KeyboardInterrupt) -> None:
        super().__init__(ended)
        self.ended = ended
        self.cause = cause


def revoke_all(
    client: Client, which: Filter, *, keep: str, reason: str, progress: Callable[[int], None] = lambda _: None
) -> RevokedAll:
    """End all live sessions that match and were opened before this began, but the one with the id `keep`.

    Each step lists some of them and ends those. A step whose answer does not come in time is counted by what the next
    list no longer shows. `progress` is told how many have ended so far. Raises `Halted`; what has ended stays ended
    then, and calling this again ends the rest.
    """
    return _Revocation(client, which, keep, reason, progress).run()


class _Revocation:
    def __init__(self, client: Client, which: Filter, keep: str, reason: str, progress: Callable[[int], None]) -> None:
        self._client = client
        self._which = which
        self._keep = keep
        self._reason = reason
        self._progress = progress
        self._ended = 0
        self._unknown: set[str] = set()  # the sessions of a step whose own count is missing
        self._until: datetime | None = None

    def run(self) -> RevokedAll:
        with _interruptions() as interrupted:
            try:
                return self._steps(interrupted)
            except (KeyboardInterrupt, SessiondError) as cause:
                # An interruption that came while gRPC was calling back has been swallowed there.
                why = KeyboardInterrupt() if interrupted() else cause
                raise Halted(self._ended, why) from cause

    def _steps(self, interrupted: Callable[[], bool]) -> RevokedAll:
        missed = 0
        while not interrupted():
            before = self._ended
            try:
                if (answer := self._step()) is not None:
                    return answer
                missed = 0
            except DeadlineExceeded:
                missed = missed + 1 if self._ended == before else 1
                if missed >= _PATIENCE:
                    raise
        raise KeyboardInterrupt

    def _step(self) -> RevokedAll | None:
        """End some sessions; the answer to the whole once there are no more."""
        page = self._page()
        ids = {session.session_id for session in page}
        # What a step did whose answer did not come may go on for a moment: the step after it is counted the same way.
        late = bool(self._unknown)
        self._count(len(self._unknown - ids))
        self._unknown = set()
        if not page:
            # There may be some that no list shows, since they are about to expire; and the answer names the end state.
            last = self._revoke(None)
            self._count(last.revoked_count)
            return RevokedAll(revoked_count=self._ended, consistency_token=last.consistency_token)
        self._unknown = ids
        answer = self._revoke(min(session.create_time for session in page))
        if not late:
            self._unknown = set()
            self._count(answer.revoked_count)
        return None

    def _page(self) -> list[Session]:
        """The newest of the sessions that are still to be ended."""
        found = self._client.list(**self._which, created_until=self._until, page_size=_STEP)
        page = [session for session in islice(found, _STEP) if session.session_id != self._keep]
        if self._until is None and page:
            # By the authority's clock: what is opened from now on is not ended, and this comes to an end.
            self._until = max(session.create_time for session in page) + _TICK
        return page

    def _revoke(self, since: datetime | None) -> RevokedAll:
        more: dict[str, Any] = {} if self._until is None else {"created_until": self._until}
        if since is not None:
            more["created_from"] = since
        whole = self._which["subject"] is None and not self._which["labels"]
        return self._client.revoke_all(
            **self._which, **more, except_session_id=self._keep, whole_application=whole, reason=self._reason
        )

    def _count(self, number: int) -> None:
        self._ended += number
        if number:
            self._progress(self._ended)


@contextmanager
def _interruptions() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C has been pressed, even where the exception that it raises gets lost."""
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen = True
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python has Ctrl-C in the main thread alone
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def shown_progress(*, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Shows a count that grows, in one line of standard error that is gone at the end; on terminals only."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _: None
        return

    def show(ended: int) -> None:
        click.echo(f"\rrevoked so far: {ended}", err=True, nl=False)

    try:
        yield show
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)
