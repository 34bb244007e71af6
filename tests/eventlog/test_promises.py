"""The promises of Subscribe that are about what comes: ordered, unique, reliable, resumable, bookmarked."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from sessiond.app import App
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub, config_for, serving, stub_for
from tests.support.streams import (
    EARLIEST,
    NOW,
    Fact,
    Stream,
    create,
    faults_of,
    open_sessions,
    position,
    read,
    read_to_end,
    read_up_to,
    subscribe,
    write_lives,
)

WRITERS = 8


@asynccontextmanager
async def writing(stub: AsyncStub, lives: int) -> AsyncIterator[list[Fact]]:
    """Writers at work inside the block; what they were told, complete after it."""
    facts: list[Fact] = []
    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(write_lives(stub, writer, lives, facts))
        yield facts


async def watched(stub: AsyncStub, lives: int, stream: Stream) -> tuple[list[pb.SubscribeResponse], list[Fact]]:
    """What an open stream brings while writers are at work, to the last of their events; and what they were told."""
    items = [await read(stream)]  # begun, before anything is written
    async with writing(stub, lives) as facts:
        items += await read_up_to(stream, WRITERS * lives * 3)
    stream.cancel()
    return items, facts


# Ordered, unique


async def test_events_come_in_the_order_of_the_log(stub: AsyncStub) -> None:
    """Revisions on a stream strictly increase while eight writers commit at once."""
    items, _ = await watched(stub, 20, subscribe(stub, start=NOW))
    revisions = [item.event.revision for item in items if item.HasField("event")]
    assert revisions == sorted(set(revisions))
    assert len(revisions) == WRITERS * 20 * 3


async def test_no_event_comes_twice(stub: AsyncStub) -> None:
    """A subscriber that passes from the backlog to the live tail gets each event once, at the seam too."""
    before = await open_sessions(stub, 200)
    stream = subscribe(stub)
    async with writing(stub, 10) as facts:
        items = await read_up_to(stream, 200 + WRITERS * 10 * 3)
    stream.cancel()
    delivered = [item.event.revision for item in items if item.HasField("event")]
    assert len(delivered) == len(set(delivered))
    assert faults_of(items, [*before, *facts]) == []


# Reliable


@pytest.mark.parametrize(
    ("types", "subjects"),
    [
        pytest.param((), (), id="no filter"),
        pytest.param((pb.EVENT_TYPE_SESSION_REVOKED,), (), id="one type"),
        pytest.param((), ("subject-1", "subject-5"), id="two subjects"),
        pytest.param((pb.EVENT_TYPE_SESSION_CREATED,), ("subject-2", "nobody"), id="type and subject"),
    ],
)
async def test_nothing_is_left_out_while_catch_up_and_writers_race(
    tmp_path: Path, types: tuple[pb.EventType.ValueType, ...], subjects: tuple[str, ...]
) -> None:
    """No event under the filter is missing for subscribers that catch up from the store while writers commit."""

    def wanted(fact: Fact) -> bool:
        return (not types or fact.type in types) and (not subjects or fact.subject in subjects)

    config = config_for(tmp_path)
    async with serving(config) as app, stub_for(app.address) as stub, writing(stub, 30) as facts:
        pass
    backlog = len(facts)
    # A fresh process has nothing in memory: all of the backlog comes from the store, in pages.
    async with serving(config) as app, stub_for(app.address) as stub:
        end = backlog + WRITERS * 10 * 3
        async with writing(stub, 10) as later:
            readers = []
            for _ in range(4):
                stream = subscribe(stub, types=types, subjects=subjects, interval_ms=100)
                readers.append(asyncio.create_task(read_up_to(stream, end)))
                await read(subscribe(stub, start=NOW))  # a round trip between two subscribers, so that they spread out
            results = await asyncio.gather(*readers)
        for items in results:
            assert faults_of(items, [*facts, *later], wanted=wanted) == []
            assert sum(item.HasField("event") for item in items) == sum(map(wanted, [*facts, *later]))


async def test_a_filter_of_labels_leaves_out_nothing_and_adds_nothing(stub: AsyncStub) -> None:
    """Under a filter of labels come all events of the sessions that have them, from the backlog and live, no others."""

    async def live_through(labels: dict[str, str]) -> str:
        created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada", labels=labels))
        reference = pb.SessionReference(token=created.token)
        await stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=reference, set={"key": b"value"}))
        await stub.RevokeSession(pb.RevokeSessionRequest(session=reference))
        return created.session.session_id

    acme = {"tenant": "acme"}
    lives = [acme, {}, {"tenant": "other"}, acme | {"device": "phone"}]
    expected = [await live_through(labels) for labels in lives]
    stream = stub.Subscribe(pb.SubscribeRequest(filter=pb.EventFilter(labels=acme), start=EARLIEST))
    items = [await read(stream) for _ in range(7)]
    expected += [await live_through(labels) for labels in lives]
    items += [await read(stream) for _ in range(6)]
    stream.cancel()
    events = [item.event for item in items if item.HasField("event")]
    assert [event.session_id for event in events] == [expected[life] for life in (0, 3, 4, 7) for _ in range(3)]
    assert [dict(event.labels) for event in events] == [lives[life % 4] for life in (0, 3, 4, 7) for _ in range(3)]


# Resumable


async def test_every_cursor_resumes_exactly_after_its_item(stub: AsyncStub) -> None:
    """From each event and each checkpoint that a stream brought, a new stream brings the rest and nothing else."""
    stream = subscribe(stub, interval_ms=100)
    items: list[pb.SubscribeResponse] = [await read(stream)]
    for burst in range(4):
        facts = await open_sessions(stub, 8, f"burst-{burst}")
        items += await read_up_to(stream, facts[-1].revision)
        items.append(await read(stream))  # quiet now: a checkpoint
    stream.cancel()
    kinds = [item.WhichOneof("item") for item in items]
    assert kinds.count("event") == 32
    assert kinds.count("checkpoint") >= 5
    events = [Fact.of(item.event) for item in items if item.HasField("event")]
    for item in items:
        rest = [fact for fact in events if fact.revision > position(item)]
        resumed = subscribe(stub, cursor=item.cursor)
        first = await read(resumed)
        assert (first.WhichOneof("item"), position(first)) == ("checkpoint", position(item))
        assert [Fact.of((await read(resumed)).event) for _ in rest] == rest
        # Nothing else follows: the next event is the one that is written now.
        _, marker = await create(stub, "marker")
        assert Fact.of((await read(resumed)).event) == marker
        resumed.cancel()
        events.append(marker)


async def test_a_cursor_outlives_the_process(tmp_path: Path) -> None:
    """A cursor from before a restart resumes exactly after its item, from a checkpoint as from an event."""
    config = config_for(tmp_path)
    async with serving(config) as app, stub_for(app.address) as stub:
        facts = await open_sessions(stub, 30)
        items = await read_up_to(subscribe(stub), 30)
    async with serving(config) as app, stub_for(app.address) as stub:
        for item in (items[0], items[10], items[-1]):
            stream = subscribe(stub, cursor=item.cursor, interval_ms=100)
            rest = await read_up_to(stream, 30)
            stream.cancel()
            assert faults_of(rest, facts, begin=position(item)) == []
            assert [Fact.of(i.event) for i in rest if i.HasField("event")] == facts[position(item) :]


async def test_a_cursor_of_a_lost_tail_is_refused(tmp_path: Path) -> None:
    """After a restored backup no cursor from the lost tail resumes, however long the log is by now; older ones do."""
    config = config_for(tmp_path)
    async with serving(config) as app, stub_for(app.address) as stub:
        facts = await open_sessions(stub, 5)
        kept = await read_up_to(subscribe(stub), 5)
    shutil.copytree(config.data, tmp_path / "backup")
    async with serving(config) as app, stub_for(app.address) as stub:
        await open_sessions(stub, 5)
        lost = await read_up_to(subscribe(stub, cursor=kept[-1].cursor), 10)
    shutil.rmtree(config.data)
    shutil.copytree(tmp_path / "backup", config.data)
    async with serving(config) as app, stub_for(app.address) as stub:
        facts += await open_sessions(stub, 20, "eve")
        for item in lost:
            none, error = await read_to_end(subscribe(stub, cursor=item.cursor))
            assert (none, error.code()) == ([], grpc.StatusCode.OUT_OF_RANGE)
            assert "no longer exists" in (error.details() or "")
        for item in kept:
            rest = await read_up_to(subscribe(stub, cursor=item.cursor), 25)
            assert faults_of(rest, facts, begin=position(item)) == []
            assert [Fact.of(i.event) for i in rest if i.HasField("event")] == facts[position(item) :]


async def test_a_cursor_resumes_under_another_filter(stub: AsyncStub) -> None:
    """A cursor that was won under one filter goes on under another, from the same place."""
    async with writing(stub, 5) as facts:
        pass
    narrow = await read_up_to(subscribe(stub, subjects=["subject-1"], interval_ms=100), len(facts) // 2)
    wide = await read_up_to(subscribe(stub, cursor=narrow[-1].cursor), len(facts))
    assert faults_of(wide, facts, begin=position(narrow[-1])) == []


async def test_a_cursor_of_another_authority_is_refused(tmp_path: Path, stub: AsyncStub) -> None:
    """A cursor is good for the authority that gave it and for no other."""
    async with serving(config_for(tmp_path / "other")) as other, stub_for(other.address) as foreign:
        cursor = (await read(subscribe(foreign))).cursor
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await read(subscribe(stub, cursor=cursor))
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "cursor" in (refusal.value.details() or "")


# Bookmarked


@pytest.mark.parametrize("start", [EARLIEST, NOW])
async def test_a_stream_begins_with_a_checkpoint(stub: AsyncStub, start: pb.StreamStart.ValueType) -> None:
    """The first item is a checkpoint at the place where the stream begins, though the stream is quiet for an hour."""
    await open_sessions(stub, 3)
    first = await read(subscribe(stub, start=start, subjects=["nobody"]))
    assert first.WhichOneof("item") == "checkpoint"
    assert position(first) == (0 if start == EARLIEST else 3)


async def test_a_quiet_stream_brings_checkpoints(stub: AsyncStub) -> None:
    """On a quiet stream one checkpoint follows another, all at the head of the log."""
    await open_sessions(stub, 2)
    stream = subscribe(stub, start=NOW, interval_ms=100)
    items = [await read(stream) for _ in range(4)]
    assert [(item.WhichOneof("item"), position(item)) for item in items] == [("checkpoint", 2)] * 4


async def test_checkpoints_advance_while_the_filter_excludes_a_busy_log(stub: AsyncStub) -> None:
    """A filter that lets nothing through still brings ever newer checkpoints while the log never rests."""
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            await open_sessions(stub, 8, "somebody", writers=2)

    stream = subscribe(stub, subjects=["nobody"], interval_ms=100)
    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        items = [await read(stream)]
        while len({position(item) for item in items}) < 4:
            items.append(await read(stream))
        done.set()
    assert {item.WhichOneof("item") for item in items} == {"checkpoint"}
    positions = [position(item) for item in items]
    assert positions == sorted(positions)


async def test_no_checkpoint_is_ahead_of_an_undelivered_event(stub: AsyncStub) -> None:
    """On a stream of both events and checkpoints, every event up to a checkpoint has come before it."""

    def wanted(fact: Fact) -> bool:
        return fact.subject == "subject-3"

    # The subject of interest writes now and then in between: the stream is quiet often enough for checkpoints.
    stream = subscribe(stub, subjects=["subject-3"], interval_ms=100)
    items, facts, rare = [await read(stream)], list[Fact](), 0
    done = asyncio.Event()

    async def others() -> None:
        while not done.is_set():
            await write_lives(stub, 1, 5, facts)

    async with asyncio.TaskGroup() as group:
        group.create_task(others())
        group.create_task(others())
        while rare < 5:
            items.append(await read(stream))
            if items[-1].HasField("checkpoint"):
                rare += 1
                await write_lives(stub, 3, 2, facts)
        done.set()
    end = max(fact.revision for fact in facts)
    items += await read_up_to(stream, end)
    assert sum(item.HasField("checkpoint") for item in items) >= 5
    assert sum(item.HasField("event") for item in items) == 30
    assert faults_of(items, facts, wanted=wanted) == []


async def test_shutdown_brings_a_last_checkpoint(tmp_path: Path) -> None:
    """When the authority stops, each stream ends with a checkpoint at the log's head, and with UNAVAILABLE."""
    app = await App.start(config_for(tmp_path))
    async with stub_for(app.address) as stub:
        facts = await open_sessions(stub, 700)
        begun: list[tuple[Stream, set[str], pb.SubscribeResponse]] = []
        for start, subjects in ((EARLIEST, {"ada"}), (NOW, {"ada"}), (EARLIEST, {"nobody"})):
            stream = subscribe(stub, start=start, subjects=subjects)
            begun.append((stream, subjects, await read(stream)))
        await app.stop()
        for stream, subjects, first in begun:
            items, error = await read_to_end(stream)
            assert (items[-1].WhichOneof("item"), position(items[-1])) == ("checkpoint", 700)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert "resume" in (error.details() or "")
            wanted = [fact for fact in facts if fact.subject in subjects]
            assert faults_of([first, *items], wanted, position(first)) == []


