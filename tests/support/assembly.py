"""An authority assembled by a test: over a store that the test watches or breaks, and without a sweeper."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from sessiond.app import Process, assemble, rpc_server
from sessiond.authority.authority import Authority
from sessiond.authority.policy_book import PolicyBook
from sessiond.crypto.tokens import KEY_BYTES, KeyRing
from sessiond.detection.client_facts import FactReader
from sessiond.domain.policy import PRESETS, Policy
from sessiond.store.contract import Decision, Store, StoreFailed, Transaction
from sessiond.store.sqlite.store import SqliteStore
from sessiond.system.clock import Clock
from tests.support.server import AsyncStub, stub_for, transport

__all__ = ["WatchedStore", "assembled"]

T = TypeVar("T")


class WatchedStore:
    """The real store; it counts its write transactions. `before` runs before each call, and may raise.

    The argument of `before` is the name of the method.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.authority_id = store.authority_id
        self.incarnations = store.incarnations
        self.writes = 0
        self.before: Callable[[str], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*arguments: Any) -> Any:
            self.before(name)
            return method(*arguments)

        return call

    async def kept_answers(self) -> int:
        """Return how many responses are stored."""
        rows = await self._store._db.all("SELECT count(*) FROM answers")
        return int(rows[0][0])

    async def write(self, decide: Callable[[Transaction], Awaitable[Decision[T]]], *, quiet: bool = False) -> T:
        """Write, and count it."""
        self.writes += 1
        self.before("write")
        return await self._store.write(decide, quiet=quiet)


@asynccontextmanager
async def assembled(
    folder: Path, clock: Clock, rules: Policy = PRESETS["owasp-low"], **changes: Any
) -> AsyncIterator[tuple[Authority, WatchedStore, AsyncStub, list[StoreFailed]]]:
    """Return an authority with the application `default`, its store, a client, and the store failures it reported.

    `changes` are fields of `Process`.
    """
    sqlite = await SqliteStore.open(folder / "sessiond.db")
    store, failures = WatchedStore(sqlite), list[StoreFailed]()
    keys = KeyRing([os.urandom(KEY_BYTES)])
    reader = FactReader(None, None)
    policies = PolicyBook({"default": rules})
    process = Process(keys, policies, reader, 1_000, clock, os.urandom, failures.append, **changes)
    authority = await assemble(cast("Store", store), process)
    server = rpc_server(authority, transport=transport())
    try:
        async with stub_for(await server.start("127.0.0.1:0")) as stub:
            yield authority, store, stub, failures
    finally:
        store.before = lambda _: None
        await server.stop(0)
        await authority.parts.journal.close()
        await sqlite.close()
