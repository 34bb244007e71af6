"""The SQLite store keeps the stores' contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond.stores.sqlite import SqliteStore
from tests.contracts.store import Opener, StoreContract


class TestSqlite(StoreContract):
    """A file in a folder of its own."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Opener:
        return lambda: SqliteStore.open(tmp_path / "sessiond.db")
