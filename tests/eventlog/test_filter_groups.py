"""Subscribers are woken by events that their filter lets through, and by nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from sessiond.domain.event import Event, EventFilter
from sessiond.domain.values import Revision
from sessiond.eventlog.feed import Checkpoint, Feed
from tests.eventlog.test_feed import AN_HOUR, Log, event

OTHERS = 200
NOBODY = EventFilter(subjects=frozenset({"nobody"}))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Revision]:
    """Each time that a subscriber looked for something to deliver: from where."""
    seen: list[Revision] = []
    ordinary = Feed._page

    async def watched(self: Feed, position: Revision) -> Sequence[Event]:
        seen.append(position)
        return await ordinary(self, position)

    monkeypatch.setattr(Feed, "_page", watched)
    return seen


async def settle() -> None:
    """Let everybody who was woken have a turn."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_wants_none_of_it_is_not_woken(looks: list[Revision]) -> None:
    """Of two hundred subscribers whose filter lets nothing through none looks, however many events there are."""
    log = Log()
    feed = Feed(await log.head(), log)
    heard: list[Event | Checkpoint] = []

    async def follow(wanted: EventFilter) -> None:
        async with aclosing(feed.subscribe(Revision(0), wanted, AN_HOUR)) as items:
            async for item in items:
                heard.append(item)

    async with asyncio.TaskGroup() as group:
        idle = [group.create_task(follow(NOBODY)) for _ in range(OTHERS)]
        one = group.create_task(follow(EventFilter(subjects=frozenset({"ada"}))))
        await settle()
        assert len(heard) == OTHERS + 1  # each its first checkpoint
        looks.clear()
        for _ in range(50):
            log.append(feed, 3)
            await settle()
        assert [item.revision for item in heard[OTHERS + 1 :]] == list(range(1, 151))
        assert len(looks) <= 100
        for task in (*idle, one):
            task.cancel()


async def test_what_comes_after_much_that_is_not_wanted_is_delivered(looks: list[Revision]) -> None:
    """A quiet subscriber waits through events that it does not want, and the one that it wants arrives at once."""
    log = Log()
    feed = Feed(await log.head(), log)
    items = feed.subscribe(Revision(0), NOBODY, AN_HOUR)
    assert await anext(items) == Checkpoint(Revision(0))
    waiting = asyncio.ensure_future(anext(items))
    await settle()
    log.append(feed, 1_000)
    await settle()
    assert not waiting.done()
    assert len(looks) <= 1
    wanted = event(1_001, "nobody")
    log.all.append(wanted)
    feed.publish([wanted], feed.horizon)
    assert await waiting == wanted
    await items.aclose()


async def test_a_filter_that_nobody_has_any_more_is_forgotten() -> None:
    """When the last subscriber with a filter leaves, events are not compared with it any more."""
    log = Log()
    feed = Feed(await log.head(), log)
    streams = [feed.subscribe(Revision(0), NOBODY, AN_HOUR) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    assert len(feed._groups) == 1
    for stream in streams:
        await stream.aclose()
    assert not feed._groups


async def test_who_leaves_at_the_very_moment_of_news_has_left() -> None:
    """A subscriber that is cancelled in the turn in which an event comes does not go on waiting for the next one."""
    log = Log()
    feed = Feed(await log.head(), log)
    items = feed.subscribe(Revision(0), EventFilter(), AN_HOUR)
    await anext(items)
    waiting = asyncio.ensure_future(anext(items))
    await settle()
    log.append(feed, 1)  # wakes it
    waiting.cancel()  # before it has had its turn
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await items.aclose()
    assert not feed._groups
