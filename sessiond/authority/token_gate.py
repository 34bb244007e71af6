"""The gate: where presented tokens are opened, and where guesses end without having touched a store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sessiond import changes
from sessiond.changes import Call
from sessiond.crypto.tokens import KeyRing, OpenedToken, Token, TokenForged, TokenMalformed
from sessiond.detection.client_facts import source_of
from sessiond.domain.errors import LockNotFound
from sessiond.domain.event import EventType
from sessiond.domain.guessing import GuessEffect, GuessWatch, SourceLock
from sessiond.domain.judge import FORGED, LOCKED, MALFORMED, Judgement
from sessiond.domain.values import Cause, CauseKind
from sessiond.eventlog.journal import NOTHING, Journal, Needs, Unit, Work
from sessiond.system.clock import Clock

__all__ = ["Gate"]


class Gate:
    """Opens tokens, counts those that were never issued, and locks their sources (OWASP, strict session management)."""

    def __init__(self, keys: KeyRing, guesses: GuessWatch, journal: Journal, clock: Clock) -> None:
        self._keys = keys
        self._guesses = guesses
        self._journal = journal
        self._clock = clock
        self._records: set[asyncio.Task[object]] = set()

    def open(self, call: Call, token: Token) -> OpenedToken | Judgement:
        """A presented token's content; the judgement where it has none, which counts as a guess."""
        if self.shuts_out(call):
            return LOCKED
        try:
            return self._keys.open(token.reveal())
        except TokenMalformed:
            if token.reveal():  # a request without a token is no guess at one
                self._guessed(call)
            return MALFORMED
        except TokenForged:
            self._guessed(call)
            return FORGED

    def shuts_out(self, call: Call) -> bool:
        """Whether even valid tokens are refused from where the call's client is."""
        if not call.policy.guessing.deny_valid or not call.client.ip_address:
            return False
        source = source_of(call.client.ip_address)
        return self._guesses.locked(call.application, source, self._clock.now()) is not None

    def locks(self, call: Call) -> list[SourceLock]:
        """The application's locks in force, oldest first."""
        return self._guesses.locks(call.application, self._clock.now())

    def unlock(self, call: Call, source: str) -> Unit[None]:
        """The unit that lets a source go. It raises `LockNotFound`."""
        return _Unlock(self._guesses, call, source)

    async def release_due(self) -> int:
        """Let go of the sources whose time is over; how many."""
        released = self._guesses.release_due(self._clock.now())
        for lock in released:
            cause = Cause(CauseKind.SIGNAL, reason="the lock's time is over")
            await self._journal.submit(
                changes.RecordOther(EventType.SOURCE_UNLOCKED, lock.application, cause, lock.source)
            )
        return len(released)

    def _guessed(self, call: Call) -> None:
        now, limits = self._clock.now(), call.policy.guessing
        if self._guesses.flood(call.application, limits, now):
            self._record(EventType.GUESSING_SUSPECTED, call.application, "*")
        source = source_of(call.client.ip_address)
        if not source:
            return
        effect = self._guesses.guess(call.application, source, limits, now)
        if effect is GuessEffect.ALARM:
            self._record(EventType.GUESSING_SUSPECTED, call.application, source)
        elif effect is GuessEffect.LOCK:
            self._record(EventType.SOURCE_LOCKED, call.application, source)

    def _record(self, type: EventType, application: str, source: str) -> None:
        # Behind the answer: a guesser waits for nothing and learns nothing from the time it takes.
        unit = changes.RecordOther(type, application, Cause(CauseKind.SIGNAL), source)
        task: asyncio.Task[object] = asyncio.ensure_future(self._journal.submit(unit))
        self._records.add(task)
        task.add_done_callback(self._recorded)

    def _recorded(self, task: asyncio.Task[object]) -> None:
        self._records.discard(task)
        if not task.cancelled():
            task.exception()  # the journal has told of its own end already


@dataclass(frozen=True, slots=True)
class _Unlock:
    guesses: GuessWatch
    call: Call
    source: str

    def needs(self) -> Needs:
        """Nothing: locks are memory."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Here, not before: a repeat must find the first answer and not that the lock is gone."""
        if self.guesses.clear(self.call.application, self.source) is None:
            raise LockNotFound("source: is not locked for this application")
        work.record_other(EventType.SOURCE_UNLOCKED, self.call.application, self.call.cause, source=self.source)
