"""The feed by itself: the seam between the tail in memory and the pages of the store, the horizon, the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import product

import pytest

from sessiond.domain.errors import PositionOutOfRange, Unavailable
from sessiond.domain.event import Event, EventFilter, EventType
from sessiond.domain.position import Incarnation, Position
from sessiond.domain.values import Cause, CauseKind, ClientContext, Instant, Labels, Revision
from sessiond.eventlog.feed import Checkpoint, Feed
from sessiond.store.contract import Head

EVERYTHING = EventFilter()
AN_HOUR = 3600.0


def event(revision: int, subject: str = "ada") -> Event:
    """An event at that place of the log."""
    return Event(
        Revision(revision),
        EventType.SESSION_CREATED,
        Instant(revision),
        "default",
        subject,
        None,
        Cause(CauseKind.REQUEST),
        ClientContext(),
    )


class Log:
    """A log, what was read of it, and what happens while a read is under way.

    `ends` are the ends of its earlier runs.
    """

    def __init__(self, length: int = 0, horizon: int = 0, ends: Sequence[int] = ()) -> None:
        self.all = [event(revision) for revision in range(horizon + 1, length + 1)]
        self.reads: list[tuple[int, int]] = []
        self.heads = 0
        self.reading = asyncio.Event()
        self.at_start = Head(Revision(length), Revision(horizon))
        self.ahead = 0
        firsts = [1, *(end + 1 for end in ends)]
        self.incarnations: Sequence[Incarnation] = [
            Incarnation(b"run %4d" % number, Revision(first)) for number, first in enumerate(firsts)
        ]

    async def head(self) -> Head:
        """As `Store.head`: what this process has published, and what others have committed beside it."""
        self.heads += 1
        length = self.all[-1].revision if self.all else self.at_start.revision
        return Head(Revision(length + self.ahead), self.at_start.horizon)

    def at(self, revision: int, run: int = -1) -> Position:
        """A position of one of its runs, by default the last."""
        return Position(self.incarnations[run].id, Revision(revision))

    async def events(self, after: Revision, limit: int) -> Sequence[Event]:
        """As `Store.events`."""
        self.reads.append((after, limit))
        self.reading.set()
        await asyncio.sleep(0)
        return [event for event in self.all if event.revision > after][:limit]

    def append(self, feed: Feed, count: int) -> None:
        """Commit so many events in one group."""
        first = self.all[-1].revision + 1 if self.all else 1
        group = [event(revision) for revision in range(first, first + count)]
        self.all += group
        feed.publish(group, feed.horizon)

    def prune(self, feed: Feed, horizon: int) -> None:
        """Drop the log up to there."""
        self.all = [event for event in self.all if event.revision > horizon]
        feed.publish([], Revision(horizon))


async def drain(stream: AsyncIterator[Event | Checkpoint], items: list[Event | Checkpoint]) -> None:
    """Add what comes to `items`, to the end of the stream."""
    async for item in stream:
        items.append(item)


async def told(feed: Feed, after: int, wanted: EventFilter = EVERYTHING) -> list[Event | Checkpoint]:
    """All that a subscriber of a feed that closes is told."""
    feed.close()
    return [item async for item in feed.subscribe(Revision(after), wanted, AN_HOUR)]


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 20])
async def test_every_start_gets_exactly_the_rest(length: int) -> None:
    """From each position, before, at and after the seam of store and tail, the rest comes once and in order."""
    for tail, after in product((1, 3, 8), range(length + 1)):
        log = Log()
        feed = Feed(log.at_start, log, tail_length=tail)
        for _ in range(length):
            log.append(feed, 1)
        items = await told(feed, after)
        assert items[0] == Checkpoint(Revision(after))
        assert items[1:-1] == log.all[after:]
        assert items[-1] == Checkpoint(Revision(length))


@pytest.mark.parametrize(("after", "reads"), [(10, 0), (9, 0), (6, 0), (5, 0), (4, 1), (0, 1)], ids=str)
async def test_the_store_is_asked_only_for_what_the_tail_has_lost(after: int, reads: int) -> None:
    """With a tail of the events 6 to 10, a subscriber at 5 needs no store, one at 4 does."""
    log = Log()
    feed = Feed(log.at_start, log, tail_length=5)
    log.append(feed, 10)
    items = await told(feed, after)
    assert [item.revision for item in items[1:-1]] == list(range(after + 1, 11))
    assert len(log.reads) == reads


async def test_a_backlog_is_read_in_bounded_pages() -> None:
    """A long backlog of a fresh process comes from the store page after page, none of them larger than another."""
    log = Log(length=2100)
    feed = Feed(log.at_start, log)
    items = await told(feed, 0)
    assert items[1:-1] == log.all
    assert len({limit for _, limit in log.reads}) == 1
    assert len(log.reads) > 3
    assert [after for after, _ in log.reads] == [number * log.reads[0][1] for number in range(len(log.reads))]


async def test_events_published_while_a_page_is_read_follow_it() -> None:
    """What is committed while a subscriber reads from the store comes after the page, once."""
    log = Log(length=600)
    feed = Feed(log.at_start, log, tail_length=50)
    stream = feed.subscribe(Revision(0), EVERYTHING, AN_HOUR)
    items = [await anext(stream)]
    for batch in range(30):
        items += [await anext(stream) for _ in range(10)]
        log.append(feed, 7 + batch % 3)
    feed.close()
    items += [item async for item in stream]
    assert items[1:-1] == log.all
    assert items[-1] == Checkpoint(log.all[-1].revision)


async def test_a_waiting_subscriber_is_woken_by_a_commit() -> None:
    """A subscriber that waits at the head is told of the next event, long before its next checkpoint is due."""
    log = Log()
    feed = Feed(log.at_start, log)
    stream = feed.subscribe(Revision(0), EVERYTHING, AN_HOUR)
    assert await anext(stream) == Checkpoint(Revision(0))
    for number in range(1, 50):
        waiting = asyncio.ensure_future(anext(stream))
        for _ in range(number % 4):  # a commit before, as and after the subscriber begins to wait
            await asyncio.sleep(0)
        log.append(feed, 1)
        assert await asyncio.wait_for(waiting, 5) == log.all[-1]


async def test_many_waiting_subscribers_are_all_woken() -> None:
    """One commit wakes every subscriber, and closing wakes them again."""
    log = Log()
    feed = Feed(log.at_start, log)

    async def follow() -> list[Event | Checkpoint]:
        return [item async for item in feed.subscribe(Revision(0), EVERYTHING, AN_HOUR)]

    followers = [asyncio.create_task(follow()) for _ in range(20)]
    await asyncio.sleep(0)
    log.append(feed, 3)
    await asyncio.sleep(0)
    feed.close()
    for items in await asyncio.wait_for(asyncio.gather(*followers), 5):
        assert items == [Checkpoint(Revision(0)), *log.all, Checkpoint(Revision(3))]


async def test_the_horizon_overtakes_a_subscriber_out_loud() -> None:
    """A subscriber whose next event was pruned gets PositionOutOfRange that names the horizon, never a later event."""
    log = Log(length=1200)
    feed = Feed(log.at_start, log)
    stream = feed.subscribe(Revision(0), EVERYTHING, AN_HOUR)
    items = [await anext(stream) for _ in range(101)]  # a checkpoint and 100 events of the first page
    log.prune(feed, 1100)
    with pytest.raises(PositionOutOfRange, match="1100"):
        await drain(stream, items)
    revisions = [item.revision for item in items[1:]]
    assert revisions == list(range(1, len(revisions) + 1))
    assert revisions[-1] < 1100


async def test_the_horizon_moves_while_a_page_is_read() -> None:
    """Pruning between the check and the read of a page is noticed: the page that would leave a gap is not told."""
    log = Log(length=1200)
    feed = Feed(log.at_start, log)
    stream = feed.subscribe(Revision(0), EVERYTHING, AN_HOUR)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await log.reading.wait()
    log.prune(feed, 700)
    with pytest.raises(PositionOutOfRange):
        await waiting


@pytest.mark.parametrize("after", [3, 4, 10])
async def test_horizon_and_head_can_be_resumed_from(after: int) -> None:
    """A cursor exactly at the horizon is good, and so is one exactly at the head."""
    log = Log(length=10, horizon=3)
    items = await told(Feed(log.at_start, log), after)
    assert [item.revision for item in items[1:-1]] == list(range(after + 1, 11))


@pytest.mark.parametrize("after", [0, 2, 11])
async def test_what_cannot_be_resumed_from_is_refused(after: int) -> None:
    """One revision before the horizon, or after the head, is refused before anything is told."""
    log = Log(length=10, horizon=3)
    with pytest.raises(PositionOutOfRange, match=r"from revision 3 to 10"):
        await told(Feed(log.at_start, log), after)


def test_a_gap_between_commits_is_never_published() -> None:
    """Events that do not follow the last ones are refused, whatever made them."""
    log = Log(length=4)
    feed = Feed(log.at_start, log)
    for revision in (4, 6):
        with pytest.raises(AssertionError):
            feed.publish([event(revision)], Revision(0))
    assert feed.revision == 4


@pytest.mark.parametrize("lost", [{1}, {8}, {9, 10}, {10}], ids=str)
async def test_a_hole_in_the_log_is_never_passed_over(lost: set[int]) -> None:
    """Where the store lost events a subscriber gets an error: no gap, and no endless wait."""
    log = Log(length=10)
    log.all = [event for event in log.all if event.revision not in lost]
    with pytest.raises(AssertionError, match=r"does not continue after revision (0|8|9);"):
        await told(Feed(log.at_start, log), 0)


async def test_a_filter_that_lets_nothing_through_still_ends_at_the_head() -> None:
    """The last checkpoint stands at the head though nothing was delivered."""
    log = Log(length=900)
    items = await told(Feed(log.at_start, log), 0, EventFilter(subjects=frozenset({"nobody"})))
    assert items == [Checkpoint(Revision(0)), Checkpoint(Revision(900))]


async def test_a_label_filter_wants_all_of_its_labels() -> None:
    """Under a filter of labels come the events of sessions that have all of them, whatever else these have."""
    log = Log()
    feed = Feed(log.at_start, log)
    labels: list[Labels] = [
        (),
        (("tenant", "acme"),),
        (("device", "phone"), ("tenant", "acme")),
        (("device", "phone"), ("tenant", "other")),
        (("acme", "tenant"),),
    ]
    group = [replace(event(number), labels=own) for number, own in enumerate(labels, 1)]
    log.all += group
    feed.publish(group, Revision(0))
    feed.close()
    for wanted, expected in (
        ((("tenant", "acme"),), [2, 3]),
        ((("tenant", "acme"), ("device", "phone")), [3]),
        ((("tenant", "ACME"),), []),
        ((), [1, 2, 3, 4, 5]),
    ):
        items = await told(feed, 0, EventFilter(labels=frozenset(wanted)))
        assert [item.revision for item in items[1:-1]] == expected
        assert items[-1] == Checkpoint(Revision(5))


class LeakyFeed(Feed):
    """Protection off: it trusts the tail one event further than the tail reaches."""

    async def _page(self, position: Revision) -> Sequence[Event]:
        if self._tail and position + 2 == self._tail[0].revision:
            return list(self._tail)
        return await super()._page(position)


async def test_a_seam_that_leaks_is_noticed() -> None:
    """With an off-by-one error at the seam of store and tail, the comparison of the tests above fails."""
    log = Log()
    feed = LeakyFeed(log.at_start, log, tail_length=5)
    log.append(feed, 10)
    assert (await told(feed, 4))[1:-1] != log.all[4:]


# Consistency tokens


async def test_what_is_published_is_reached_at_once() -> None:
    """A position up to the newest one that was published here is reached without a question to the store."""
    log = Log(length=3, ends=[3])
    feed = Feed(log.at_start, log)
    log.append(feed, 2)
    for revision in (0, 3, 5):
        assert feed.has(log.at(revision))
        await feed.wait_for(log.at(revision), timeout=0)
    assert log.heads == 0


async def test_a_position_of_an_earlier_run_is_reached() -> None:
    """A position from before a restart that the log still has is reached too."""
    log = Log(length=5, ends=[3, 3])
    feed = Feed(log.at_start, log)
    for run, revision in ((0, 0), (0, 3), (1, 3)):
        await feed.wait_for(log.at(revision, run), timeout=0)


async def test_a_change_that_is_not_here_yet_is_waited_for() -> None:
    """A position that was committed elsewhere is waited for, through the commits before it, and then reached."""
    log = Log(length=3)
    feed = Feed(log.at_start, log)
    log.ahead = 4
    waiting = asyncio.create_task(feed.wait_for(log.at(6), timeout=30))
    for published in (4, 5):
        await asyncio.sleep(0)
        log.append(feed, 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done(), published
    log.append(feed, 2)
    await asyncio.wait_for(waiting, 5)
    assert feed.has(log.at(6))


async def test_a_change_that_does_not_come_is_unavailable() -> None:
    """A position that exists, and is not published here in time, is Unavailable: the caller may ask again."""
    log = Log(length=3)
    feed = Feed(log.at_start, log)
    log.ahead = 2
    with pytest.raises(Unavailable, match="at_least"):
        await feed.wait_for(log.at(5), timeout=0.01)
    log.append(feed, 1)
    with pytest.raises(Unavailable):
        await feed.wait_for(log.at(5), timeout=0.01)


async def test_a_change_that_does_not_exist_is_refused_at_once() -> None:
    """A position ahead of everything that was committed, here or elsewhere, is PositionOutOfRange, without a wait."""
    log = Log(length=3)
    feed = Feed(log.at_start, log)
    log.ahead = 2
    with pytest.raises(PositionOutOfRange, match=r"^at_least: .*6.*ahead of the log"):
        await feed.wait_for(log.at(6), timeout=3600)


async def test_a_change_of_a_lost_log_is_refused() -> None:
    """A position of an unknown run, or from a tail that was lost, is PositionOutOfRange however small it is."""
    log = Log(length=9, ends=[4])
    feed = Feed(log.at_start, log)
    for position in (Position(b"unknown!", Revision(1)), log.at(5, run=0)):
        assert not feed.has(position)
        with pytest.raises(PositionOutOfRange, match=r"^at_least: .*no longer exists"):
            await feed.wait_for(position, timeout=3600)


async def test_a_position_waits_for_its_own_log() -> None:
    """A revision that was published says nothing of a position of another run: `has` is false, whatever its number."""
    log = Log(length=9, ends=[4])
    feed = Feed(log.at_start, log)
    assert not feed.has(log.at(2, run=0))
    assert not feed.has(log.at(10))
    assert feed.has(log.at(9))


def test_positions_name_the_current_run() -> None:
    """The feed's own positions are of the last run of the log: the newest revision, or the one that is asked for."""
    log = Log(length=9, ends=[4, 6])
    feed = Feed(log.at_start, log)
    assert feed.incarnation == log.incarnations[-1]
    assert feed.position() == log.at(9)
    assert feed.position(Revision(0)) == log.at(0)
    log.append(feed, 1)
    assert feed.position() == log.at(10)


