"""The sweeper outlives a store that does not answer, and stops with one that has failed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from sessiond.app import Process, assemble
from sessiond.authority.policy_book import PolicyBook
from sessiond.authority.sweeper import Sweeper
from sessiond.crypto.tokens import KEY_BYTES, KeyRing
from sessiond.detection.client_facts import FactReader
from sessiond.domain.policy import PRESETS
from sessiond.domain.session import Session
from sessiond.domain.values import CauseKind, Instant, Millis
from sessiond.store.contract import StoreFailed, StoreUnavailable
from sessiond.store.sqlite.store import SqliteStore
from tests.contracts import samples
from tests.contracts.store import put
from tests.store.faulty import FaultyStore
from tests.support.clock import START, ManualClock
from tests.support.held import until

YEAR = Millis(365 * 86_400_000)


class Swept:
    """An authority over a store with faults, its sweeper at work without a pause, and a session that is overdue."""

    def __init__(self, store: FaultyStore, overdue: Session) -> None:
        self.store = store
        self.overdue = overdue
        self.failures: list[StoreFailed] = []

    async def start(self) -> None:
        """Put the parts together and let the sweeper run."""
        process = Process(
            KeyRing([bytes(KEY_BYTES)]),
            PolicyBook({"default": PRESETS["owasp-low"]}),
            FactReader(None, None),
            100,
            ManualClock(START),
            os.urandom,
            self.failures.append,
        )
        self.parts = (await assemble(self.store, process)).parts
        self.sweeper = Sweeper(self.parts, YEAR, self.failures.append, interval=0)
        self.running = asyncio.create_task(self.sweeper.run())

    async def stop(self) -> None:
        """Stop the sweeper and the journal."""
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running
        await self.parts.journal.close()

    async def has_tried(self, times: int) -> None:
        """Return once the sweeper has asked so often for what is due."""
        asked = self.store.asked
        await until(lambda: self.store.asked >= asked + times)

    async def has_ended(self) -> bool:
        """Whether the overdue session has ended."""
        session = await self.store.session(self.overdue.id)
        assert session is not None
        return session.ending is not None and session.ending.cause.kind is CauseKind.IDLE_TIMEOUT


@pytest.fixture
async def swept(tmp_path: Path) -> AsyncIterator[Swept]:
    store = await SqliteStore.open(tmp_path / "sessiond.db")
    overdue = samples.session(START - 10, idle_deadline=Instant(START - 1))
    await put(store, overdue)
    swept = Swept(FaultyStore(store), overdue)
    yield swept
    await swept.stop()
    await store.close()


async def test_an_unavailable_store_puts_the_sweep_off(swept: Swept) -> None:
    """While the store does not answer the sweeper asks again and again; once it does, what is overdue ends."""
    swept.store.break_due = StoreUnavailable("injected: connection refused")
    await swept.start()
    await swept.has_tried(3)
    assert not await swept.has_ended()
    swept.store.break_due = None
    await until(lambda: swept.parts.feed.revision == 1)
    assert await swept.has_ended()
    assert swept.failures == []


async def test_an_unavailable_commit_puts_the_sweep_off(swept: Swept) -> None:
    """A commit that is not answered for ends no sweeper: the next round ends what is overdue."""
    swept.store.break_once = True
    await swept.start()
    await until(lambda: swept.parts.feed.revision == 1)
    assert not swept.store.break_once
    assert await swept.has_ended()
    assert swept.failures == []


async def test_a_fault_of_ours_is_not_the_last_round(swept: Swept) -> None:
    """An exception that nobody foresaw ends a round, not the sweeper."""
    swept.store.break_due = ZeroDivisionError("injected")
    await swept.start()
    await swept.has_tried(2)
    swept.store.break_due = None
    await until(lambda: swept.parts.feed.revision == 1)
    assert swept.failures == []


async def test_a_failed_store_ends_the_sweeper(swept: Swept) -> None:
    """A store that has failed under the sweeper's own read is reported once, and the sweeper stops."""
    failure = StoreFailed("injected: disk I/O error")
    swept.store.break_due = failure
    await swept.start()
    await until(swept.running.done)
    assert swept.failures == [failure]
    assert swept.store.asked == 1
