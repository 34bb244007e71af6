"""The baseline of `forward_auth_vs_bare`: a bare endpoint on the ASGI stack of `sessiond/http`, in its own process.

    python -m bench.bare_http HEADERS

Starlette routes the request, and the endpoint returns an empty response with these headers (JSON: a list of pairs).
Server, protocol, limits and event loop are those of sessiond.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sessiond.config import load_config
from sessiond.http.server import HttpServer


class Bare:
    """The application."""

    def __init__(self, headers: Sequence[tuple[str, str]]) -> None:
        self._headers = dict(headers)

    def application(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(routes=[Route("/check", self._check, methods=["GET"])])

    def stop(self) -> None:
        """Do nothing: nothing goes on."""

    async def _check(self, _: Request) -> Response:
        return Response(b"", 200, self._headers)


async def serve(headers: Sequence[tuple[str, str]]) -> None:
    """Serve on a free port until SIGTERM. Print the address as one line of JSON."""
    server = HttpServer(Bare(headers), load_config(None).max_calls)
    address = await server.start("127.0.0.1:0")
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print(json.dumps({"event": "serving", "address": address}), flush=True)
    await stopping.wait()
    await server.stop(1.0)


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.argv[1])))
