"""Starlette's test client: another event loop for each request, and a client address that is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.testclient import TestClient

from sessiond.app import App
from sessiond_client.contrib.fastapi import CurrentUser, SessiondMiddleware, csrf_token, login


def application(target: str) -> FastAPI:
    """A small application, as its developer would test it: with all defaults."""
    app = FastAPI()
    app.add_middleware(SessiondMiddleware, target=target)

    @app.post("/login")
    async def log_in(request: Request) -> str:
        await login(request, "alice")
        return await csrf_token(request)

    @app.get("/")
    async def home(user: CurrentUser, request: Request) -> dict[str, Any]:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return {"user": user, "visits": request.session["visits"]}

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, user: CurrentUser) -> None:
        await websocket.accept()
        await websocket.send_text(user)
        await websocket.close()

    return app


def visit(client: TestClient) -> None:
    """Log in, come back twice, and open a WebSocket."""
    assert client.get("/").status_code == 401
    assert client.post("/login").status_code == 200
    for visits in (1, 2, 3):
        assert client.get("/").json() == {"user": "alice", "visits": visits}
    with client.websocket_connect("wss://testserver/socket") as websocket:
        assert websocket.receive_text() == "alice"


@pytest.mark.parametrize("entered", [True, False], ids=["with", "without"])
async def test_it_works(app: App, entered: bool) -> None:
    """The test client works inside of a `with`, with one loop, and without, with a loop for each request."""

    def run() -> None:
        client = TestClient(application(app.address), base_url="https://testserver")
        if entered:
            with client:
                visit(client)
        else:
            visit(client)

    await asyncio.to_thread(run)


async def test_a_handshake_is_refused(app: App) -> None:
    """The test client sees the status of a WebSocket that is refused."""

    def run() -> int:
        from starlette.testclient import WebSocketDenialResponse

        client = TestClient(application(app.address), base_url="https://testserver")
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("wss://testserver/socket"):
            pass
        return denied.value.status_code

    assert await asyncio.to_thread(run) == 401
