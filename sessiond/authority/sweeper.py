"""The sweeper: expires due sessions, deletes old history and saves activity, in bounded batches."""

from __future__ import annotations

import asyncio
from collections import Counter
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
from sessiond.system.failures import log_failure

__all__ = ["Sweeper"]

_BATCH = 500
_FALLBACK = PRESETS[DEFAULT_PRESET]  # sessions of an application that is no longer configured
_log = structlog.get_logger(__name__)


class Sweeper:
    """Periodic maintenance, every `interval` seconds. Each step can also be called by itself and does all that is due.

    Of several replicas, one does what concerns all of them. `event_retention` is how long events stay in the log.
    `on_fatal` is called if a read by the sweeper shows that the store has failed, in this read or in an earlier one.
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
        self.rounds: Counter[str] = Counter(dict.fromkeys(("done", "postponed", "failed"), 0))
        """Rounds by how they ended: done, postponed or failed."""
        self.expired = 0
        """Sessions that this sweeper has expired."""
        self.pruned = 0
        """Ended sessions that this sweeper has deleted."""
        self.done_at = self._clock.now()
        """When the last round ended that did all it had to do; until then, when the sweeper was made."""

    async def run(self) -> None:
        """Run until cancelled or until the store fails. If the store is temporarily unavailable, try again later.

        Every round reads from the store, so a failure of the store is detected even if nothing is written. The journal
        reports failed commits.
        """
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.save_activity()
                follower = self._parts.follower
                expired = pruned = 0
                if follower is None or follower.leads:  # otherwise another replica does the rest
                    expired = await self.sweep()
                    pruned = await self.prune()
                    await self.forget_answers()
                    await self._parts.gate.release_due()
                    await self._store.tidy()
            except StoreFailed as failure:
                self._on_fatal(failure)
                return
            except (Unavailable, Overloaded) as trouble:
                self.rounds["postponed"] += 1
                _log.warning("sweep postponed", error=str(trouble))
                continue
            except Exception:  # noqa: BLE001 - a failed round must not stop the sweeper
                self.rounds["failed"] += 1
                log_failure(_log, "sweep failed")
                continue
            self.rounds["done"] += 1
            self.done_at = self._clock.now()
            if expired or pruned:
                _log.info("swept", expired=expired, pruned=pruned)

    async def sweep(self) -> int:
        """Expire every session whose deadline has passed. Return how many."""
        total = 0
        while due := await self._store.due(self._clock.now(), _BATCH):
            ended = (await self._journal.submit(Expire(due, self._parts.policies, _FALLBACK))).result
            total += ended
            self.expired += ended
            if len(due) < _BATCH or not ended:
                break  # nothing is left, or the rest has unsaved activity: the next round checks again
        return total

    async def save_activity(self, *, everything: bool = False) -> int:
        """Save the activity of sessions that are no longer in use, or of all sessions. Return how many.

        Sessions in use need no sweeper: their validations save activity before it lags by more than the granularity.
        """
        activity = self._parts.activity
        quiet = [one.activity for one in activity.all()] if everything else activity.quiet(self._clock.now(), self._lag)
        for start in range(0, len(quiet), _BATCH):
            await self._journal.submit(SaveActivity(quiet[start : start + _BATCH]))
        return len(quiet)

    async def prune(self) -> int:
        """Delete ended sessions and events whose retention has passed. Return how many sessions were deleted.

        Nothing is deleted while the wall clock and the monotonic clock disagree: the wall clock may have been changed.
        """
        total = 0
        if not self._clock.is_steady():
            return 0
        while ids := await self._store.prunable(self._clock.now(), _BATCH):
            await self._journal.submit(Prune(ids))
            total += len(ids)
            self.pruned += len(ids)
            if len(ids) < _BATCH:
                break
        while True:
            before = Instant(self._clock.now() - self._event_retention)
            horizon = await self._store.horizon_for(before, _BATCH)
            if horizon is None:
                return total
            await self._journal.submit(PruneLog(horizon))

    async def forget_answers(self) -> None:
        """Delete some of the kept answers that have expired."""
        await self._journal.submit(ForgetAnswers())

    def _lag(self, unsaved: Unsaved) -> Millis:
        policy = self._parts.policies.get(unsaved.session.application, _FALLBACK)
        return touch_granularity(unsaved.session, policy)
