"""Fixtures of the gateway's tests: a browser in front of a gateway, with a client of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client.gateway import Gateway, GatewaySettings
from tests.clients.either import CLIENTS, Either, Kind
from tests.clients.gateway.visitor import Counting, Visitor
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

Configure = Callable[[str], Any]


@pytest.fixture
def seconds(clock: ManualClock) -> Callable[[], float]:
    """The gateway's clock: the authority's, in seconds."""
    return lambda: clock.now() / 1000


@pytest.fixture
def gateway(seconds: Callable[[], float]) -> Gateway:
    """A gateway with the settings as shipped."""
    return Gateway(clock=seconds)


@pytest.fixture
async def visitor(client: Either, gateway: Gateway) -> Visitor:
    """A browser without cookies; the gateway has read the policy already."""
    visitor = Visitor(Counting(client), gateway)
    await visitor.do(gateway.facts())
    return visitor


@pytest.fixture
def another(gateway: Gateway) -> Callable[..., Gateway]:
    """Another gateway with the same clock, and with the given settings."""
    return lambda **settings: Gateway(settings=GatewaySettings(**settings), clock=gateway.clock)


@pytest.fixture(params=CLIENTS, ids=lambda kind: str(kind.__name__))
async def configured(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, seconds: Callable[[], float]
) -> AsyncIterator[Callable[..., Any]]:
    """A function that starts an authority from the text of a configuration, and returns a browser in front of it."""
    kind: Kind = request.param
    async with AsyncExitStack() as stack:

        async def configure(text: str, **options: Any) -> Visitor:
            app: App = await stack.enter_async_context(serving(config_for(tmp_path / "configured", text), clock))
            client = await stack.enter_async_context(Either(kind, app.address, **options))
            visitor = Visitor(Counting(client), Gateway(clock=seconds))
            await visitor.do(visitor.gateway.facts())
            return visitor

        yield configure


@pytest.fixture(params=CLIENTS, ids=lambda kind: str(kind.__name__))
async def unreachable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Either]:
    """A client whose authority is not there."""
    kind: Kind = request.param
    async with Either(kind, f"unix:{tmp_path}/nobody", retries=0, timeout=1.0) as client:
        yield client
