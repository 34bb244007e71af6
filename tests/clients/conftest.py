"""Fixtures of the clients' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sessiond.app import App
from tests.clients.either import CLIENTS, Either


@pytest.fixture(params=CLIENTS, ids=lambda kind: str(kind.__name__))
async def client(request: pytest.FixtureRequest, app: App) -> AsyncIterator[Either]:
    """A client of `app`, of each kind in turn."""
    async with Either(request.param, app.address) as client:
        yield client
