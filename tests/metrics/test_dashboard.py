"""The dashboard for Grafana: each of its panels shows something of a real server, in a real Prometheus."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sessiond_client import AsyncClient
from tests.metrics.prometheus import needs_prometheus, watching
from tests.metrics.scraping import address_of
from tests.support.replicas import replica
from tests.support.server import config_for, serving, stub_for
from tests.support.sidecars import beside, is_open, until
from tests.support.streams import read, subscribe

DASHBOARD: dict[str, Any] = json.loads(Path("deploy/grafana/sessiond.json").read_text(encoding="utf-8"))
EXPRESSIONS = [
    (panel["title"], target["expr"].replace("$__rate_interval", "4s").replace("$instance", ".*"))
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


@needs_prometheus
@pytest.mark.slow
async def test_every_panel_shows_something(tmp_path: Path, database: str) -> None:
    """With an authority, a replica and a sidecar that have something to do, no expression is without a value."""
    listen: dict[str, Any] = {"metrics_listen": "127.0.0.1:0"}
    async with (
        serving(config_for(tmp_path / "one", "[limits]\nrate_per_application = 500\n", **listen)) as app,
        replica(tmp_path, database, 0, **listen) as other,
        beside(app.address, tmp_path, **listen) as sidecar,
        watching(
            tmp_path, sessiond=address_of(app), sessiond_replica=address_of(other), sessiond_sidecar=address_of(sidecar)
        ) as prometheus,
        AsyncClient(sidecar.address) as client,
        stub_for(app.address) as stub,
    ):
        await until(lambda: is_open(sidecar))
        app._limit_log.refused("caller", "limits.rate_per_caller")
        call = subscribe(stub)
        await read(call)

        async def work() -> None:
            while True:
                token = (await client.create(subject="ada")).token
                for _ in range(3):
                    await client.validate(token)
                await asyncio.sleep(0.01)

        working = asyncio.ensure_future(work())
        try:
            for title, expression in EXPRESSIONS:

                async def has_value(expression: str = expression) -> bool:
                    return any(value == value for value in await prometheus.values(expression))

                try:
                    await until(has_value)
                except TimeoutError:
                    pytest.fail(f"{title}: {expression}")
        finally:
            working.cancel()
            call.cancel()


def test_panels_have_places_of_their_own() -> None:
    """Each panel has a number, a title, a description and a place that no other panel has."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
    assert all(panel["title"] and panel["description"] for panel in panels)
