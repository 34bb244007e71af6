"""`events` gives each event once, in order, whatever happens to the connection: for both clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, Cancelled, Checkpoint, Client, Event, EventType, InvalidArgument, Unavailable
from tests.clients.either import CLIENTS, Either, Following
from tests.clients.relay import Cutting
from tests.support.server import ServerProcess

Kind = type[AsyncClient] | type[Client]


class Restartable:
    """An authority as a process that can go and come back at the same place, with the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: ServerProcess | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.target = f"127.0.0.1:{probe.getsockname()[1]}"

    async def start(self) -> None:
        self._process = ServerProcess(self._folder, listen=self.target)
        async with asyncio.timeout(30):
            assert await self._process.address() == self.target

    async def stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            async with asyncio.timeout(30):
                await process.terminate()

    async def kill(self) -> None:
        assert self._process is not None
        process, self._process = self._process, None
        await asyncio.to_thread(process.kill)


@pytest.fixture
async def authority(tmp_path: Path) -> AsyncIterator[Restartable]:
    authority = Restartable(tmp_path)
    await authority.start()
    yield authority
    await authority.stop()


@asynccontextmanager
async def following(client: Either, **query: Any) -> AsyncIterator[Following]:
    """A subscription whose beginning is fixed: its first checkpoint has come."""
    async with client.follow(include_checkpoints=True, **query) as stream:
        assert isinstance(await stream.next(), Checkpoint)
        yield stream


async def events_until(stream: Following, revision: int) -> list[Event]:
    """All events up to a revision."""
    events: list[Event] = []
    async with asyncio.timeout(30):
        while not events or events[-1].revision < revision:
            item = await stream.next()
            if isinstance(item, Event):
                events.append(item)
    return events


async def create_through(client: Either, count: int) -> int:
    """Open so many sessions, however often the authority goes away meanwhile; the newest revision after that."""
    async with asyncio.timeout(60):
        while True:
            try:
                while count:
                    await client.create(subject="ada")
                    count -= 1
                return await client.newest_revision()
            except (Unavailable, Cancelled):  # the authority stops: before the call, or under it
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("ending", ["stop", "kill"])
@pytest.mark.parametrize("kind", CLIENTS)
async def test_each_event_comes_once_over_restarts(authority: Restartable, kind: Kind, ending: str) -> None:
    """While sessions are opened without pause, and the authority goes and comes back, each event comes once."""
    over = asyncio.Event()

    async def open_sessions() -> int:
        async with Either(AsyncClient, authority.target) as opener:
            while not over.is_set():
                await create_through(opener, 1)
                await asyncio.sleep(0.002)  # the pace, not a wait: a few hundred sessions are enough
            return await create_through(opener, 1)

    async with Either(kind, authority.target) as client, following(client) as stream:
        opening = asyncio.create_task(open_sessions())
        events = [await stream.next()]
        for _ in range(2):
            await getattr(authority, ending)()
            await authority.start()
            events += await events_until(stream, events[-1].revision + 50)
        over.set()
        events += await events_until(stream, await opening)
    assert [event.revision for event in events] == list(range(1, events[-1].revision + 1))
    assert len({event.session_id for event in events}) == len(events)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_each_event_comes_once_over_cut_connections(app: App, kind: Kind) -> None:
    """Connections that are cut in the middle of a message, again and again, cost no event and repeat none."""
    async with AsyncClient(app.address) as opener:
        for _ in range(300):
            await opener.create(subject="ada")
        last = (await opener.authority()).revision
    relay = Cutting(app.address, after=7_919)
    async with relay.running() as target, Either(kind, target) as client, client.follow(start="earliest") as stream:
        events = await events_until(stream, last)
    assert [event.revision for event in events] == list(range(1, last + 1))
    assert relay.breaks > 3


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_quiet_stream_keeps_its_place_over_a_restart(authority: Restartable, kind: Kind) -> None:
    """What happens while a stream that began now is broken is not lost, though no event had come yet."""
    async with Either(kind, authority.target) as client, following(client) as stream:
        await authority.stop()
        await authority.start()
        async with Either(kind, authority.target) as other:
            revision = await create_through(other, 1)
        assert [event.revision for event in await events_until(stream, revision)] == [revision]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_stream_may_begin_before_its_authority(authority: Restartable, kind: Kind) -> None:
    """A subscription that cannot connect yet waits, and begins at the then-now."""
    async with Either(kind, authority.target) as client:
        await create_through(client, 3)
        await authority.stop()
        async with client.follow(include_checkpoints=True) as stream:
            first = asyncio.create_task(stream.next())
            await authority.start()
            async with asyncio.timeout(30):
                checkpoint = await first
            assert isinstance(checkpoint, Checkpoint)
            revision = await create_through(client, 1)
            assert [event.revision for event in await events_until(stream, revision)] == [checkpoint.revision + 1]


