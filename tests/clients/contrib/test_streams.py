"""Streaming responses of frameworks whose responses are iterators end with their session."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from flask import Flask, Response

from sessiond.app import App
from sessiond_client import AsyncClient, Client, Created
from sessiond_client.contrib.flask import current_subject
from sessiond_client.contrib.streams import guarded, guarded_async
from sessiond_client.guard import AsyncConnectionGuard, ConnectionGuard
from tests.clients.contrib.flask.site import Browser, make_site, running


class Chunks:
    """Chunks without an end. Says when it is closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def __iter__(self) -> Iterator[int]:
        pause = threading.Event()
        try:
            for number in range(1_000_000):
                yield number
                pause.wait(0.01)
        finally:
            self.is_closed = True

    async def forever(self) -> AsyncIterator[int]:
        """The same for asyncio."""
        try:
            for number in range(1_000_000):
                yield number
                await asyncio.sleep(0.01)
        finally:
            self.is_closed = True


@pytest.fixture
async def authority(app: App) -> AsyncIterator[AsyncClient]:
    """A client with which sessions are ended."""
    async with AsyncClient(app.address) as client:
        yield client


@pytest.fixture
async def alice(authority: AsyncClient) -> Created:
    """A session of alice."""
    return await authority.create(subject="alice")


async def test_an_iterator_ends_with_its_session(app: App, authority: AsyncClient, alice: Created) -> None:
    """The chunks end at the first one after the session has ended, and what makes them is closed."""
    chunks, begun = Chunks(), threading.Event()

    def read() -> None:
        with Client(app.address) as client:
            guard = ConnectionGuard(client)
            for _ in guarded(iter(chunks), lambda: guard, alice.session):
                begun.set()
            guard.close()

    reading = asyncio.create_task(asyncio.to_thread(read))
    assert await asyncio.to_thread(begun.wait, 10)
    await authority.revoke_all(subject="alice")
    await asyncio.wait_for(reading, 10)
    assert chunks.is_closed


async def test_an_asynchronous_iterator_ends_with_its_session(app: App, authority: AsyncClient, alice: Created) -> None:
    """The same for an asynchronous iterator."""
    chunks, guard, count = Chunks(), AsyncConnectionGuard(authority), 0
    async for _ in guarded_async(chunks.forever(), lambda: guard, alice.session):
        count += 1
        if count == 3:
            await authority.revoke_all(subject="alice")
    assert count >= 3
    assert chunks.is_closed
    await guard.close()


async def test_a_session_that_is_over_streams_nothing(authority: AsyncClient, alice: Created) -> None:
    """If the session has ended before the stream begins, it has no chunk, and what would make them is closed."""
    await authority.revoke_all(subject="alice")
    chunks, guard = Chunks(), AsyncConnectionGuard(authority)
    assert [chunk async for chunk in guarded_async(chunks.forever(), lambda: guard, alice.session)] == []
    await guard.close()


def streaming_site() -> Flask:
    """A site with an event stream that ends by itself after ten seconds."""
    site = make_site()

    @site.get("/orders")
    def orders() -> Response:
        subject, pause = current_subject(), threading.Event()

        def lines() -> Iterator[str]:
            for _ in range(500):
                yield f"data: {subject}\n\n"
                pause.wait(0.02)
            yield "data: the end\n\n"

        return Response(lines(), mimetype="text/event-stream")

    return site


async def test_flasks_event_stream_ends_with_its_session(app: App, authority: AsyncClient) -> None:
    """An event stream of Flask ends when its session is revoked, long before it would end by itself."""
    with running(app.address, streaming_site()) as site:
        browser = Browser(site)
        await browser.log_in()
        reading = asyncio.create_task(asyncio.to_thread(lambda: browser.request("GET", "/orders").text))
        await asyncio.sleep(0.5)
        await authority.revoke_all(subject="alice")
        text = await asyncio.wait_for(reading, 10)
        assert text.startswith("data: alice\n\n")
        assert "the end" not in text
