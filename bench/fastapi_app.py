"""One side of the figures about FastAPI, in a process of its own: a page that reads a cart, served by uvicorn.

`python -m bench.fastapi_app NAME PLACE` serves it on a free port, with sessions in `sessiond` or
`sessiond_without_near_cache` (PLACE: its address), in `redis` by starsessions (PLACE: its address), or in a signed
`cookie` (PLACE: nothing).
"""

from __future__ import annotations

import json
import secrets
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from redis.asyncio import Redis
from starlette.middleware.sessions import SessionMiddleware
from starsessions import SessionAutoloadMiddleware
from starsessions import SessionMiddleware as StoredSessionMiddleware
from starsessions.stores.redis import RedisStore

from sessiond_client.contrib.fastapi import SessiondMiddleware, current_subject, login

__all__ = ["application", "cart_of"]


def cart_of(user: str) -> list[dict[str, Any]]:
    """What is in the cart of a user."""
    return [{"item": f"cup of {user}", "count": 2}, {"item": "teapot", "count": 1}]


def application(name: str, place: str) -> FastAPI:
    """The application with sessions of this kind."""
    app = FastAPI()
    if name == "redis":
        app.add_middleware(SessionAutoloadMiddleware)
        app.add_middleware(StoredSessionMiddleware, store=RedisStore(connection=Redis.from_url(f"redis://{place}")))
    elif name == "cookie":
        app.add_middleware(SessionMiddleware, secret_key=secrets.token_hex(32))
    else:
        app.add_middleware(SessiondMiddleware, target=place, near_cache=name == "sessiond")
    with_us = name.startswith("sessiond")

    @app.post("/login")
    async def log_in(request: Request, user: str) -> dict[str, Any]:
        if with_us:
            await login(request, user)
        else:
            request.session["user"] = user
        request.session["cart"] = cart_of(user)
        return {}

    @app.get("/cart")
    async def cart(request: Request) -> dict[str, Any]:
        user = current_subject(request) if with_us else request.session["user"]
        return {"user": user, "cart": request.session["cart"]}

    return app


def main() -> None:
    """Serve until the process is told to end."""
    name, *place = sys.argv[1:]
    config = uvicorn.Config(application(name, *place or [""]), access_log=False, log_level="warning")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        host, port = listening.getsockname()
        print(json.dumps({"event": "serving", "address": f"{host}:{port}"}), flush=True)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
