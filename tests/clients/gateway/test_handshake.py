"""Handshakes of WebSockets: where they come from is checked, although their method is safe."""

from __future__ import annotations

import pytest

from sessiond.app import App
from sessiond_client import AsyncClient, ClientClosed, SessiondError
from sessiond_client.gateway import Action, Exchange, Gateway, GatewaySettings, WebRequest, run_async
from tests.support.clock import ManualClock

MINUTE = 60_000


def exchange_of(gateway: Gateway, cookie: str, *, is_handshake: bool, **headers: str) -> Exchange:
    """The exchange of a GET with this cookie."""
    sent = {"cookie": f"__Host-id={cookie}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = WebRequest(
        method="GET",
        path="/",
        host="shop.example",
        headers=lambda name: [sent[name]] if name in sent else [],
        is_handshake=is_handshake,
    )
    return Exchange(gateway, request)


@pytest.mark.parametrize(
    ("headers", "action"),
    [
        ({}, Action.PROCEED),
        ({"origin": "https://shop.example"}, Action.PROCEED),
        ({"origin": "https://evil.example"}, Action.CSRF_ERROR),
        ({"origin": "null"}, Action.CSRF_ERROR),
        ({"sec_fetch_site": "cross-site"}, Action.CSRF_ERROR),
        ({"sec_fetch_site": "same-site"}, Action.CSRF_ERROR),
    ],
)
async def test_where_a_handshake_comes_from(app: App, headers: dict[str, str], action: Action) -> None:
    """A handshake from a page of another site is refused; one of the own site needs no CSRF token."""
    async with AsyncClient(app.address) as client:
        token = (await client.create(subject="alice")).token.reveal()
        exchange = exchange_of(Gateway(), token, is_handshake=True, **headers)
        await run_async(client, exchange.open())
        assert exchange.gate() is action
        assert (exchange.session is not None) is (action is Action.PROCEED)
        plain = exchange_of(Gateway(), token, is_handshake=False, **headers)
        await run_async(client, plain.open())
        assert plain.gate() is Action.PROCEED


async def test_an_exempt_handshake(app: App) -> None:
    """Below `csrf_exempt` pages of other sites may open WebSockets."""
    async with AsyncClient(app.address) as client:
        token = (await client.create(subject="alice")).token.reveal()
        gateway = Gateway(settings=GatewaySettings(csrf_exempt=["/"]))
        exchange = exchange_of(gateway, token, is_handshake=True, origin="https://evil.example")
        await run_async(client, exchange.open())
        assert exchange.gate() is Action.PROCEED


async def test_a_failure_after_a_renewal(app: App, clock: ManualClock) -> None:
    """If the authority fails after a validation that renewed the token, the renewed cookie is not sent."""
    async with AsyncClient(app.address) as client:
        token = (await client.create(subject="alice")).token
        for minutes in (25, 25, 15):
            clock.advance(minutes * MINUTE)
            exchange = exchange_of(Gateway(), token.reveal(), is_handshake=False)
            await run_async(client, exchange.open())
        assert [name for name, _ in exchange.headers()].count("Set-Cookie") == 1
        assert exchange.failed(await _failure(client)) is Action.RETRY_LATER
        assert "Set-Cookie" not in [name for name, _ in exchange.headers()]


async def _failure(client: AsyncClient) -> SessiondError:
    await client.close()
    with pytest.raises(ClientClosed) as failed:
        await client.authority()
    return failed.value
