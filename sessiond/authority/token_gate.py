"""The token gate: where presented tokens are opened, and where guesses end without having touched a store."""

from __future__ import annotations

import asyncio

from sessiond.changes.maintenance import RecordOther
from sessiond.changes.sources import Unlock
from sessiond.crypto.tokens import KeyRing, OpenedToken, Token, TokenForged, TokenMalformed
from sessiond.detection.client_facts import source_of
from sessiond.detection.guesses import GuessEffect, GuessWatch, SourceLock
from sessiond.domain.call import Call
from sessiond.domain.event import EventType
from sessiond.domain.judge import FORGED, LOCKED, MALFORMED, Judgement
from sessiond.domain.values import Cause, CauseKind
from sessiond.eventlog.journal import Journal
from sessiond.eventlog.work import Unit
from sessiond.system.clock import Clock

__all__ = ["TokenGate"]


class TokenGate:
    """Opens tokens, counts those that were never issued, and locks their sources (OWASP, strict session management)."""

    def __init__(self, keys: KeyRing, guesses: GuessWatch, journal: Journal, clock: Clock) -> None:
        self._keys = keys
        self._guesses = guesses
        self._journal = journal
        self._clock = clock
        self._records: set[asyncio.Task[object]] = set()

    def open(self, call: Call, token: Token) -> OpenedToken | Judgement:
        """A presented token's content; the judgement where it has none, which counts as a guess."""
        if self.is_locked_out(call):
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

    def is_locked_out(self, call: Call) -> bool:
        """Whether the policy refuses even valid tokens from where the call's client is."""
        if not call.policy.guessing.deny_valid or not call.client.ip_address:
            return False
        source = source_of(call.client.ip_address)
        return self._guesses.locked(call.application, source, self._clock.now()) is not None

    async def locks(self, call: Call) -> list[SourceLock]:
        """The application's locks in force, oldest first. Waits for those that are being recorded."""
        if self._records:
            await asyncio.wait(set(self._records))
        return self._guesses.locks(call.application, self._clock.now())

    def unlock(self, call: Call, source: str) -> Unit[None]:
        """The unit that unlocks a source. It raises `LockNotFound`."""
        return Unlock(self._guesses, call, source)

    async def release_due(self) -> int:
        """Unlock the sources whose time is over; how many."""
        released = self._guesses.due(self._clock.now())
        for lock in released:
            cause = Cause(CauseKind.SIGNAL, reason="the lock's time is over")
            await self._journal.submit(RecordOther(EventType.SOURCE_UNLOCKED, lock.application, cause, lock.source))
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
        unit = RecordOther(type, application, Cause(CauseKind.SIGNAL), source)
        task: asyncio.Task[object] = asyncio.ensure_future(self._journal.submit(unit, must=True))
        self._records.add(task)
        task.add_done_callback(self._recorded)

    def _recorded(self, task: asyncio.Task[object]) -> None:
        self._records.discard(task)
        if not task.cancelled():
            task.exception()  # the journal has reported its own failure already
