"""The Postgres store fulfils the contract of a store, with plain and with sealed session data."""

from __future__ import annotations

import os

import pytest

from sessiond.config.store_address import PostgresAddress
from sessiond.crypto.session_data import DataCipher
from sessiond.crypto.tokens import KEY_BYTES
from sessiond.store.postgres.store import PostgresStore
from sessiond.store.sealed_data import StoreKeys
from tests.contracts.journal import JournalContract
from tests.contracts.store import Opener, StoreContract


class TestPostgres(StoreContract):
    """The contract, with a database of its own for each test."""

    @pytest.fixture
    def open_store(self, database: str) -> Opener:
        return lambda: PostgresStore.open(PostgresAddress(database))


class TestPostgresSealed(StoreContract):
    """The same with encryption: the promises about data do not depend on how it is stored."""

    @pytest.fixture
    def open_store(self, database: str) -> Opener:
        keys = [bytes(KEY_BYTES)]
        return lambda: PostgresStore.open(
            PostgresAddress(database), lambda _: StoreKeys(DataCipher(keys, os.urandom, encrypts=True))
        )


class TestPostgresJournal(JournalContract):
    """The journal, over a database of its own for each test."""

    @pytest.fixture
    def open_store(self, database: str) -> Opener:
        return lambda: PostgresStore.open(PostgresAddress(database))
