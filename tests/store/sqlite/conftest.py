"""Fixtures for all tests of SQLite's files."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _private_files() -> Iterator[None]:
    """Files that a test creates are readable by their user only, as in a data folder."""
    before = os.umask(0o077)
    yield
    os.umask(before)
