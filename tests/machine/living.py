"""The real authority under the machine: over a real store, below gRPC, without background tasks."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sessiond.authority.authority import Authority
from sessiond.authority.sweeper import Sweeper
from sessiond.domain.event import Event
from sessiond.domain.policy import Policy
from sessiond.domain.session import Session
from sessiond.domain.values import Revision, SessionId
from sessiond.store.contract import Changes, Decision, Transaction
from tests.support.assembled import Assembled
from tests.support.clock import ManualClock
from tests.support.postgres import new_database

T = TypeVar("T")


class LivingAuthority:
    """An authority that can be stopped, crashed and started again on the same folder.

    It keeps only three sessions in memory, so that most of its responses come from the store. That is a SQLite file, or
    a new database of the Postgres whose URL is given.
    """

    def __init__(self, folder: Path, policies: Mapping[str, Policy], clock: ManualClock, postgres: str = "") -> None:
        self._folder = folder
        self._policies = policies
        self._clock = clock
        self._numbers = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._database = self.run(new_database(postgres)) if postgres else ""
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on the authority's event loop."""
        return self._loop.run_until_complete(work)

    def restart(self) -> None:
        """Stop cleanly, and start again."""
        self.run(self.sweeper.save_activity(everything=True))
        self.crash()

    def crash(self) -> None:
        """Discard everything that is only in memory, and start again."""
        self.run(self._assembled.close())  # nothing is in progress: the machine takes one step at a time
        self.run(self._start())

    def change_policies(self, policies: Mapping[str, Policy]) -> None:
        """Put other policies into effect; they stay in effect after a restart."""
        self._policies = policies
        self.run(self.authority.change_policies(policies, {}))

    @property
    def authority(self) -> Authority:
        """The authority, until the next start."""
        return self._assembled.authority

    @property
    def sweeper(self) -> Sweeper:
        """The sweeper of the authority."""
        return self._assembled.sweeper

    @property
    def revision(self) -> Revision:
        """The newest revision of the log."""
        return self.authority.parts.feed.revision

    def sweep(self) -> None:
        """Run the sweeper once."""
        self.run(self._assembled.sweep())

    def events_after(self, revision: Revision) -> list[Event]:
        """Return the events of the log after a revision."""
        return self.run(self._assembled.store.events(revision, 1_000))

    def rows(self, ids: Sequence[SessionId]) -> Mapping[SessionId, Session]:
        """Return sessions as they are stored; omit ids that do not exist."""

        async def read(transaction: Transaction) -> Decision[Mapping[SessionId, Session]]:
            return Decision(Changes(), await transaction.sessions(ids))

        return self.run(self._assembled.store.write(read))

    def close(self) -> None:
        """Stop permanently."""
        self.run(self._assembled.close())
        self._loop.close()

    async def _start(self) -> None:
        self._assembled = await Assembled.open(
            self._folder, self._policies, self._clock, self._entropy, cache_sessions=3, database=self._database
        )

    def _entropy(self, length: int) -> bytes:
        # Not random, so that a failing example fails again.
        return hashlib.shake_128(next(self._numbers).to_bytes(8, "big")).digest(length)
