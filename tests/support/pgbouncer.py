"""A real PgBouncer in transaction mode, for tests: Debian's package `pgbouncer`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from scripts.postgres import free_port

__all__ = ["through", "transaction_pool"]

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_PREFIX = ["setpriv", "--reuid=nobody"] if os.geteuid() == 0 else []  # PgBouncer refuses to run as root
_SETTINGS = """
[databases]
* = host={host} port={port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 6
server_round_robin = 1
server_idle_timeout = 2
max_client_conn = 500
"""
# With `server_round_robin` each transaction of a client gets another connection to the server.


@contextmanager
def transaction_pool(url: str) -> Iterator[int]:
    """Run a PgBouncer in front of the Postgres at a URL, and return its port. Skip the test if there is none."""
    if _PROGRAM is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    parts, own = urlsplit(url), free_port()
    with tempfile.TemporaryDirectory(prefix="sessiond-pgbouncer-") as folder:
        os.chmod(folder, 0o755)
        file = Path(folder) / "pgbouncer.ini"
        values = {"host": parts.hostname, "port": parts.port or 5432, "user": parts.username, "own": own}
        file.write_text(_SETTINGS.format(**values), encoding="utf-8")
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([*_PREFIX, _PROGRAM, str(file)], stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(process, own, Path(folder) / "log")
            yield own
        finally:
            process.kill()
            process.wait()


def through(database: str, port: int) -> str:
    """Return the URL of a database through the PgBouncer on a port."""
    parts = urlsplit(database)
    return urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}"))


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PgBouncer did not start: {log.read_text()}") from error
            time.sleep(0.02)
        else:
            return