async def test_a_saved_cursor_goes_on_exactly_after_its_event(client: Either) -> None:
    """Another subscription from any event's cursor begins with the event after it."""
    for _ in range(5):
        await client.create(subject="ada")
    async with client.follow(start="earliest") as stream:
        events = await events_until(stream, await client.newest_revision())
    for event, later in pairwise(events):
        async with client.follow(after=event.cursor) as stream:
            assert (await stream.next()).revision == later.revision


async def test_the_cursor_is_that_of_what_was_handed_out(client: Either) -> None:
    """`cursor` moves with each item that the caller has, not with what waits in a buffer."""
    for _ in range(3):
        await client.create(subject="ada")
    async with client.follow(start="earliest") as stream:
        for _ in range(3):
            event = await stream.next()
            assert stream.events.cursor == event.cursor


async def test_filters_narrow_the_stream(client: Either) -> None:
    """Subject and type filters let through what fits, and nothing else."""
    for subject in ("ada", "bob"):
        created = await client.create(subject=subject)
        await client.revoke(token=created.token)
    last = await client.newest_revision()
    async with client.follow(
        start="earliest", subjects=["bob"], types=[EventType.SESSION_REVOKED], checkpoint_interval=0.1
    ) as stream:
        event = await stream.next()
    assert (event.subject, event.type, event.revision) == ("bob", EventType.SESSION_REVOKED, last)


async def test_checkpoints_come_where_they_are_asked_for(client: Either) -> None:
    """On a quiet stream a checkpoint comes each interval, ahead of nothing that was not delivered."""
    await client.create(subject="ada")
    async with following(client, checkpoint_interval=0.1) as stream:
        checkpoint = await stream.next()
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.revision == await client.newest_revision()
    async with client.follow(after=checkpoint.cursor) as stream:
        later = await client.create(subject="ada")
        assert (await stream.next()).session_id == later.session.session_id


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"after": "nonsense"}, "cursor"),
        ({"checkpoint_interval": 0.001}, "checkpoint_interval"),
        ({"subjects": ["x"] * 101}, "filter.subjects"),
    ],
)
async def test_a_broken_query_reaches_the_caller(client: Either, query: dict[str, Any], field: str) -> None:
    """A cursor or a filter that the authority refuses is raised, not tried again."""
    async with client.follow(**query) as stream:
        with pytest.raises(InvalidArgument) as refusal:
            await stream.next()
    assert [violation.field for violation in refusal.value.violations] == [field]


async def test_closing_ends_an_iteration_that_waits(client: Either) -> None:
    """`close` ends the iteration, also while somebody waits for the next event; nothing comes after it."""
    async with following(client) as stream:
        waiting = asyncio.create_task(stream.next())
        await asyncio.sleep(0)  # let it begin; where it has not, closing first is as good
        await stream.close()
        async with asyncio.timeout(10):
            with pytest.raises(StopAsyncIteration):
                await waiting
            with pytest.raises(StopAsyncIteration):
                await stream.next()


async def test_closing_the_client_ends_its_streams(client: Either) -> None:
    """A client that is closed ends the iterations that it began."""
    async with following(client) as stream:
        await client.close()
        async with asyncio.timeout(10):
            with pytest.raises(StopAsyncIteration):
                await stream.next()


async def test_a_cancelled_wait_loses_nothing(app: App) -> None:
    """A wait for the next event that is cancelled by a timeout raises that, and the next wait goes on."""
    async with AsyncClient(app.address) as client, client.events(start="earliest") as events:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.05)
            created = await client.create(subject="ada")
            async with asyncio.timeout(10):
                assert (await anext(events)).session_id == created.session.session_id


async def test_a_cancelled_task_is_cancelled(app: App) -> None:
    """Cancelling the task that iterates cancels it: the iteration swallows nothing."""

    async def iterate() -> None:
        async with client.events(start="earliest") as events:
            async for _ in events:
                begun.set()

    begun = asyncio.Event()
    async with AsyncClient(app.address) as client:
        task = asyncio.create_task(iterate())
        await client.create(subject="ada")
        async with asyncio.timeout(10):
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
