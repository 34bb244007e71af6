"""What becomes of requests for users if nobody is logged in."""

from __future__ import annotations

import pytest

from sessiond_client import AsyncClient
from sessiond_client.gateway import (
    Action,
    Exchange,
    Gateway,
    GatewaySettings,
    Refused,
    RouteRequirements,
    WebRequest,
    account,
    routes,
    run_async,
)
from tests.clients.test_outages import refusing


async def test_an_outage_never_leads_to_the_login() -> None:
    """During an outage, a page for users on a public path gets 503: the login could not help."""
    with refusing() as nobody:
        async with AsyncClient(nobody, retries=0) as client:
            gateway = Gateway(settings=GatewaySettings(public_paths=["/"]))
            request = WebRequest(
                method="GET", path="/", headers=lambda name: ["__Host-id=x"] if name == "cookie" else []
            )
            exchange = Exchange(gateway, request)
            await run_async(client, exchange.open())
            assert exchange.gate() is Action.PROCEED
            assert await run_async(client, routes.check(exchange, RouteRequirements())) is Action.RETRY_LATER
            assert await run_async(client, routes.check(exchange, RouteRequirements(guests=True))) is Action.PROCEED
            with pytest.raises(Refused) as refused:
                await run_async(client, account.devices(exchange))
            assert refused.value.action is Action.RETRY_LATER
