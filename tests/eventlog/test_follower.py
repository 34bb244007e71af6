"""The follower by itself, over a log to which others write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sessiond.domain.event import Event, EventType
from sessiond.domain.position import Incarnation
from sessiond.domain.values import Cause, CauseKind, ClientContext, Instant, Revision
from sessiond.eventlog.feed import Feed
from sessiond.eventlog.follower import Follower
from sessiond.store.contract import Commit, Head
from sessiond.store.shared import ReplicaLease, SharedStore
from sessiond_client.following import Lease


def event(revision: int) -> Event:
    """An event at that place of the log."""
    cause, client = Cause(CauseKind.REQUEST), ClientContext()
    kind = EventType.SESSION_CREATED
    return Event(Revision(revision), kind, Instant(revision), "default", "ada", None, cause, client)


class BusyLog:
    """The part of a shared store that a follower uses. Others commit an event before each read of the head."""

    replica = b"own"
    incarnations: Sequence[Incarnation] = (Incarnation(b"run    0", Revision(1)),)

    def __init__(self) -> None:
        self.length = 0
        self.acknowledged = Revision(0)

    async def head(self) -> Head:
        """As `Store.head`."""
        self.length += 1
        await asyncio.sleep(0)
        return Head(Revision(self.length), Revision(0))

    async def events(self, after: Revision, limit: int) -> list[Event]:
        """As `Store.events`."""
        await asyncio.sleep(0)
        return [event(revision) for revision in range(after + 1, self.length + 1)][:limit]

    async def renew(self, acknowledged: Revision, policies: str) -> None:
        """As `SharedStore.renew`."""
        del policies
        self.acknowledged = acknowledged

    async def acknowledge(self, revision: Revision) -> None:
        """As `SharedStore.acknowledge`."""
        self.acknowledged = revision

    async def leases(self) -> Sequence[ReplicaLease]:
        """As `SharedStore.leases`."""
        return ()

    def announce(self) -> None:
        """As `SharedStore.announce`."""

    def on_announcement(self, hint: Callable[[], None]) -> None:
        """As `SharedStore.on_announcement`."""


def following(store: BusyLog) -> tuple[Follower, Feed, Lease]:
    """A follower of a log, with what it keeps, at a time that stands still."""
    shared: SharedStore = store  # type: ignore[assignment]  # the part that a follower uses
    feed = Feed(Head(Revision(0), Revision(0)), shared)
    lease = Lease()

    def apply(commit: Commit) -> None:
        feed.publish(commit.events, commit.horizon)

    return Follower(shared, feed, lease, apply, lambda: None, lambda: 0), feed, lease


async def test_a_busy_log_does_not_keep_the_follower_from_its_lease() -> None:
    """Others may write faster than the follower reads: it applies what was there when it looked, and has its lease."""
    store = BusyLog()
    follower, feed, lease = following(store)
    async with asyncio.timeout(5):
        await follower.step()
    assert lease.is_valid(0)
    assert store.acknowledged == feed.revision == 1


class SetBackLog(BusyLog):
    """A log whose database was replaced between the renewal and the look at the head."""

    async def renew(self, acknowledged: Revision, policies: str) -> None:
        """As `SharedStore.renew`; the first renewal is lost with the end of the log."""
        await super().renew(acknowledged, policies)
        if len(self.incarnations) == 1:
            self.incarnations = (*self.incarnations, Incarnation(b"run    1", Revision(1)))


async def test_a_renewal_that_may_be_lost_is_no_lease() -> None:
    """If the log changes its incarnation after a renewal, the follower renews again before it counts on a lease."""
    follower, _, lease = following(SetBackLog())
    await follower.step()
    assert not lease.is_valid(0)
    await follower.step()
    assert lease.is_valid(0)
