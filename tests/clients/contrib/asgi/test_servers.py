"""A real server: uvicorn over sockets, with two workers, and WebSockets."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import websockets.asyncio.client as websockets_client
from websockets.exceptions import InvalidStatus

from sessiond.app import App
from sessiond_client import AsyncClient
from tests.clients.contrib.asgi.shop import COOKIE

ROOT = Path(__file__).parents[4]


@asynccontextmanager
async def uvicorn(folder: Path, target: str, workers: int) -> AsyncIterator[str]:
    """Run the site, and return its address. It must end cleanly."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "uvicorn.log"
    command = [sys.executable, "-m", "uvicorn", "tests.clients.contrib.asgi.site:app", "--port", str(port)]
    environment = {**os.environ, "SESSIOND_TARGET": target, "PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [*command, "--workers", str(workers)], cwd=ROOT, env=environment, stdout=sink, stderr=sink
        )
    try:
        async with asyncio.timeout(60), httpx2.AsyncClient() as client:
            while True:
                assert process.poll() is None, log.read_text()
                try:
                    await client.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 30)
    text = log.read_text()
    assert "Traceback" not in text, text
    assert "Task was destroyed" not in text, text


async def test_two_workers(app: App, tmp_path: Path) -> None:
    """Every request finds what the one before has stored, whichever of two processes serves it."""
    async with uvicorn(tmp_path, app.address, 2) as address:
        async with httpx2.AsyncClient(base_url=f"http://{address}") as client:
            cookie = (await client.post("/login")).headers["set-cookie"].partition(";")[0]
            assert (await client.get("/")).status_code == 401
        for visits in range(1, 21):
            async with httpx2.AsyncClient(base_url=f"http://{address}", headers={"Cookie": cookie}) as client:
                assert (await client.get("/")).json() == visits


async def test_sockets(app: App, tmp_path: Path) -> None:
    """Over a real server a WebSocket is opened by its user, and refused with the status for anybody else."""
    async with AsyncClient(app.address) as authority:
        cookie = (await authority.create(subject="alice")).token.reveal()
    async with uvicorn(tmp_path, app.address, 1) as address:
        url, own = f"ws://{address}/socket", {"Cookie": f"{COOKIE}={cookie}"}
        async with websockets_client.connect(url, additional_headers=own, origin=f"http://{address}") as opened:  # type: ignore[arg-type]
            assert await opened.recv() == "alice"
        for headers, origin, status in (
            ({}, f"http://{address}", 401),
            (own, "https://evil.example", 403),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with websockets_client.connect(url, additional_headers=headers, origin=origin):  # type: ignore[arg-type]
                    pass
            assert refused.value.response.status_code == status


async def test_workers_that_fork(app: App) -> None:
    """Workers that fork after the application was loaded serve requests, each with a client of its own."""
    async with AsyncClient(app.address) as authority:
        cookie = (await authority.create(subject="alice")).token.reveal()
    command = [sys.executable, "-m", "tests.clients.contrib.asgi.forking", app.address, f"{COOKIE}={cookie}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["200", "200"]), done.stderr
