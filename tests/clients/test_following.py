"""The rules that every cache of the authority keeps, one by one: its lease, its fence, its side of a stream."""

from __future__ import annotations

import pytest

from sessiond_client.following import Change, Fence, Follower, Lease, Resume, StreamBroken

DURATION = 5_000


class Recorder:
    """A cache that records what it is told."""

    def __init__(self) -> None:
        self.told: list[Change | str] = []

    def apply(self, change: Change) -> None:
        """Record a change."""
        self.told.append(change)

    def forget(self) -> None:
        """Record that everything must be dropped."""
        self.told.append("everything")


@pytest.fixture
def cache() -> Recorder:
    return Recorder()


@pytest.fixture
def follower(cache: Recorder) -> Follower:
    """A follower whose first stream has begun, and whose cache was told so."""
    follower = Follower(cache)
    assert follower.begin() == Resume("")
    start(follower)
    cache.told.clear()
    return follower


def start(follower: Follower, cursor: str = "c0", incarnation: str = "i1", fingerprint: str = "p1") -> None:
    """The first message of a stream arrives."""
    follower.received(1)
    follower.started(cursor, incarnation, fingerprint)


# The lease


def test_a_lease_begins_closed() -> None:
    """Without a grant there is no lease, at any time."""
    lease = Lease()
    assert not any(lease.is_valid(now) for now in (0, 1, 10**12))