# A lost end of the log


def lose(log: Log, feed: Feed, end: int) -> None:
    """Set the log back to that revision, and begin a new run."""
    log.all = log.all[:end]
    log.incarnations = [*log.incarnations, Incarnation(b"fresh...", Revision(end + 1))]
    feed.adopt(log.incarnations, Revision(end))


async def test_nothing_of_a_lost_end_is_delivered_after_the_loss() -> None:
    """A subscriber in the middle of a page gets none of its lost events after the loss, and then ends."""
    log = Log()
    feed = Feed(log.at_start, log)
    log.append(feed, 10)
    stream = feed.subscribe(Revision(0), EVERYTHING, AN_HOUR)
    delivered = [(await anext(stream)).revision for _ in range(7)]
    assert delivered == [0, 1, 2, 3, 4, 5, 6]
    lose(log, feed, 4)
    with pytest.raises(PositionOutOfRange, match=r"^cursor: .*no longer exists.*set back to 4"):
        await anext(stream)


async def test_a_subscriber_before_a_lost_end_goes_on() -> None:
    """A subscriber that has received nothing of the lost end goes on with what takes its place."""
    log = Log()
    feed = Feed(log.at_start, log)
    log.append(feed, 10)
    stream = feed.subscribe(Revision(0), EVERYTHING, AN_HOUR)
    delivered = [(await anext(stream)).revision for _ in range(4)]
    lose(log, feed, 4)
    log.append(feed, 2)
    rest = [await anext(stream) for _ in range(3)]
    assert delivered == [0, 1, 2, 3]
    assert rest == log.all[3:6]


