"""The caches that follow this process: until when each of them may answer, and what it has applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Millis, Revision
from sessiond.store.shared import LEASE

__all__ = ["CacheLease", "FollowingCaches", "LeaseRules"]

_ALLOWANCE = LEASE // 50
"""Milliseconds that a lease may take longer by another clock."""
_LOOK_EVERY = 0.05
"""Seconds after which somebody who waits looks at the leases again."""


@immutable
class LeaseRules:
    """What limits the leases that this process grants.

    passed           milliseconds of a clock that never goes backwards
    until            until when this process may grant leases: the end of its own lease, if it holds one in a store
    unknown_until    until when caches may hold a lease of an earlier process over the same store
    asks_always      whether somebody outside of this process may wait for an acknowledgement
    on_acknowledged  called when a cache has acknowledged something
    """

    passed: Callable[[], int]
    until: Callable[[], int] | None = None
    unknown_until: int = 0
    asks_always: bool = False
    on_acknowledged: Callable[[], None] = lambda: None


class CacheLease:
    """What this process knows of one cache, for one stream. It counts until the lease ends, even after the stream.

    `applied` returns up to where the cache has certainly applied the log, and `wake` makes its stream look at
    `is_asked`: whether the cache must acknowledge the next message at once.
    """

    def __init__(self, name: str, applied: Callable[[], Revision], wake: Callable[[], None]) -> None:
        self.name = name
        self.applied = applied
        self.wake = wake
        self.until = 0
        self.is_asked = False
        self.has_left = False


class FollowingCaches:
    """Grants leases to caches, and waits for them.

    A lease that is granted ends here after its duration, counted from now. The cache counts from before it asked, so
    its lease ends first.
    """

    def __init__(self, rules: LeaseRules) -> None:
        self._rules = rules
        self._leases: set[CacheLease] = set()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Return how many caches follow this process, or may still answer."""
        self._alive()
        return len(self._leases)

    @property
    def asks_always(self) -> bool:
        """Return whether every message must be acknowledged at once."""
        return self._rules.asks_always

    def join(self, name: str, applied: Callable[[], Revision], wake: Callable[[], None]) -> CacheLease:
        """Add a cache; see `CacheLease`."""
        lease = CacheLease(name, applied, wake)
        self._leases.add(lease)
        return lease

    def leave(self, lease: CacheLease, applied: Callable[[], Revision]) -> None:
        """Note that a cache's stream has ended. The cache may not know that yet, so its lease stays.

        `applied` replaces the function of that name, of which the stream was a part.
        """
        lease.has_left, lease.wake, lease.applied = True, _nothing, applied
        self._alive()

    def grant(self, lease: CacheLease) -> Millis:
        """Extend a cache's lease. Return its duration, 0 if this process has no lease of its own now."""
        now, duration = self._rules.passed(), int(LEASE)
        if self._rules.until is not None:
            duration = max(0, min(duration, self._rules.until() - now))
        lease.until = max(lease.until, now + duration)
        return Millis(duration)

    def release(self, lease: CacheLease) -> None:
        """Note that a cache has stopped answering, until it is granted another lease."""
        if lease.until:
            lease.until = 0
            self._wake()

    def progressed(self) -> None:
        """Note that a cache has applied more than before."""
        self._wake()

    def applied(self, revision: Revision) -> Revision:
        """Return up to where every cache that may answer has applied the log, at most `revision`."""
        return min((revision, *(lease.applied() for lease in self._alive())))

    async def wait_for(self, revision: Revision) -> None:
        """Wait until every cache has applied the log up to a revision, or can no longer answer from what it keeps.

        The revision must be published here already. Then a lease that is granted from now on follows its events, so
        the cache applies them before it counts on that lease: this waits only for the leases as they are now. A cache
        that goes on renewing its lease and acknowledges nothing cannot hold it up for longer.
        """
        granted = [(lease, lease.until) for lease in self._alive()]
        while lagging := [lease for lease, until in granted if self._lags(lease, until, revision)]:
            for lease in lagging:
                if not lease.is_asked:
                    lease.is_asked = True
                    lease.wake()
            await self._wait()
        while self._rules.passed() < self._rules.unknown_until:
            await self._wait()

    def _lags(self, lease: CacheLease, until: int, revision: Revision) -> bool:
        """Return whether a cache may still answer without a revision, with the lease that ends at `until`."""
        return self._rules.passed() < min(until, lease.until) and lease.applied() < revision

    def may_answer(self) -> bool:
        """Return whether any cache may still answer from what it keeps."""
        return bool(self._alive())

    async def _wait(self) -> None:
        changed = self._changed
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_EVERY):
                await changed.wait()

    def _wake(self) -> None:
        # Each waiter holds the `asyncio.Event` that it waits on; later waiters get a new one.
        self._changed.set()
        self._changed = asyncio.Event()
        self._rules.on_acknowledged()

    def _alive(self) -> list[CacheLease]:
        now = self._rules.passed()
        gone = [lease for lease in self._leases if lease.has_left and lease.until <= now]
        self._leases.difference_update(gone)
        return [lease for lease in self._leases if lease.until > now]


def _nothing() -> None:
    """Stand in for the stream that has ended."""