# The checker can fail


def _item(revision: int, *, checkpoint: bool = False) -> pb.SubscribeResponse:
    if checkpoint:
        return pb.SubscribeResponse(checkpoint=pb.Checkpoint(revision=revision))
    return pb.SubscribeResponse(event=pb.Event(revision=revision, type=pb.EVENT_TYPE_SESSION_CREATED))


def _drop(items: list[pb.SubscribeResponse]) -> None:
    del items[2]


def _repeat(items: list[pb.SubscribeResponse]) -> None:
    items.insert(2, items[1])


def _swap(items: list[pb.SubscribeResponse]) -> None:
    items[1], items[2] = items[2], items[1]


def _hurry(items: list[pb.SubscribeResponse]) -> None:
    items.insert(2, _item(4, checkpoint=True))


def _invent(items: list[pb.SubscribeResponse]) -> None:
    items.append(_item(9))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_drop, "not reliable"),
        (_repeat, "not unique"),
        (_swap, "not ordered"),
        (_hurry, "ahead of undelivered"),
        (_invent, "never acknowledged"),
    ],
)
def test_the_checker_reports_a_broken_promise(harm: Callable[[list[pb.SubscribeResponse]], None], told: str) -> None:
    """A stream with one fault of each kind does not pass the checker that the tests above rely on."""
    facts = [Fact(revision, pb.EVENT_TYPE_SESSION_CREATED, "", "") for revision in range(1, 6)]
    items = [_item(0, checkpoint=True), *(_item(revision) for revision in range(1, 6))]
    assert faults_of(items, facts) == []
    harm(items)
    assert any(told in fault for fault in faults_of(items, facts))