def test_a_delivered_revision_is_named_by_the_run_that_was_published() -> None:
    """While the store knows of a run that was not adopted here yet, cursors are still of the one before."""
    log = Log(length=9)
    feed = Feed(log.at_start, log)
    before = log.incarnations[-1]
    log.incarnations = [*log.incarnations, Incarnation(b"fresh...", Revision(5))]
    assert feed.published(Revision(9)) == Position(before.id, Revision(9))
    feed.adopt(log.incarnations, Revision(4))
    with pytest.raises(PositionOutOfRange):
        feed.resume(Position(before.id, Revision(9)))


# Cursors


async def test_a_cursor_resumes_where_it_stands() -> None:
    """A cursor of this run or an earlier one resumes at its revision, from the horizon to the head."""
    log = Log(length=9, horizon=2, ends=[4, 6])
    feed = Feed(log.at_start, log)
    for run, revision in ((0, 2), (0, 4), (1, 5), (1, 6), (2, 3), (2, 9)):
        assert feed.resume(log.at(revision, run)) == revision


async def test_a_cursor_of_an_unknown_run_is_refused() -> None:
    """A cursor of a run that the log does not know comes from a log that is gone: a backup was restored since."""
    log = Log(length=9, ends=[4])
    with pytest.raises(PositionOutOfRange, match=r"^cursor: .*no longer exists.*backup"):
        Feed(log.at_start, log).resume(Position(b"unknown!", Revision(3)))


