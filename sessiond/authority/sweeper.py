"""The sweeper: turns passed deadlines into events, drops old history, writes activity behind; in bounded batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from sessiond.authority.parts import Parts
from sessiond.cache.activity import Unsaved
from sessiond.changes.maintenance import Expire, ForgetAnswers, Prune, PruneLog, SaveActivity
from sessiond.domain.errors import Overloaded, Unavailable
from sessiond.domain.policy import DEFAULT_PRESET, PRESETS
from sessiond.domain.session import touch_granularity
from sessiond.domain.values import Instant, Millis
from sessiond.store.contract import StoreFailed

__all__ = ["Sweeper"]

_BATCH = 500
_FALLBACK = PRESETS[DEFAULT_PRESET]  # sessions of an application that is no longer configured
_log = structlog.get_logger(__name__)


class Sweeper:
    """What must happen though nobody asks. Each step may also be called by itself, and does all that is due.

    `on_fatal` is called if the store fails under a read of the sweeper's own, or has failed under somebody else's.
    """

    def __init__(
        self, parts: Parts, event_retention: Millis, on_fatal: Callable[[StoreFailed], None], interval: float = 1.0
    ) -> None:
        self._parts = parts
        self._store = parts.store
        self._journal = parts.journal
        self._clock = parts.clock
        self._event_retention = event_retention
        self._on_fatal = on_fatal
        self._interval = interval

    async def run(self) -> None:
        """Go on until cancelled, or until the store fails. A store that does not answer for a while is asked again.

        It asks the store in every round, and so notices if a read has failed and nobody writes; a commit that failed
        has been reported by the journal.
        """
        while True:
            await asyncio.sleep(self._interval)
            try:
                expired = await self.sweep()
                await self.save_activity()
                pruned = await self.prune()
                await self.forget_answers()
                await self._parts.gate.release_due()
                await self._store.tidy()
            except StoreFailed as failure:
                self._on_fatal(failure)
                return
            except (Unavailable, Overloaded) as trouble:
                _log.warning("sweep put off", error=str(trouble))
                continue
            except Exception:  # noqa: BLE001 - one bad round must not be the last
                _log.exception("sweep failed")
                continue
            if expired or pruned:
                _log.info("swept", expired=expired, pruned=pruned)

    async def sweep(self) -> int:
        """End every session whose deadline has passed; how many."""
        total = 0
        while due := await self._store.due(self._clock.now(), _BATCH):
            ended = (await self._journal.submit(Expire(due, self._parts.policies, _FALLBACK))).result
            total += ended
            if len(due) < _BATCH or not ended:
                break  # the next round finds the rest
        return total

    async def save_activity(self, *, all_of_it: bool = False) -> int:
        """Write the activity of sessions that have gone quiet, or of all; how many.

        Sessions in use need nothing here: their validations see to it that activity never lags by more than the
        granularity.
        """
        activity = self._parts.activity
        quiet = [one.activity for one in activity.all()] if all_of_it else activity.quiet(self._clock.now(), self._lag)
        for start in range(0, len(quiet), _BATCH):
            await self._journal.submit(SaveActivity(quiet[start : start + _BATCH]))
        return len(quiet)

    async def prune(self) -> int:
        """Drop the history of ended sessions, and of the log, whose retention is over; how many sessions.

        Not on the word of one clock reading: only while wall clock and monotonic clock agree on how time passes.
        """
        total = 0
        if not self._clock.is_steady():
            return 0
        while ids := await self._store.prunable(self._clock.now(), _BATCH):
            await self._journal.submit(Prune(ids))
            total += len(ids)
            if len(ids) < _BATCH:
                break
        while True:
            before = Instant(self._clock.now() - self._event_retention)
            horizon = await self._store.horizon_for(before, _BATCH)
            if horizon is None:
                return total
            await self._journal.submit(PruneLog(horizon))

    async def forget_answers(self) -> None:
        """Drop the answers to repeated calls that have expired, some at a time."""
        await self._journal.submit(ForgetAnswers())

    def _lag(self, unsaved: Unsaved) -> Millis:
        policy = self._parts.policies.get(unsaved.session.application, _FALLBACK)
        return touch_granularity(unsaved.session, policy)
