"""The sweeper: turns passed deadlines into events, drops old history, writes activity behind; in bounded batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from sessiond.authority.token_gate import Gate
from sessiond.cache.sessions import Activity, SessionCache
from sessiond.changes import Expire, ForgetAnswers, Prune, PruneLog, SaveActivity
from sessiond.domain.errors import Unavailable
from sessiond.domain.policy import DEFAULT_PRESET, PRESETS, Policy
from sessiond.domain.values import Instant, Millis
from sessiond.eventlog.journal import Journal
from sessiond.store.contract import Store, StoreFailed
from sessiond.system.clock import Clock

__all__ = ["Sweeper"]

_BATCH = 500
_FALLBACK = PRESETS[DEFAULT_PRESET]  # sessions of an application that is configured no more
_log = structlog.get_logger(__name__)


class Sweeper:
    """What must happen though nobody asks. Each step may also be called by itself, and does all that is due.

    `on_fatal` is called if the store fails under a read of the sweeper's own, or has failed under somebody else's.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        cache: SessionCache,
        policies: Mapping[str, Policy],
        gate: Gate,
        clock: Clock,
        event_retention: Millis,
        on_fatal: Callable[[StoreFailed], None],
        interval: float = 1.0,
    ) -> None:
        self._store = store
        self._journal = journal
        self._cache = cache
        self._policies = policies
        self._gate = gate
        self._clock = clock
        self._event_retention = event_retention
        self._on_fatal = on_fatal
        self._interval = interval

    async def run(self) -> None:
        """Go on until cancelled, or until the store fails.

        It asks the store in every round, and so is the one to tell where a read has failed and nobody writes; where
        a commit has failed the journal has told.
        """
        while True:
            await asyncio.sleep(self._interval)
            try:
                expired = await self.sweep()
                await self.save_activity()
                pruned = await self.prune()
                await self.forget_answers()
                await self._gate.release_due()
            except StoreFailed as failure:
                self._on_fatal(failure)
                return
            except Unavailable:
                return
            except Exception:  # noqa: BLE001 - one bad round must not be the last
                _log.exception("sweep failed")
                continue
            if expired or pruned:
                _log.info("swept", expired=expired, pruned=pruned)

    async def sweep(self) -> int:
        """End every session whose deadline has passed; how many."""
        total = 0
        while due := await self._store.due(self._clock.now(), _BATCH):
            ended = (await self._journal.submit(Expire(due, self._policies, _FALLBACK))).result
            total += ended
            if len(due) < _BATCH or not ended:
                break  # the next round finds the rest
        return total

    async def save_activity(self, *, all_of_it: bool = False) -> int:
        """Write the activity of sessions that have gone quiet, or of all; how many.

        Sessions in use need nothing here: their validations see to it that activity never lags by more than the
        granularity.
        """
        now = self._clock.now()
        quiet = [activity for activity in self._cache.unsaved() if all_of_it or self._is_quiet(activity, now)]
        for start in range(0, len(quiet), _BATCH):
            some = quiet[start : start + _BATCH]
            await self._journal.submit(SaveActivity([(a.session_id, a.at, a.idle_deadline) for a in some]))
        return len(quiet)

    async def prune(self) -> int:
        """Drop the history of ended sessions, and of the log, whose retention is over; how many sessions."""
        total = 0
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

    def _is_quiet(self, activity: Activity, now: Instant) -> bool:
        policy = self._policies.get(activity.application, _FALLBACK)
        return now - activity.at >= policy.touch_granularity
