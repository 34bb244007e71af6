"""What every test of SQLite's files needs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _private_files() -> Iterator[None]:
    """Files that a test makes are its user's alone, as a data folder's are."""
    before = os.umask(0o077)
    yield
    os.umask(before)
