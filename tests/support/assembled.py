"""An authority over a real SQLite file, below gRPC, without background tasks: tests call them explicitly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sessiond.app import Process, assemble
from sessiond.authority.authority import Authority
from sessiond.authority.policy_book import PolicyBook
from sessiond.authority.sweeper import Sweeper
from sessiond.config.store_address import PostgresAddress
from sessiond.crypto.key_file import load_key_ring
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import KeyRing
from sessiond.detection.client_facts import FactReader
from sessiond.domain.policy import Policy
from sessiond.domain.values import Entropy, Millis
from sessiond.store.contract import Store, StoreFailed
from sessiond.store.postgres.store import PostgresStore
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.shared import SharedStore
from sessiond.store.sqlite.store import SqliteStore
from sessiond.system.clock import Clock

__all__ = ["Assembled"]

_YEAR = Millis(365 * 86_400_000)


@dataclass(frozen=True, slots=True)
class Assembled:
    """An authority, its sweeper and its store."""

    authority: Authority
    sweeper: Sweeper
    store: Store

    @classmethod
    async def open(
        cls,
        folder: Path,
        policies: Mapping[str, Policy],
        clock: Clock,
        entropy: Entropy,
        reader: FactReader | None = None,
        cache_sessions: int = 10_000,
        database: str = "",
    ) -> Assembled:
        """Open or create the database in a folder, with its keys. A failure of the store fails the test.

        With the URL of a Postgres database, that is the store, and the folder has the keys alone.
        """
        keys: list[KeyRing] = []

        def load_keys(is_new: bool) -> StoreKeys:
            keys.append(load_key_ring(folder / "sessiond.key", entropy, may_create=is_new))
            return StoreKeys(DataCipher(keys[0].materials(), entropy, encrypts=False), keys[0].fingerprints())

        store, shared = await _open(folder, database, load_keys, entropy)
        try:
            process = Process(
                keys[0],
                PolicyBook(policies),
                reader or FactReader(None, None),
                cache_sessions,
                clock,
                entropy,
                _store_failed,
                shared=shared,
            )
            authority = await assemble(store, process)
        except BaseException:
            await store.close()
            raise
        return cls(authority, Sweeper(authority.parts, _YEAR, _store_failed), store)

    async def sweep(self) -> None:
        """Run the sweeper once."""
        await self.sweeper.sweep()
        await self.sweeper.save_activity()
        await self.sweeper.prune()
        await self.sweeper.forget_answers()
        await self.authority.parts.gate.release_due()

    async def close(self) -> None:
        """Stop as in a crash: everything that is only in memory is lost."""
        await self.authority.parts.journal.close()
        await self.store.close()


async def _open(
    folder: Path, database: str, load_keys: Callable[[bool], StoreKeys], entropy: Entropy
) -> tuple[Store, SharedStore | None]:
    if not database:
        return await SqliteStore.open(folder / "sessiond.db", load_keys, entropy), None
    store = await PostgresStore.open(PostgresAddress(database), load_keys, entropy)
    return store, store


def _store_failed(failure: StoreFailed) -> None:
    raise AssertionError(f"the store failed: {failure}")