@pytest.mark.parametrize(("run", "revision", "end"), [(0, 5, 4), (0, 9, 4), (1, 7, 6)])
async def test_a_cursor_of_a_lost_tail_is_refused(run: int, revision: int, end: int) -> None:
    """A cursor beyond the end of its run names events that were lost, though others have their numbers now."""
    log = Log(length=9, ends=[4, 6])
    with pytest.raises(PositionOutOfRange, match=rf"^cursor: .*no longer exists.*revision {end}"):
        Feed(log.at_start, log).resume(log.at(revision, run))


@pytest.mark.parametrize(("run", "revision"), [(0, 2), (1, 2), (1, 0)])
async def test_a_cursor_from_before_the_horizon_is_refused(run: int, revision: int) -> None:
    """A cursor from before the horizon, of this run or an earlier one, is refused with both ends of the log."""
    log = Log(length=9, horizon=3, ends=[4])
    with pytest.raises(PositionOutOfRange, match=r"^cursor: .*before the horizon.* from revision 3 to 9"):
        Feed(log.at_start, log).resume(log.at(revision, run))


async def test_a_cursor_ahead_of_the_log_is_refused() -> None:
    """A cursor ahead of everything that was committed, here or elsewhere, is refused with both ends of the log."""
    log = Log(length=9, horizon=3)
    feed = Feed(log.at_start, log)
    await feed.wait_for_cursor(log.at(10), timeout=3600)
    with pytest.raises(PositionOutOfRange, match=r"^cursor: .*ahead of the log.* from revision 3 to 9"):
        feed.resume(log.at(10))


