"""Behind a proxy that ends TLS, applications learn the scheme and the client's address as the page on HTTPS says."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from flask import Flask, redirect, request
from starlette.applications import Starlette
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response as Redirect

from sessiond.app import App
from sessiond_client import AsyncClient
from sessiond_client.contrib import asgi, flask
from sessiond_client.gateway import TrustedProxies
from tests.test_docs import DOCS

PAGE = (DOCS / "how-to/use-https-everywhere.md").read_text(encoding="utf-8")
CLIENT, FORGED, PROXY = "203.0.113.9", "198.51.100.1", "127.0.0.1"
BY_THE_PROXY = {"X-Forwarded-For": f"{FORGED}, {CLIENT}", "X-Forwarded-Proto": "https"}


async def seen(app: App) -> str:
    """The address that sessiond has got of the client that logged alice in."""
    async with AsyncClient(app.address) as client:
        (session,) = [session async for session in client.list(subject="alice")]
    assert session.client is not None
    return session.client.ip_address


@pytest.mark.parametrize(
    ("proxies", "found"), [("127.0.0.1", CLIENT), ("*", FORGED)], ids=["the proxy's address", "any address"]
)
async def test_uvicorn(app: App, proxies: str, found: str) -> None:
    """Uvicorn takes both from the proxies that it trusts; if it trusts all, from what the client wrote."""

    async def log_in(request: Request) -> Response:
        await asgi.login(request, "alice")
        return PlainTextResponse(request.url.scheme)

    site: Any = Starlette(routes=[Route("/login", log_in, methods=["POST"])])
    site.add_middleware(asgi.SessiondMiddleware, target=app.address, near_cache=False)
    site.add_middleware(HTTPSRedirectMiddleware)
    served: Any = ProxyHeadersMiddleware(site, trusted_hosts=proxies)
    transport = httpx2.ASGITransport(app=served, client=(PROXY, 50_000))
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop.example") as browser:
        assert (await browser.post("/login")).status_code == 307
        assert (await browser.post("/login", headers=BY_THE_PROXY)).text == "https"
    assert await seen(app) == found
    assert "--forwarded-allow-ips ADDRESS" in PAGE


@pytest.mark.parametrize(
    ("replaces_address", "trusted"),
    [(0, TrustedProxies(hops=1)), (1, TrustedProxies())],
    ids=["trusted_proxies", "ProxyFix"],
)
async def test_flask(app: App, replaces_address: int, trusted: TrustedProxies) -> None:
    """ProxyFix gives Flask the scheme. Either `trusted_proxies` or ProxyFix finds the client's address."""
    site = Flask("site")

    @site.before_request
    def only_https() -> Redirect | None:
        return None if request.is_secure else redirect(request.url.replace("http://", "https://", 1), 308)

    @site.post("/login")
    def log_in() -> str:
        flask.login("alice")
        return request.scheme

    extension = flask.Sessiond(site, app.address, trusted_proxies=trusted, near_cache=False)
    site.wsgi_app = ProxyFix(site.wsgi_app, x_for=replaces_address, x_proto=1)  # type: ignore[method-assign]
    browser = site.test_client()
    try:
        assert (await asyncio.to_thread(browser.post, "/login")).status_code == 308
        assert (await asyncio.to_thread(browser.post, "/login", headers=BY_THE_PROXY)).text == "https"
    finally:
        extension.close()
    assert await seen(app) == CLIENT
    assert "ProxyFix(app.wsgi_app, x_for=0, x_proto=1)" in PAGE
