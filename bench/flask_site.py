"""One side of the figures about Flask: a page that reads a cart, behind a threaded server, in a process of its own.

`python -m bench.flask_site KIND PLACE` serves until it is ended. KIND says where the sessions are, PLACE is an address:

- `sessiond`, `sessiond_without_near_cache`: at an authority at PLACE.
- `redis`: in a Redis at PLACE, by Flask-Session as it is by default: it writes each session at each request, so that
  the session lives on. `redis_read_only`: only if it was changed.
- `cookie`: in Flask's own signed cookie. PLACE is not used.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import waitress
from flask import Flask, request, session

from bench.seed import APPLICATION
from bench.web_load import CONNECTIONS

__all__ = ["cart_of", "make_site"]


def cart_of(user: str) -> list[Any]:
    """Return what is in the cart of a user."""
    return [{"item": f"{user}-tea", "count": 2}, {"item": f"{user}-cup", "count": 1}]


def _with_sessiond(site: Flask, place: str, *, near_cache: bool) -> None:
    from sessiond_client.contrib.flask import Sessiond, current_subject, login

    Sessiond(site, place, application=APPLICATION, near_cache=near_cache)

    @site.post("/login")
    def log_in() -> dict[str, str]:
        session["cart"] = cart_of(request.args["user"])
        login(request.args["user"])
        return {}

    @site.get("/cart")
    def cart() -> dict[str, Any]:
        return {"user": current_subject(), "cart": session["cart"]}


def _with_flask(site: Flask) -> None:
    site.secret_key = "not a secret: it signs the sessions of a benchmark"

    @site.post("/login")
    def log_in() -> dict[str, str]:
        session["user"] = request.args["user"]
        session["cart"] = cart_of(request.args["user"])
        return {}

    @site.get("/cart")
    def cart() -> dict[str, Any]:
        return {"user": session["user"], "cart": session["cart"]}


def _with_redis(site: Flask, place: str, *, read_only: bool) -> None:
    from flask_session import Session
    from redis import Redis

    site.config.from_mapping(
        SESSION_TYPE="redis",
        SESSION_REDIS=Redis.from_url(f"redis://{place}"),
        SESSION_REFRESH_EACH_REQUEST=not read_only,
    )
    Session(site)
    _with_flask(site)


def make_site(kind: str, place: str) -> Flask:
    """Return the site of this kind."""
    site = Flask("bench")
    if kind.startswith("sessiond"):
        _with_sessiond(site, place, near_cache=kind == "sessiond")
    elif kind.startswith("redis"):
        _with_redis(site, place, read_only=kind == "redis_read_only")
    else:
        _with_flask(site)
    return site


def main(kind: str, place: str) -> None:
    """Serve, and print the address in the form of the other servers."""
    server = waitress.create_server(make_site(kind, place), host="127.0.0.1", port=0, threads=CONNECTIONS)
    address = f"127.0.0.1:{server.effective_port}"
    print(json.dumps({"event": "serving", "address": address}), flush=True)
    server.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
