"""Ending any number of sessions in steps that each fit into one deadline; counted, and safe to interrupt."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from types import FrameType
from typing import Any, TypedDict

import click

from sessiond_client import Client, DeadlineExceeded, RevokedAll, Session, SessiondError

__all__ = ["Filter", "Halted", "revoke_all", "shown_progress"]

_STEP = 500
"""Sessions in one step. A server on a slow disk ends so many in a second."""
_PATIENCE = 3
"""After so many deadlines in a row without progress the revocation halts."""
_TICK = timedelta(milliseconds=1)
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Filter(TypedDict):
    """Which sessions; see `Client.list` and `Client.revoke_all`."""

    subject: str | None
    labels: dict[str, str]


class Halted(Exception):
    """The revocation could not continue. `ended` sessions have certainly ended; those of one more step may have.

    `cause` is what the client raised, or KeyboardInterrupt.
    """

    def __init__(self, ended: int, cause: SessiondError | KeyboardInterrupt) -> None:
        super().__init__(ended)
        self.ended = ended
        self.cause = cause


def revoke_all(
    client: Client, which: Filter, *, keep: str, reason: str, progress: Callable[[int], None] = lambda _: None
) -> RevokedAll:
    """End all live sessions that match and were opened before the call, except the one with the id `keep`.

    Each step lists some of them and ends those. If the answer to a step does not arrive in time, its sessions are
    counted by their absence from the next list. `progress` is called with the number that have ended so far. Raises
    `Halted`: the ended sessions stay ended, and a new call ends the rest.
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
        self._unknown: set[str] = set()  # the sessions of a step whose answer did not arrive
        self._until: datetime | None = None

    def run(self) -> RevokedAll:
        with _interruptions() as interrupted:
            try:
                return self._steps(interrupted)
            except (KeyboardInterrupt, SessiondError) as cause:
                # gRPC swallows a KeyboardInterrupt that arrives during one of its callbacks.
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
        """End some sessions; returns the final result when none are left, otherwise None."""
        page = self._page()
        ids = {session.session_id for session in page}
        # A step whose answer did not arrive may still be running, so the next step is counted in the same way.
        late = bool(self._unknown)
        self._count(len(self._unknown - ids))
        self._unknown = set()
        if not page:
            # Lists leave out sessions that are about to expire. This call ends those, and returns the final state.
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
        """The newest sessions that are still to be ended."""
        found = self._client.list(**self._which, created_until=self._until, page_size=_STEP)
        page = list(islice(found, _STEP))
        if self._until is None:
            # By the server's clock. Sessions that are opened from now on are left out, so the steps come to an end.
            self._until = max((session.create_time for session in page), default=_BEGINNING) + _TICK
        return [session for session in page if session.session_id != self._keep]

    def _revoke(self, since: datetime | None) -> RevokedAll:
        more: dict[str, Any] = {"created_until": self._until}
        if since is not None:
            more["created_from"] = since
        whole = self._which["subject"] is None and not self._which["labels"]
        return self._client.revoke_all(
            **self._which,
            **more,
            except_session_id=self._keep,
            whole_application=whole,
            reason=self._reason,
            wait_for_caches=since is None,  # the last step, after which all of them are to have ended everywhere
        )

    def _count(self, number: int) -> None:
        self._ended += number
        if number:
            self._progress(self._ended)


@contextmanager
def _interruptions() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C was pressed, even if the KeyboardInterrupt was lost."""
    seen = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen = True
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python raises KeyboardInterrupt only in the main thread
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: seen
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def shown_progress(*, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Shows a growing count in one line of standard error, and removes it at the end; only on a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield lambda _: None
        return

    def show(ended: int) -> None:
        click.echo(f"\rrevoked so far: {ended}", err=True, nl=False)

    try:
        yield show
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)
