"""Fixtures for tests of replicas: a Postgres that the test may stop and start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.postgres import LocalPostgres
from tests.support.postgres import own_postgres


@pytest.fixture
def server() -> Iterator[LocalPostgres]:
    """A running Postgres of the test's own."""
    with own_postgres() as server:
        yield server
