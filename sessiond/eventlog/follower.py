"""The follower: keeps the memory of this process true to a log to which other replicas write too.

Own commits and the events of other replicas are applied in the order of the log. An announcement of another replica is
a hint to look at the log; without one the follower looks at it from time to time. Sessions that another replica has
changed are dropped from the cache and read again when they are used. So a revocation takes effect here without waiting
for a read, and sessions that are not used here cost nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from sessiond.domain.errors import Unavailable
from sessiond.domain.event import EventType
from sessiond.domain.key_ring import KeyHolder
from sessiond.domain.values import Revision
from sessiond.eventlog.feed import Feed
from sessiond.eventlog.neighbours import Neighbours
from sessiond.store.contract import Commit, Head, StoreFailed
from sessiond.store.shared import LEASE, SharedStore
from sessiond.system.failures import log_failure
from sessiond_client.following import Lease

__all__ = ["Follower"]

_PAGE = 500
_RENEW_EVERY = 1_000
"""Milliseconds between two renewals of the lease."""
_LOOK_EVERY = 0.1
"""Seconds after which the follower looks at the log without an announcement."""
_ALLOWANCE = LEASE // 50
"""Milliseconds that a lease may take longer by another clock."""
_PAUSE = 0.005
"""Seconds between two looks at the log, so that a busy log is read in larger parts."""
_log = structlog.get_logger(__name__)


class Follower:
    """Follows the log of a shared store.

    apply     applies a commit to caches and memory; called in the order of the log, before the feed
    forget    forgets everything that was read from the log: a part of it does not exist any more
    passed    milliseconds of a clock that never goes backwards
    policies  returns the fingerprint of this replica's policies
    """

    def __init__(
        self,
        store: SharedStore,
        feed: Feed,
        lease: Lease,
        apply: Callable[[Commit], None],
        forget: Callable[[], None],
        passed: Callable[[], int],
    ) -> None:
        self._store = store
        self._feed = feed
        self._lease = lease
        self._apply = apply
        self._forget = forget
        self._passed = passed
        self._incarnation = feed.incarnation
        self._turn = asyncio.Lock()
        self._hinted = asyncio.Event()
        self._renewed = -_RENEW_EVERY
        self._acknowledged = feed.revision
        self._neighbours = Neighbours(store.replica, passed)
        self._other_policies: Sequence[str] = ()
        self.policies: Callable[[], str] = lambda: ""
        self.applied: Callable[[Revision], Revision] = lambda revision: revision
        """Returns up to where the caches that follow this replica have applied the log, at most the argument."""

    @property
    def leads(self) -> bool:
        """Return whether this replica does the upkeep that one replica does for all."""
        return self._neighbours.leads

    @property
    def lease_left(self) -> int:
        """Return for how many milliseconds this replica may answer from memory, if it cannot renew its lease."""
        return max(0, self._lease.until - self._passed())

    @property
    def other_policies(self) -> Sequence[str]:
        """Return the names of the replicas whose policies differ from this replica's."""
        return self._neighbours.other_policies

    async def holders(self) -> Sequence[KeyHolder]:
        """Return which keys each replica holds. Raises `StoreUnavailable`."""
        self._neighbours.note(await self._store.leases())
        return self._neighbours.holders

    def publish(self, commit: Commit) -> Awaitable[None] | None:
        """Apply a commit of this process. If other replicas wrote before it, the result must be awaited."""
        events = commit.events
        if self._store.incarnations[-1] == self._incarnation and (
            not events or events[0].revision == self._feed.revision + 1
        ):
            self._apply(commit)
            if events:
                self._store.announce()
            return None
        return self._publish_after_others(commit)

    def report_keys(self, fingerprints: Sequence[bytes]) -> None:
        """Report soon that this replica holds these keys durably."""
        self._store.hold_keys(fingerprints)
        self._renewed = -_RENEW_EVERY
        self._hinted.set()

    def hint(self) -> None:
        """Look at the log soon."""
        self._hinted.set()

    async def run(self) -> None:
        """Follow the log until cancelled. While the store does not respond, the lease runs out."""
        self._store.on_announcement(self.hint)
        is_away = False
        while True:
            try:
                await self.step()
                if is_away:
                    is_away = False
                    _log.info("following again", revision=self._feed.revision)
            except StoreFailed:
                self._lease.end()
                return  # the journal or the sweeper stops the process
            except Unavailable as trouble:
                if not is_away:  # this is tried many times a second
                    is_away = True
                    _log.warning("following interrupted", error=str(trouble))
            except Exception:  # noqa: BLE001 - after a bug here the lease runs out, and the next look may work
                log_failure(_log, "following failed")
            await asyncio.sleep(_PAUSE)
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._hinted.wait()
            except TimeoutError:
                pass

    async def step(self) -> None:
        """Apply all events of the log, and renew the lease if it is time. Raises `StoreUnavailable`, `StoreFailed`."""
        self._hinted.clear()
        sent, incarnation = self._passed(), self._incarnation
        renews = sent - self._renewed >= _RENEW_EVERY
        if renews:
            acknowledged = self.applied(self._feed.revision)
            await self._store.renew(acknowledged, self.policies())
            self._acknowledged, self._renewed = acknowledged, sent
            self._neighbours.note(await self._store.leases())
            self._compare_policies()
        async with self._turn:
            await self._catch_up()
        if renews and self._incarnation == incarnation:  # otherwise the renewal may be lost with the end of the log
            self._lease.extend(sent, LEASE)
        if self._acknowledged != (revision := self.applied(self._feed.revision)):
            await self._store.acknowledge(revision)
            self._acknowledged = revision

    async def catch_up(self) -> None:
        """Apply everything that is committed now. Raises `StoreUnavailable`, `StoreFailed`."""
        async with self._turn:
            await self._catch_up()

    async def wait_for_replicas(self) -> None:
        """Wait until every replica has applied what is committed now, or can no longer answer from its cache.

        Every lease that was granted before this call has run out after its duration, and whoever renews one reads the
        log before counting on it. So this waits no longer than that.
        """
        revision = (await self._store.head()).revision
        over = self._passed() + LEASE + _ALLOWANCE
        if self._feed.revision < revision:
            await self.catch_up()
        while self._passed() < over:
            self._neighbours.note(await self._store.leases())
            if not self._neighbours.lagging(revision):
                return
            self._store.announce()
            await asyncio.sleep(_PAUSE)

    def _compare_policies(self) -> None:
        others = self._neighbours.other_policies
        if others != self._other_policies:
            self._other_policies = others
            _log.warning("replicas with other policies", replicas=list(others))

    async def _publish_after_others(self, commit: Commit) -> None:
        async with self._turn:
            await self._catch_up()  # applies the commit's own events too
            self._apply(replace(commit, events=(), callers=None, keys=None))
        self._store.announce()

    async def _catch_up(self) -> None:
        """Apply all events up to the head as it is now. On a busy log, following a head that moves would never end."""
        target = (await self._look()).revision
        while self._feed.revision < target:
            incarnation = self._incarnation
            events = await self._store.events(self._feed.revision, _PAGE)
            head = await self._look()
            if self._incarnation != incarnation:
                target = head.revision
                continue  # the events may come from after the loss, and what they follow from before
            # Own commits may have been applied in the meantime.
            fresh = [event for event in events if event.revision > self._feed.revision]
            if fresh:
                changed = tuple({event.session_id: None for event in fresh if event.session_id is not None})
                callers = None
                if any(event.type is EventType.CALLER_CHANGED for event in fresh):
                    callers = await self._store.callers()
                keys = None
                if any(event.type is EventType.KEY_RING_CHANGED for event in fresh):
                    keys = await self._store.keys()
                commit = Commit({}, {}, (), fresh, fresh[-1].revision, head.horizon, changed, callers, keys)
                self._apply(commit)
            elif not events:
                return

    async def _look(self) -> Head:
        """Return the log's head, after the feed has adopted its incarnation and its horizon."""
        head = await self._store.head()
        if self._store.incarnations[-1] != self._incarnation:
            self._change_incarnation()
        if head.horizon > self._feed.revision:
            _log.warning("events were deleted before they were read", horizon=head.horizon)
            self._forget()
            self._feed.skip_to(head.horizon)
        return head

    def _change_incarnation(self) -> None:
        """Adopt a new incarnation of the log. If it began before the newest event here, that event is lost."""
        runs = list(self._store.incarnations)
        known = [number for number, run in enumerate(runs[:-1]) if run == self._incarnation]
        end = min((run.first for run in runs[known[0] + 1 :]), default=1) - 1 if known else 0
        self._renewed = self._passed() - _RENEW_EVERY  # the store may have lost the last renewal
        if end < self._feed.revision:
            _log.error("the end of the log is lost", revision=self._feed.revision, continues_after=end)
            self._lease.end()
            self._forget()
        self._incarnation = runs[-1]
        self._feed.adopt(runs, Revision(end))
