"""Whether a replica is ready to get calls, as health checks see it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx2

from scripts.postgres import LocalPostgres
from sessiond.config.store_address import PostgresAddress
from tests.support.clock import ManualClock
from tests.support.postgres import new_database, start_again
from tests.support.server import config_for, serving
from tests.support.sidecars import health_of, until

SERVICE = "sessiond.v1.SessionAuthority"


async def test_a_replica_without_its_database(tmp_path: Path, server: LocalPostgres, clock: ManualClock) -> None:
    """A replica that cannot reach its database is not ready, but alive; it is ready again when the database is back."""
    store = PostgresAddress(await new_database(server.url()))
    config = config_for(tmp_path, store=store, http_listen="127.0.0.1:0")
    async with serving(config, clock) as app, httpx2.AsyncClient() as web:
        assert app._endpoints._http is not None
        page = f"http://{app._endpoints._http.address}/healthz"

        async def seen() -> list[object]:
            names = [await health_of(app.address, name) for name in ("", SERVICE, "live")]
            return [*names, (await web.get(page)).status_code]

        assert await seen() == ["SERVING", "SERVING", "SERVING", 200]
        await asyncio.to_thread(server.stop, signal.SIGINT)
        await until(lambda: is_ready(app.address, False))
        assert await seen() == ["NOT_SERVING", "NOT_SERVING", "SERVING", 503]
        await asyncio.to_thread(start_again, server)
        await until(lambda: is_ready(app.address, True))
        assert await seen() == ["SERVING", "SERVING", "SERVING", 200]


async def is_ready(address: str, wanted: bool) -> bool:
    """Whether health checks say that the service can be used, or that it cannot, as wanted."""
    return (await health_of(address, SERVICE) == "SERVING") is wanted
