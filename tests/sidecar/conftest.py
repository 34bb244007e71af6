"""Fixtures: an authority, and everything that a test asks of it goes through a sidecar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond.sidecar_app import Sidecar
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, stub_for
from tests.support.sidecars import beside, is_open, until


@pytest.fixture
async def sidecar(app: App, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Sidecar]:
    """A sidecar of `app`, whose cache may answer. Its leases and answers last by the clock that the test sets."""
    async with beside(app.address, tmp_path, lambda: int(clock.now())) as sidecar:
        await until(lambda: is_open(sidecar))
        yield sidecar


@pytest.fixture
async def stub(sidecar: Sidecar) -> AsyncIterator[AsyncStub]:
    """The generated stub, connected to the sidecar."""
    async with stub_for(sidecar.address) as stub:
        yield stub
