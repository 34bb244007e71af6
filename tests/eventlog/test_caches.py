"""The caches that follow this process: what it grants them, and for how long it waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import pytest

from sessiond.authority.following import Following, Granted, News, Started, Stream
from sessiond.authority.policy_book import PolicyBook
from sessiond.domain.event import EventType
from sessiond.domain.policy import PRESETS
from sessiond.domain.position import Incarnation
from sessiond.domain.values import Revision
from sessiond.eventlog.caches import FollowingCaches, LeaseRules
from sessiond.eventlog.feed import Feed
from sessiond.store.shared import LEASE
from tests.eventlog.test_feed import Log, event
from tests.support.held import until


class Passed:
    """Milliseconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        """Return the time."""
        return self.now


@pytest.fixture
def passed() -> Passed:
    return Passed()


class Cache:
    """A cache that acknowledges when a test says so."""

    def __init__(self, caches: FollowingCaches, name: str = "cache") -> None:
        self.caches = caches
        self.applied = Revision(0)
        self.woken = 0
        self.lease = caches.join(name, lambda: self.applied, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def acknowledge(self, revision: int) -> None:
        """Acknowledge a revision."""
        self.applied = Revision(revision)
        self.caches.progressed()

    def leave(self) -> None:
        """End the stream."""
        applied = self.applied
        self.caches.leave(self.lease, lambda: applied)


@asynccontextmanager
async def waiting(caches: FollowingCaches, revision: int) -> AsyncIterator[asyncio.Task[None]]:
    """Somebody waits until every cache has applied a revision."""
    task = asyncio.create_task(caches.wait_for(Revision(revision)))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ends(task: asyncio.Task[None]) -> None:
    """The wait ends soon."""
    async with asyncio.timeout(5):
        await task


async def looks(task: asyncio.Task[None], caches: FollowingCaches) -> None:
    """Let who waits look at the leases; he must go on waiting."""
    for _ in range(3):
        caches.progressed()
        await asyncio.sleep(0.001)
    assert not task.done()


# Waiting


async def test_nobody_is_waited_for_without_a_lease(passed: Passed) -> None:
    """A cache that was granted nothing holds nobody up, and is not asked."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    await ends(asyncio.create_task(caches.wait_for(Revision(1))))
    assert (cache.woken, cache.lease.is_asked, caches.may_answer()) == (0, False, False)


async def test_nobody_waits_if_no_cache_lags(passed: Passed) -> None:
    """If every cache has applied the revision, the wait is over without a pause, and no cache is asked."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    caches.grant(cache.lease)
    cache.acknowledge(7)
    waits = caches.wait_for(Revision(7))
    with pytest.raises(StopIteration):
        waits.send(None)  # it has ended without waiting for anything
    assert not cache.lease.is_asked


async def test_each_lagging_cache_is_asked_once(passed: Passed) -> None:
    """Caches that lag are asked and woken, others are not, and the last acknowledgement ends the wait."""
    caches = FollowingCaches(LeaseRules(passed))
    ahead, late, later = Cache(caches), Cache(caches), Cache(caches)
    for cache in (ahead, late, later):
        caches.grant(cache.lease)
    ahead.applied = Revision(5)
    async with waiting(caches, 5) as task:
        assert [cache.woken for cache in (ahead, late, later)] == [0, 1, 1]
        await looks(task, caches)
        assert [cache.woken for cache in (ahead, late, later)] == [0, 1, 1]
        late.acknowledge(5)
        await looks(task, caches)
        later.acknowledge(4)
        await looks(task, caches)
        later.acknowledge(6)
        await ends(task)


async def test_a_cache_that_was_asked_in_vain_is_asked_again(passed: Passed) -> None:
    """If the stream has sent what it was asked for and the cache still lags, it is asked again."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    caches.grant(cache.lease)
    async with waiting(caches, 5) as task:
        cache.lease.is_asked = False  # the stream has asked, for less than this
        await looks(task, caches)
        assert (cache.lease.is_asked, cache.woken) == (True, 2)


async def test_a_silent_cache_is_waited_for_until_its_lease_ends(passed: Passed) -> None:
    """The wait lasts exactly as long as the lease, by the clock of this process, and that clock is looked at."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    assert caches.grant(cache.lease) == LEASE
    async with waiting(caches, 5) as task:
        passed.now += LEASE - 1
        await looks(task, caches)
        passed.now += 1
        await ends(task)  # nobody calls: the clock alone has moved
    assert not caches.may_answer()


async def test_a_cache_that_renews_and_never_acknowledges(passed: Passed) -> None:
    """Renewals do not prolong a wait that has begun: what is granted since then follows the events."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    caches.grant(cache.lease)
    async with waiting(caches, 5) as task:
        for _ in range(4):
            passed.now += LEASE // 4
            caches.grant(cache.lease)
        await ends(task)
    assert caches.may_answer()


async def test_a_cache_that_comes_later_is_not_waited_for(passed: Passed) -> None:
    """A cache that is granted its first lease during a wait has got every event before it."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    caches.grant(cache.lease)
    async with waiting(caches, 5) as task:
        late = Cache(caches)
        caches.grant(late.lease)
        cache.acknowledge(5)
        await ends(task)


async def test_a_lease_counts_after_its_stream(passed: Passed) -> None:
    """A cache whose stream has ended is waited for until its lease ends; then it is forgotten."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    caches.grant(cache.lease)
    passed.now += 1_000
    cache.leave()
    assert (len(caches), caches.applied(Revision(9))) == (1, 0)
    async with waiting(caches, 5) as task:
        cache.applied = Revision(5)  # too late: nothing comes from this cache any more
        passed.now += LEASE - 1_001
        await looks(task, caches)
        assert caches.may_answer()
        passed.now += 1
        await ends(task)
    assert (cache.woken, len(caches), caches.applied(Revision(9))) == (0, 0, 9)


async def test_a_stream_without_a_lease_is_forgotten_when_it_ends(passed: Passed) -> None:
    """Nothing is kept of a cache that left without a lease."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    assert len(caches) == 1
    cache.leave()
    assert not caches._leases


async def test_a_release_ends_the_wait(passed: Passed) -> None:
    """A cache that gives its lease up is not waited for, whether its stream goes on or not."""
    caches = FollowingCaches(LeaseRules(passed))
    cache = Cache(caches)
    caches.grant(cache.lease)
    async with waiting(caches, 5) as task:
        caches.release(cache.lease)
        await ends(task)
    assert not caches.may_answer()


async def test_unknown_leases_of_an_earlier_process(passed: Passed) -> None:
    """Until the leases that an earlier process may have granted are over, every wait lasts, even without caches."""
    caches = FollowingCaches(LeaseRules(passed, unknown_until=passed.now + 100))
    async with waiting(caches, 1) as task:
        passed.now += 99
        await looks(task, caches)
        passed.now += 1
        await ends(task)


# Granting


@pytest.mark.parametrize(("own", "granted"), [(0, 0), (-1, 0), (1, 1), (LEASE - 1, LEASE - 1), (LEASE + 1, LEASE)])
async def test_a_grant_ends_with_the_own_lease(passed: Passed, own: int, granted: int) -> None:
    """A process grants no more than it holds itself, and nothing without a lease of its own."""
    caches = FollowingCaches(LeaseRules(passed, lambda: passed.now + own))
    cache = Cache(caches)
    assert caches.grant(cache.lease) == granted
    assert caches.may_answer() is (granted > 0)
    passed.now += granted
    assert not caches.may_answer()


async def test_a_lease_that_never_was(passed: Passed) -> None:
    """A process that has never held a lease grants nothing."""
    caches = FollowingCaches(LeaseRules(passed, lambda: 0))
    assert caches.grant(Cache(caches).lease) == 0
    assert not caches.may_answer()


async def test_a_shorter_grant_does_not_shorten_a_lease(passed: Passed) -> None:
    """A cache counts with its longest grant, so this process does too."""
    own = passed.now + 4_000
    caches = FollowingCaches(LeaseRules(passed, lambda: own))
    cache = Cache(caches)
    assert caches.grant(cache.lease) == 4_000
    own = 0
    assert caches.grant(cache.lease) == 0
    passed.now += 3_999
    assert caches.may_answer()


async def test_what_all_caches_have_applied(passed: Passed) -> None:
    """The position that holds in every cache is the oldest of those that may answer, and at most what is asked."""
    caches = FollowingCaches(LeaseRules(passed))
    one, other, idle = Cache(caches), Cache(caches), Cache(caches)
    caches.grant(one.lease)
    caches.grant(other.lease)
    one.applied, other.applied, idle.applied = Revision(8), Revision(5), Revision(1)
    assert (caches.applied(Revision(9)), caches.applied(Revision(3))) == (5, 3)
    caches.release(other.lease)
    assert caches.applied(Revision(9)) == 8


async def test_an_acknowledgement_is_passed_on(passed: Passed) -> None:
    """Whoever tells other replicas is told of acknowledgements and releases, and not of releases of nothing."""
    told: list[None] = []
    caches = FollowingCaches(LeaseRules(passed, on_acknowledged=lambda: told.append(None)))
    cache = Cache(caches)
    caches.release(cache.lease)
    assert not told
    cache.acknowledge(1)
    caches.grant(cache.lease)
    caches.release(cache.lease)
    caches.release(cache.lease)
    assert len(told) == 2


# With a feed


@dataclass
class Followed:
    """A stream over a feed, what it has sent, and the log behind it."""

    log: Log
    feed: Feed
    policies: PolicyBook
    caches: FollowingCaches
    stream: Stream
    sent: list[tuple[Started | News | Granted, bool]]

    def revisions(self) -> list[int]:
        """The revisions of the events that were sent."""
        return [one.revision for message, _ in self.sent if isinstance(message, News) for one in message.events]


@asynccontextmanager
async def followed(passed: Callable[[], int], gate: asyncio.Event | None = None) -> AsyncIterator[Followed]:
    """Follow a log from its revision 3. If there is a gate, each message waits for it when it is written."""
    log = Log(length=3)
    feed = Feed(await log.head(), log)
    caches, policies = FollowingCaches(LeaseRules(passed)), PolicyBook({"default": PRESETS["owasp-low"]})
    following = Following(feed, policies, caches)
    sent: list[tuple[Started | News | Granted, bool]] = []
    with following.stream(Revision(3), frozenset({"shop"}), "cache") as stream:

        async def write() -> None:
            async for message in stream.messages():
                sent.append(message)
                if gate is not None:
                    await gate.wait()

        task = asyncio.create_task(write())
        await until(lambda: bool(sent))
        yield Followed(log, feed, policies, caches, stream, sent)
        stream.end()
        if gate is not None:
            gate.set()
        with suppress(Exception):
            await task


def publish(followed: Followed, *applications: str) -> None:
    """Publish one revocation in each of the applications."""
    events = [
        replace(event(followed.feed.revision + number), type=EventType.SESSION_REVOKED, application=application)
        for number, application in enumerate(applications, 1)
    ]
    followed.log.all.extend(events)
    followed.feed.publish(events, Revision(0))


async def test_changes_that_do_not_concern_a_cache(passed: Passed) -> None:
    """A cache that has acknowledged all events that concern it does not hold up a wait for other events."""
    async with followed(passed) as one:
        one.stream.renew(1)
        await until(lambda: isinstance(one.sent[-1][0], Granted))
        publish(one, "default", "default")
        waits = one.caches.wait_for(one.feed.revision)
        with pytest.raises(StopIteration):
            waits.send(None)
        publish(one, "shop")
        await until(lambda: one.revisions() == [6])
        async with waiting(one.caches, one.feed.revision) as task:
            await looks(task, one.caches)
            one.stream.acknowledge(one.feed.published(Revision(6)))
            await ends(task)


async def test_who_waits_is_served_at_once(passed: Passed) -> None:
    """A cache that got its events before anybody waited is asked to acknowledge them by a message without events."""
    async with followed(passed) as one:
        one.stream.renew(1)
        await until(lambda: isinstance(one.sent[-1][0], Granted))
        publish(one, "shop")
        await until(lambda: one.revisions() == [4])
        assert one.sent[-1][1] is False
        async with waiting(one.caches, 4) as task:
            await until(lambda: one.sent[-1] == (News([]), True))
            one.stream.acknowledge(one.feed.published(Revision(4)))
            await ends(task)


async def test_renewals_from_before_a_release_are_granted_nothing(passed: Passed) -> None:
    """A renewal that waits when its cache gives up the lease gets the duration 0; a later one gets a lease."""
    async with followed(passed) as one:
        one.stream.renew(1)
        one.stream.release()
        one.stream.renew(2)
        await until(lambda: isinstance(one.sent[-1][0], Granted) and one.sent[-1][0].nonce == 2)
        grants = [message for message, _ in one.sent if isinstance(message, Granted)]
        assert [(grant.nonce, grant.duration) for grant in grants] == [(1, 0), (2, LEASE)]


# The end of the log is lost


def set_back(one: Followed, end: int) -> None:
    """Lose the log after a revision; a new incarnation goes on from there."""
    del one.log.all[end:]
    one.log.incarnations = [*one.log.incarnations, Incarnation(b"new  run", Revision(end + 1))]
    one.feed.adopt(one.log.incarnations, Revision(end))


@pytest.mark.parametrize("has_left", [False, True], ids=["stream goes on", "stream has ended"])
async def test_what_was_acknowledged_of_a_lost_log_does_not_count(passed: Passed, has_left: bool) -> None:
    """A cache that has applied a lost event is waited for when another event gets its revision."""
    gate = asyncio.Event()
    gate.set()
    async with followed(passed, gate) as one:
        one.stream.renew(1)
        await until(lambda: isinstance(one.sent[-1][0], Granted))
        publish(one, "shop", "shop")
        await until(lambda: one.revisions() == [4, 5])
        one.stream.acknowledge(one.feed.published(Revision(5)))
        assert one.caches.applied(Revision(5)) == 5
        gate.clear()
        if has_left:
            one.stream.leave()
        set_back(one, 4)
        assert one.caches.applied(Revision(5)) == 4
        publish(one, "shop", "default")
        assert one.caches.applied(Revision(6)) == 4
        async with waiting(one.caches, 5) as task:
            await looks(task, one.caches)
            passed.now += LEASE
            await ends(task)


async def test_no_grant_from_a_lost_log(passed: Passed) -> None:
    """A stream that was writing while the log was set back grants nothing any more, however long the log is again."""
    gate = asyncio.Event()
    gate.set()
    async with followed(passed, gate) as one:
        gate.clear()
        publish(one, "shop", "shop")
        await until(lambda: one.revisions() == [4, 5])
        one.stream.renew(1)
        set_back(one, 4)
        publish(one, "shop")
        gate.set()
        await settle()
        assert not one.caches.may_answer()
        assert not any(isinstance(message, Granted) for message, _ in one.sent)


async def test_other_policies_before_a_grant(passed: Passed) -> None:
    """If the policies change while events are written, the cache is told before it is granted a lease."""
    gate = asyncio.Event()
    gate.set()
    async with followed(passed, gate) as one:
        gate.clear()
        publish(one, "shop")
        await until(lambda: one.revisions() == [4])
        one.stream.renew(1)
        one.policies.replace({"default": PRESETS["owasp-high"]}, {})
        gate.set()
        await until(lambda: isinstance(one.sent[-1][0], Granted))
        assert [type(message) for message, _ in one.sent] == [Started, News, Started, Granted]


async def settle() -> None:
    """Let the stream go on."""
    for _ in range(50):
        await asyncio.sleep(0.0005)
