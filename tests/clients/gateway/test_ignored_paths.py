"""Paths without sessions."""

from __future__ import annotations

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.gateway import Exchange, Gateway, GatewaySettings, WebRequest, account, run_async


async def test_the_cookie_stays(app: App) -> None:
    """On an ignored path nothing replaces the cookie of the user: data are not stored, and there is no CSRF token."""
    async with AsyncClient(app.address) as client:
        cookie = f"__Host-id={(await client.create(subject='alice')).token.reveal()}"
        gateway = Gateway(settings=GatewaySettings(ignored_paths=["/static/"]))
        request = WebRequest(method="GET", path="/static/a", headers=lambda name: [cookie] if name == "cookie" else [])
        exchange = Exchange(gateway, request)
        await run_async(client, exchange.open())
        exchange.values["theme"] = "dark"
        assert not await run_async(client, exchange.save())
        assert await run_async(client, account.csrf_token(exchange)) == ""
        assert "Set-Cookie" not in [name for name, _ in exchange.headers()]
