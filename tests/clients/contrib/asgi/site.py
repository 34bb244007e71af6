"""An application for a server in a process of its own: `uvicorn tests.clients.contrib.asgi.site:app`."""

from __future__ import annotations

import os

from fastapi import FastAPI, Request, WebSocket

from sessiond_client.contrib.fastapi import CurrentUser, SessiondMiddleware, login

__all__ = ["app"]

app = FastAPI()
app.add_middleware(SessiondMiddleware, target=os.environ["SESSIOND_TARGET"], near_cache=False)


@app.post("/login")
async def log_in(request: Request) -> None:
    """Log in."""
    await login(request, "alice")
    request.session["visits"] = 0


@app.get("/")
async def home(request: Request, user: CurrentUser) -> int:
    """Count visits."""
    request.session["visits"] += 1
    visits: int = request.session["visits"]
    return visits


@app.websocket("/socket")
async def socket(websocket: WebSocket, user: CurrentUser) -> None:
    """Say who is there."""
    await websocket.accept()
    await websocket.send_text(user)
    await websocket.close()
