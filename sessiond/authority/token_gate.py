"""The token gate: opens presented tokens and rejects guesses without access to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from sessiond.changes.maintenance import RecordOther
from sessiond.changes.sources import Unlock
from sessiond.crypto.tokens import KeyRing, OpenedToken, Token, TokenForged, TokenMalformed
from sessiond.detection.client_facts import source_of
from sessiond.detection.guesses import GuessEffect, GuessWatch, SourceLock
from sessiond.domain.call import Call
from sessiond.domain.errors import Unavailable
from sessiond.domain.event import EventType
from sessiond.domain.judge import FORGED, LOCKED, MALFORMED, Judgement
from sessiond.domain.values import Cause, CauseKind
from sessiond.eventlog.journal import Journal
from sessiond.eventlog.work import Unit
from sessiond.system.clock import Clock

__all__ = ["TokenGate"]


class TokenGate:
    """Opens tokens, counts those that were never issued, and locks their sources (OWASP, strict session management)."""

    def __init__(
        self,
        keys: KeyRing,
        guesses: GuessWatch,
        journal: Journal,
        clock: Clock,
        may_lack_keys: Callable[[], bool] = lambda: False,
    ) -> None:
        self._keys = keys
        self._may_lack_keys = may_lack_keys
        self._guesses = guesses
        self._journal = journal
        self._clock = clock
        self._records: set[asyncio.Task[object]] = set()

    @property
    def version(self) -> int:
        """Differs once tokens may be opened by other keys than before."""
        return self._keys.version

    def open(self, call: Call, token: Token) -> OpenedToken | Judgement:
        """Return the content of a presented token, or a judgement if it is locked out or was never issued.

        A token that was never issued counts as a guess. Raises `Unavailable` if that cannot be told, because there may
        be keys that this process does not hold.
        """
        if self.is_locked_out(call):
            return LOCKED
        try:
            return self._keys.open(token.reveal())
        except TokenMalformed:
            if token.reveal():  # a request without a token is not a guess
                self._count_guess(call)
            return MALFORMED
        except TokenForged:
            if self._may_lack_keys():
                raise Unavailable("this replica may lack a key of the key ring; call again") from None
            self._count_guess(call)
            return FORGED

    def is_locked_out(self, call: Call) -> bool:
        """Return whether even valid tokens are denied, because the client's source is locked under such a policy."""
        if not call.policy.guessing.deny_valid or not call.client.ip_address:
            return False
        source = source_of(call.client.ip_address)
        return self._guesses.locked(call.application, source, self._clock.now()) is not None

    def locked_sources(self) -> Mapping[str, int]:
        """Return how many sources of each application are locked now."""
        return self._guesses.in_force(self._clock.now())

    async def locks(self, call: Call) -> list[SourceLock]:
        """Return the application's locks in force, oldest first. Waits for lock events that are being committed."""
        if self._records:
            await asyncio.wait(set(self._records))
        return self._guesses.locks(call.application, self._clock.now())

    def unlock(self, call: Call, source: str) -> Unit[None]:
        """Return the unit that unlocks a source. It raises `LockNotFound`."""
        return Unlock(self._guesses, call, source)

    async def release_due(self) -> int:
        """Unlock the sources whose locks have expired. Return how many."""
        released = self._guesses.due(self._clock.now())
        for lock in released:
            cause = Cause(CauseKind.SIGNAL, reason="the lock has expired")
            await self._journal.submit(RecordOther(EventType.SOURCE_UNLOCKED, lock.application, cause, lock.source))
        return len(released)

    def _count_guess(self, call: Call) -> None:
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
        # In the background: the client does not wait for the commit and learns nothing from its duration.
        unit = RecordOther(type, application, Cause(CauseKind.SIGNAL), source)
        task: asyncio.Task[object] = asyncio.ensure_future(self._journal.submit(unit, urgent=True))
        self._records.add(task)
        task.add_done_callback(self._recorded)

    def _recorded(self, task: asyncio.Task[object]) -> None:
        self._records.discard(task)
        if not task.cancelled():
            task.exception()  # the journal has reported its own failure already
