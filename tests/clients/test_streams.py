"""Event streams that are left are released, and never stand in the way of calls."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, Client, Event, EventQuery
from tests.clients.either import CLIENTS, Either, Kind
from tests.clients.relay import Relay
from tests.support.server import config_for, serving

MANY = 30
LIMIT = "[server]\nmax_subscribers = 8\n"
"""A server that serves few streams: one that is left and not released costs a place."""

ALL = EventQuery(start="earliest", checkpoint_interval=0.1)
"""The short interval lets the server notice soon that a stream has ended, even if it was just writing to it."""


def by_break(client: Client) -> None:
    for _ in client.events(**ALL):
        break


def by_return(client: Client) -> Event | None:
    for event in client.events(**ALL):
        return event
    return None


def by_exception(client: Client) -> None:
    def handle() -> None:
        for _ in client.events(**ALL):
            raise LookupError

    with pytest.raises(LookupError):
        handle()


def by_forgetting(client: Client) -> None:
    next(client.events(**ALL))


async def by_break_async(client: AsyncClient) -> None:
    async for _ in client.events(**ALL):
        break


async def by_return_async(client: AsyncClient) -> Event | None:
    async for event in client.events(**ALL):
        return event
    return None


async def by_exception_async(client: AsyncClient) -> None:
    async def handle() -> None:
        async for _ in client.events(**ALL):
            raise LookupError

    with pytest.raises(LookupError):
        await handle()


async def by_cancelling_async(client: AsyncClient) -> None:
    async def handle() -> None:
        async for _ in client.events(**ALL):
            begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(handle())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("leave", [by_break, by_return, by_exception, by_forgetting])
async def test_a_stream_that_is_left_is_released(tmp_path: Path, leave: Callable[[Client], Any]) -> None:
    """However a `for` over events is left, its stream ends, and its place is free for the next one."""
    async with serving(config_for(tmp_path, LIMIT)) as app:
        with Client(app.address) as client:
            await asyncio.to_thread(client.create, subject="ada")
            async with asyncio.timeout(60):
                for _ in range(MANY):
                    await asyncio.to_thread(leave, client)
                    gc.collect()  # an exception's traceback refers to the iterator


@pytest.mark.parametrize("leave", [by_break_async, by_return_async, by_exception_async, by_cancelling_async])
async def test_an_asynchronous_stream_that_is_left_is_released(
    tmp_path: Path, leave: Callable[[AsyncClient], Any]
) -> None:
    """However an `async for` over events is left, its stream ends, and its place is free for the next one."""
    async with serving(config_for(tmp_path, LIMIT)) as app, AsyncClient(app.address) as client:
        await client.create(subject="ada")
        async with asyncio.timeout(60):
            for _ in range(MANY):
                await leave(client)
                gc.collect()


async def test_a_stream_may_be_collected_in_another_thread(tmp_path: Path) -> None:
    """An asynchronous stream whose last reference ends in another thread is released in its own loop."""
    async with serving(config_for(tmp_path, LIMIT)) as app, AsyncClient(app.address) as client:
        await client.create(subject="ada")
        async with asyncio.timeout(60):
            for _ in range(MANY):
                kept = [client.events(**ALL)]
                assert (await anext(kept[0])).revision == 1
                thread = threading.Thread(target=kept.clear)
                thread.start()
                await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_streams_and_calls_have_connections_of_their_own(kind: Kind, app: App) -> None:
    """Streams share no connection with calls, and no client shares one with another."""
    relay = Relay(app.address)
    async with relay.running() as target, Either(kind, target) as client, Either(kind, target) as other:
        await client.create(subject="ada")
        await client.authority()
        assert relay.connections == 1
        async with client.follow(start="earliest") as one, client.follow(start="earliest") as two:
            assert [(await stream.next()).revision for stream in (one, two)] == [1, 1]
            assert relay.connections == 2
            await other.authority()
            assert relay.connections == 3


async def test_more_streams_than_a_connection_takes_use_another(tmp_path: Path) -> None:
    """A client may follow more streams than an authority serves on one connection: each of them is served."""
    config = config_for(tmp_path, "[server]\nmax_subscribers = 300\n")
    async with serving(config) as app, AsyncClient(app.address) as client:
        await client.create(subject="ada")
        relay = Relay(app.address)
        async with relay.running() as target, AsyncClient(target) as follower, asyncio.timeout(60):
            streams = [follower.events(start="earliest") for _ in range(120)]
            events = await asyncio.gather(*(anext(stream) for stream in streams))
            assert [event.revision for event in events] == [1] * 120
            assert relay.connections == 2
