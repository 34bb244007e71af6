"""ASGI applications on a real server in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

__all__ = ["serving_web"]


@asynccontextmanager
async def serving_web(app: Any, port: int = 0) -> AsyncIterator[str]:
    """Serve an application over HTTP on this port (0: any free one), and return its address, such as
    `http://localhost:1234`.
    """
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        config = uvicorn.Config(
            app, log_config=None, log_level="error", access_log=False, lifespan="on", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        running = asyncio.create_task(server._serve([listening]))  # `serve` would take over the signals of the test run
        try:
            while not server.started:
                await asyncio.sleep(0.01)
                if running.done():
                    running.result()
            yield f"http://localhost:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
