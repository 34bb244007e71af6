"""A server that forks workers after it has loaded the application; see test_servers.

Its arguments are the authority's address and a session cookie. It prints the status of each worker's response.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from tests.clients.contrib.asgi.shop import Browser, living, shop

WORKERS = 2
PATIENCE = 20
"""Seconds after which a worker that hangs is ended by a signal."""


async def work(app: Any, cookie: str) -> None:
    """Serve one request of the user."""
    async with living(app):
        browser = Browser(app)
        async with browser.http:
            answer = await browser.get("/account", Cookie=cookie)
            print(answer.status_code, flush=True)  # noqa: T201 - what the test reads


def main(target: str, cookie: str) -> None:
    app = shop(target, near_cache=True)
    codes = []
    for _ in range(WORKERS):
        pid = os.fork()
        if pid == 0:
            signal.alarm(PATIENCE)
            asyncio.run(work(app, cookie))
            sys.exit(0)
        codes.append(os.waitpid(pid, 0)[1])
    sys.exit(any(codes))


if __name__ == "__main__":
    main(*sys.argv[1:])
