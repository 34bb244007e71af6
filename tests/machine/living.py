"""The real authority under the machine: its parts over a real SQLite file, below gRPC, without background tasks."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from sessiond.authority.authority import Authority
from sessiond.authority.policy_book import PolicyBook
from sessiond.authority.sweeper import Sweeper
from sessiond.authority.token_gate import Gate
from sessiond.cache.sessions import SessionCache
from sessiond.crypto.tokens import load_key_ring
from sessiond.detection.client_facts import FactReader
from sessiond.detection.suspicions import Watching
from sessiond.domain.event import Event
from sessiond.domain.policy import Policy
from sessiond.domain.values import Millis, Revision
from sessiond.eventlog.feed import Feed
from sessiond.eventlog.journal import Journal
from sessiond.store.contract import Commit, StoreFailed
from sessiond.store.sqlite.store import SqliteStore
from tests.support.clock import ManualClock

T = TypeVar("T")
_YEAR = Millis(365 * 86_400_000)


class LivingAuthority:
    """An authority that can be stopped, crashed and started again on the same folder.

    It keeps three sessions in memory, so that most of what it answers has gone through the store and back.
    """

    authority: Authority
    sweeper: Sweeper

    def __init__(self, folder: Path, policies: Mapping[str, Policy], clock: ManualClock) -> None:
        self._folder = folder
        self._policies = policies
        self._clock = clock
        self._numbers = itertools.count()
        self._runner = asyncio.Runner()
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to its end on the authority's loop."""
        return self._runner.run(work)

    def restart(self) -> None:
        """An orderly stop, and a start."""
        self.run(self._stop())
        self.run(self._start())

    def crash(self) -> None:
        """Drop everything that only memory knows, and start again."""
        self.run(self._drop())
        self.run(self._start())

    @property
    def revision(self) -> Revision:
        """The newest revision of the log."""
        return self._feed.revision

    def events_after(self, revision: Revision) -> list[Event]:
        """What the log has after a revision."""
        return self.run(self._store.events(revision, 1_000))

    def close(self) -> None:
        """End for good."""
        self.run(self._drop())
        self._runner.close()

    async def _start(self) -> None:
        self._store = await SqliteStore.open(self._folder / "sessiond.db")
        try:
            await self._wire()
        except BaseException:
            await self._store.close()
            raise

    async def _wire(self) -> None:
        self._feed = Feed(await self._store.head(), self._store.events)
        self._cache = SessionCache(self._store.session, capacity=3)
        self._journal = Journal(
            self._store, self._clock, self._cache.with_activity, self._publish, self._on_store_failure
        )
        keys = load_key_ring(self._folder / "sessiond.key", self._entropy)
        policies = PolicyBook(self._policies)
        self._watching = Watching(FactReader(None, None))
        gate = Gate(keys, self._watching.guesses, self._journal, self._clock)
        self.authority = Authority(
            self._store,
            self._journal,
            self._feed,
            self._cache,
            keys,
            policies,
            gate,
            self._watching,
            self._clock,
            self._entropy,
        )
        self.sweeper = Sweeper(
            self._store, self._journal, self._cache, policies, gate, self._clock, _YEAR, self._on_store_failure
        )

    async def _stop(self) -> None:
        await self.sweeper.save_activity(all_of_it=True)
        await self._drop()

    async def _drop(self) -> None:
        await self._journal.close()  # nothing waits: the machine takes one step at a time
        await self._store.close()

    def _entropy(self, length: int) -> bytes:
        # Not random, so that a failing example fails again.
        return hashlib.shake_128(next(self._numbers).to_bytes(8, "big")).digest(length)

    def _publish(self, commit: Commit) -> None:
        self._cache.apply(commit)
        self._watching.apply(commit.events)
        self._feed.publish(commit.events, commit.horizon)

    def _on_store_failure(self, failure: StoreFailed) -> None:
        raise AssertionError(f"the store failed: {failure}")
