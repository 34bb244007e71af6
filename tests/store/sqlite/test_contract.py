"""The SQLite store fulfils the contract of a store, with plain and with sealed session data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import KEY_BYTES
from sessiond.store.sealed_data import StoreKeys
from sessiond.store.sqlite.store import SqliteStore
from tests.contracts.journal import JournalContract
from tests.contracts.store import Opener, StoreContract


class TestSqlite(StoreContract):
    """The contract, with a file in a folder of its own."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Opener:
        return lambda: SqliteStore.open(tmp_path / "sessiond.db")


class TestSqliteSealed(StoreContract):
    """The same with encryption: the promises about data do not depend on how it is stored."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Opener:
        keys = [bytes(KEY_BYTES)]
        return lambda: SqliteStore.open(
            tmp_path / "sessiond.db", lambda _: StoreKeys(DataCipher(keys, os.urandom, encrypts=True))
        )


class TestSqliteJournal(JournalContract):
    """The journal, over a file in a folder of its own."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Opener:
        return lambda: SqliteStore.open(tmp_path / "sessiond.db")