async def test_a_cursor_from_a_replica_that_is_ahead_is_waited_for() -> None:
    """A cursor of an event that another replica has delivered already resumes here once it is published here too."""
    log = Log(length=9)
    feed = Feed(log.at_start, log)
    log.ahead = 2
    waiting = asyncio.create_task(feed.wait_for_cursor(log.at(11), timeout=30))
    await asyncio.sleep(0)
    assert not waiting.done()
    log.append(feed, 2)
    await asyncio.wait_for(waiting, 5)
    assert feed.resume(log.at(11)) == 11


async def test_a_cursor_of_a_run_that_is_not_known_here_yet_is_waited_for() -> None:
    """A cursor of an incarnation that another replica has begun resumes here once this one has adopted it."""
    log = Log(length=9, ends=[4])
    feed = Feed(log.at_start, log)
    log.incarnations = [*log.incarnations, Incarnation(b"run    2", Revision(10))]
    waiting = asyncio.create_task(feed.wait_for_cursor(log.at(9), timeout=30))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.adopt(log.incarnations, Revision(9))
    await asyncio.wait_for(waiting, 5)
    assert feed.resume(log.at(9)) == 9


async def test_a_cursor_that_is_not_published_in_time_is_unavailable() -> None:
    """A cursor that exists, and is not published here in time, is Unavailable and not out of range."""
    log = Log(length=9)
    feed = Feed(log.at_start, log)
    log.ahead = 2
    with pytest.raises(Unavailable, match=r"^cursor"):
        await feed.wait_for_cursor(log.at(11), timeout=0.01)
