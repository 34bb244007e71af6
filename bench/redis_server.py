"""A Redis for comparisons: without persistence, on a free port of loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import Server
from bench.sides import expect

__all__ = ["redis_server", "running_redis"]

_START_SECONDS = 10.0


def redis_server() -> str | None:
    """Return the path of `redis-server`; None if it is not installed."""
    return shutil.which("redis-server")


@contextmanager
def running_redis(folder: Path) -> Iterator[Server]:
    """Run a Redis while the block runs."""
    program = redis_server()
    expect(program is not None, "redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(program), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)
    try:
        _wait_for(port)
        yield Server("redis", process.pid, f"127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            expect(time.monotonic() < give_up, "redis-server did not start")
            time.sleep(0.05)