@pytest.mark.parametrize("duration", [0, 1, 49, 50, 51, 99, 2_549, DURATION])
@pytest.mark.parametrize("fraction", [0, 1, 500, 998, 999])
def test_a_lease_ends_before_it_ends_for_the_authority(duration: int, fraction: int) -> None:
    """With a clock that is slow by 2 %, rounded down like the authority's, and no delay at all, it ends in time."""
    for microseconds in range(1_000):  # when the renewal is sent and granted, and when the authority's lease ends
        lease = Lease()
        lease.extend((microseconds * 98 + fraction * 100) // 100_000, duration)
        over = (microseconds // 1_000 + duration) * 1_000
        assert not lease.is_valid((over * 98 + fraction * 100) // 100_000)


def test_a_lease_is_of_use() -> None:
    """A lease lasts for most of its duration, and ends at one moment."""
    lease = Lease()
    lease.extend(1_000, DURATION)
    assert lease.is_valid(1_000 + DURATION * 97 // 100)
    assert lease.is_valid(lease.until - 1)
    assert not lease.is_valid(lease.until)


def test_a_lease_is_never_cut_short_by_a_grant() -> None:
    """A shorter or an older grant does not shorten a lease."""
    lease = Lease()
    lease.extend(1_000, DURATION)
    until = lease.until
    lease.extend(2_000, 0)
    lease.extend(0, DURATION)
    assert lease.until == until


def test_a_lease_can_be_ended() -> None:
    """A lease that was ended is not valid, and can be extended again."""
    lease = Lease()
    lease.extend(1_000, DURATION)
    lease.end()
    assert not lease.is_valid(1_000)
    lease.extend(2_000, DURATION)
    assert lease.is_valid(2_000)


# The fence


def test_a_read_that_nothing_overtook_may_be_kept() -> None:
    """Changes of other keys, and changes before the read began, do not matter."""
    fence: Fence[str] = Fence()
    fence.note("a")
    mark = fence.begin()
    fence.note("b")
    assert fence.holds(mark, "a")
    assert not fence.holds(mark, "b")


def test_changes_from_before_a_read_do_not_matter_while_another_is_open() -> None:
    """A read that began after a change holds, although the change is remembered for an older read."""
    fence: Fence[str] = Fence()
    older = fence.begin()
    fence.note("a")
    mark = fence.begin()
    assert fence.holds(mark, "a")
    assert not fence.holds(older, "a")
    fence.end()
    assert not fence.holds(older, "a")


def test_a_change_of_everything_overtakes_every_read() -> None:
    """After `note_all` no read that has begun holds for any key, and later ones do."""
    fence: Fence[str] = Fence()
    mark = fence.begin()
    fence.note_all()
    assert not fence.holds(mark, "a")
    assert fence.holds(fence.begin(), "a")


def test_nothing_is_remembered_without_reads() -> None:
    """Changes take memory only while a read is open."""
    fence: Fence[int] = Fence()
    for key in range(100):
        fence.note(key)
    assert not fence._changed
    fence.begin()
    fence.note(1)
    fence.end()
    assert not fence._changed


def test_a_read_older_than_what_is_remembered_is_not_kept() -> None:
    """With more changes than are remembered, the oldest reads hold for no key, and newer ones only for other keys."""
    fence: Fence[int] = Fence(most_remembered=3)
    oldest = fence.begin()
    fence.note(0)
    later = fence.begin()
    for key in (1, 2, 3):
        fence.note(key)
    assert len(fence._changed) == 3
    assert not fence.holds(oldest, 0)
    assert not fence.holds(oldest, 9)
    assert fence.holds(later, 0)
    assert not fence.holds(later, 1)


def test_a_key_that_changes_again_is_the_newest() -> None:
    """Of two changes of a key the later one counts, also when older changes are forgotten."""
    fence: Fence[int] = Fence(most_remembered=2)
    fence.begin()
    fence.note(1)
    fence.note(2)
    mark = fence.begin()
    fence.note(1)
    fence.note(3)
    assert not fence.holds(mark, 1)
    assert fence.holds(mark, 2)


# The stream


def test_the_first_stream_begins_with_nothing(cache: Recorder) -> None:
    """Without a position, what is kept is dropped, and the stream begins at the newest position."""
    follower = Follower(cache)
    assert follower.begin() == Resume("")
    assert cache.told == ["everything"]
    before = follower.is_streaming
    start(follower)
    assert (before, follower.is_streaming) == (False, True)
    assert follower.cursor == "c0"


def test_changes_reach_the_cache_in_order(follower: Follower, cache: Recorder) -> None:
    """Every change of a message reaches the cache in order, and then the position moves; a checkpoint moves it too."""
    follower.received(2)
    follower.applied("c1", [Change("a"), Change("b", "shop")])
    assert cache.told == [Change("a"), Change("b", "shop")]
    assert follower.cursor == "c1"
    follower.received(3)
    follower.applied("c2", [])
    assert follower.cursor == "c2"


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_message_out_of_turn_breaks_the_stream(follower: Follower, number: int) -> None:
    """A message that is repeated or follows a gap breaks the stream, and the lease ends with it."""
    follower.granted("c0", follower.renewal(0), DURATION)
    assert follower.lease.is_valid(1)
    with pytest.raises(StreamBroken):
        follower.received(number)
    assert not follower.lease.is_valid(1)
    with pytest.raises(StreamBroken):
        follower.received(2)  # nothing of this stream counts any more
    with pytest.raises(StreamBroken):
        follower.applied("c1", [])
    assert follower.cursor == "c0"


@pytest.mark.parametrize("first", ["events", "grant"])
def test_a_stream_begins_with_started(cache: Recorder, first: str) -> None:
    """A stream whose first message is anything else is broken."""
    follower = Follower(cache)
    follower.begin()
    nonce = follower.renewal(0)
    follower.received(1)
    with pytest.raises(StreamBroken):  # noqa: PT012 - one of two calls
        if first == "events":
            follower.applied("c1", [])
        else:
            follower.granted("c1", nonce, DURATION)
    assert not follower.lease.is_valid(0)


def test_a_message_before_any_stream(cache: Recorder) -> None:
    """Nothing is received without a stream."""
    with pytest.raises(StreamBroken):
        Follower(cache).received(1)


def test_a_lease_counts_from_before_it_was_asked_for(follower: Follower) -> None:
    """However late the grant arrives, the lease ends when it would have ended with a grant at once."""
    nonce = follower.renewal(1_000)
    prompt = Lease()
    prompt.extend(1_000, DURATION)
    follower.received(2)
    follower.granted("c1", nonce, DURATION)
    assert follower.lease.until == prompt.until
    assert follower.cursor == "c1"


def test_a_grant_that_was_not_asked_for(follower: Follower) -> None:
    """A grant with an unknown nonce, and a second one for the same renewal, have no effect."""
    nonce = follower.renewal(1_000)
    follower.granted("c0", nonce + 1, DURATION)
    assert not follower.lease.is_valid(1_000)
    follower.granted("c0", nonce, DURATION)
    until = follower.lease.until
    follower.granted("c0", nonce, 10 * DURATION)
    assert follower.lease.until == until


def test_a_grant_overtakes_older_renewals(follower: Follower) -> None:
    """Renewals are answered in order, so those before the one that was granted are not remembered."""
    first, second, third = (follower.renewal(now) for now in (1_000, 2_000, 3_000))
    follower.granted("c0", second, DURATION)
    until = follower.lease.until
    follower.granted("c0", first, 10 * DURATION)
    assert follower.lease.until == until
    follower.granted("c0", third, DURATION)
    assert follower.lease.until > until


def test_a_grant_of_an_earlier_stream_does_not_count(follower: Follower) -> None:
    """What was asked for on a broken stream is not granted by the next one."""
    nonce = follower.renewal(1_000)
    follower.broken()
    follower.begin()
    start(follower)
    follower.granted("c0", nonce, DURATION)
    assert not follower.lease.is_valid(1_000)


def test_a_lease_that_was_released_does_not_come_back(follower: Follower) -> None:
    """After a release neither the lease counts nor a grant that was asked for before; only a later renewal counts."""
    follower.granted("c0", follower.renewal(1_000), DURATION)
    on_the_way = follower.renewal(1_100)
    follower.released()
    assert not follower.lease.is_valid(1_100)
    follower.granted("c0", on_the_way, DURATION)
    assert not follower.lease.is_valid(1_100)
    follower.granted("c0", follower.renewal(1_200), DURATION)
    assert follower.lease.is_valid(1_200)


def test_a_broken_stream_closes_the_cache_and_keeps_what_it_has(follower: Follower, cache: Recorder) -> None:
    """A stream that breaks ends the lease; the next one resumes after what was applied, with nothing dropped."""
    follower.granted("c7", follower.renewal(1_000), DURATION)
    follower.broken()
    assert not follower.lease.is_valid(1_000)
    assert follower.begin() == Resume("c7")
    start(follower, "c7")
    assert cache.told == []
    assert not follower.lease.is_valid(1_000)


@pytest.mark.parametrize("identity", [("i2", "p1"), ("i1", "p2")])
def test_another_incarnation_or_other_policies(follower: Follower, cache: Recorder, identity: tuple[str, str]) -> None:
    """Everything is dropped if the incarnation or the policies changed, on a new stream and in the middle of one."""
    follower.broken()
    follower.begin()
    start(follower, "c0", *identity)
    assert cache.told == ["everything"]
    follower.received(2)
    follower.started("c0", *identity)
    assert cache.told == ["everything"]
    follower.received(3)
    follower.started("c1", "i3", "p3")
    assert cache.told == ["everything", "everything"]
    assert follower.cursor == "c1"


def test_a_position_that_no_longer_exists(follower: Follower, cache: Recorder) -> None:
    """After a lost position everything is dropped, and the next stream begins at the newest position."""
    follower.granted("c0", follower.renewal(1_000), DURATION)
    follower.lost()
    assert not follower.lease.is_valid(1_000)
    assert cache.told == ["everything"]
    assert follower.begin() == Resume("")
