"""Announcements come again after the connection that listens was lost, and a hint covers what was missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from sessiond.config.store_address import PostgresAddress
from sessiond.store.postgres.store import PostgresStore
from tests.support.proxy import PostgresProxy, proxied


@pytest.fixture
async def listening(database: str) -> AsyncIterator[tuple[PostgresProxy, PostgresStore, asyncio.Event]]:
    """A store that listens through a proxy, and the event that each hint sets."""
    hinted = asyncio.Event()
    async with proxied(database) as (proxy, url):
        store = await PostgresStore.open(PostgresAddress(url))
        store.on_announcement(hinted.set)
        await _next(hinted)  # listening has begun
        try:
            yield proxy, store, hinted
        finally:
            await store.close()


async def test_an_announcement_of_another_replica_is_a_hint(
    store: PostgresStore, listening: tuple[PostgresProxy, PostgresStore, asyncio.Event]
) -> None:
    """What one replica announces, another one hears."""
    _, _, hinted = listening
    store.on_announcement(lambda: None)
    store.announce()
    await _next(hinted)


async def test_a_replica_does_not_hear_itself(listening: tuple[PostgresProxy, PostgresStore, asyncio.Event]) -> None:
    """An own announcement is no hint: the next hint comes from the other replica."""
    _, own, hinted = listening
    heard: list[str] = []
    other = await PostgresStore.open(PostgresAddress(own._address.url))
    other.on_announcement(lambda: heard.append("other"))
    try:
        async with asyncio.timeout(10):
            while not heard:  # noqa: ASYNC110 - until the other one listens
                await asyncio.sleep(0.01)
            heard.clear()
            own.announce()
            while not heard:  # noqa: ASYNC110 - until the other one has heard, and so this one would have, too
                await asyncio.sleep(0.01)
        assert not hinted.is_set()
    finally:
        await other.close()


async def test_listening_goes_on_after_a_lost_connection(
    store: PostgresStore, listening: tuple[PostgresProxy, PostgresStore, asyncio.Event]
) -> None:
    """After a lost connection there is a hint at once, because one may have been missed, and more are heard."""
    proxy, _, hinted = listening
    store.on_announcement(lambda: None)
    for _ in range(2):
        proxy.refuses = True
        proxy.drop()
        await asyncio.sleep(0)
        assert not hinted.is_set()
        proxy.heal()
        await _next(hinted)
        store.announce()
        await _next(hinted)


async def _next(hinted: asyncio.Event) -> None:
    """Wait for the next hint."""
    async with asyncio.timeout(10):
        await hinted.wait()
    hinted.clear()
