"""Several replicas in this process, over one Postgres database."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sessiond.app import App
from sessiond.config.store_address import parse_store
from sessiond.system.clock import Clock
from tests.support.server import config_for, serving

__all__ = ["replica", "replicas"]


@asynccontextmanager
async def replica(
    folder: Path, database: str, number: int, clock: Clock | None = None, text: str = "", **changes: Any
) -> AsyncIterator[App]:
    """Run one replica, with a copy of the first one's key file."""
    mine, first = folder / f"replica-{number}", folder / "replica-0" / "data" / "sessiond.key"
    config = config_for(mine, text, store=parse_store(database), **changes)
    if first.exists() and not (mine / "data").exists():
        (mine / "data").mkdir(parents=True, mode=0o700)
        shutil.copy(first, mine / "data" / "sessiond.key")
    async with serving(replace(config), clock) as app:
        yield app


@asynccontextmanager
async def replicas(
    folder: Path, database: str, count: int = 2, clock: Clock | None = None, text: str = "", **changes: Any
) -> AsyncIterator[list[App]]:
    """Run some replicas with the same policies and keys."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(replica(folder, database, number, clock, text, **changes))
            for number in range(count)
        ]
