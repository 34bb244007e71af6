"""A real authority for tests: in this process with a clock to set, or in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import grpc

from sessiond.app import App
from sessiond.config import Config, load_config
from sessiond.store.sqlite.store import SqliteStore
from sessiond.system.clock import Clock
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

if TYPE_CHECKING:  # the generated type of the stub on an asynchronous channel exists for type checkers only
    from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityAsyncStub as AsyncStub
else:
    AsyncStub = SessionAuthorityStub

__all__ = ["AsyncStub", "ServerProcess", "config_for", "serving", "sqlite_of", "stub_for", "transport"]


def transport() -> str:
    """Return the transport that the test run has chosen (`--transport`)."""
    return os.environ.get("SESSIOND_TRANSPORT", "grpcio")


def config_for(folder: Path, text: str = "", **changes: Any) -> Config:
    """Return a configuration on a free port and the chosen transport, from the text of a `sessiond.toml`."""
    file = None
    if text:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "sessiond.toml"
        file.write_text(text, encoding="utf-8")
    settings: dict[str, Any] = {"data": folder / "data", "listen": "127.0.0.1:0", "transport": transport()}
    return replace(load_config(file), **settings | changes)


@asynccontextmanager
async def serving(config: Config, clock: Clock | None = None) -> AsyncIterator[App]:
    """Run an authority in this process."""
    app = await App.start(config, clock)
    try:
        yield app
    finally:
        await app.stop()


def sqlite_of(app: App) -> SqliteStore:
    """Return the embedded store of an authority in this process."""
    store = app._store
    assert isinstance(store, SqliteStore)
    return store


@asynccontextmanager
async def stub_for(address: str) -> AsyncIterator[AsyncStub]:
    """Return the generated stub on a channel of its own."""
    # Without local subchannel pooling, two channels to a restarted server share their back-off.
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield SessionAuthorityStub(channel)


class ServerProcess:
    """`sessiond serve` as a process of its own."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        prefix: tuple[str, ...] = (),
        listen: str = "127.0.0.1:0",
        cwd: Path | None = None,
        options: bool = True,
        program: tuple[str, ...] = ("-m", "sessiond"),
        python: str = sys.executable,
        command: str = "serve",
    ) -> None:
        """Start the server. `options`: whether folder, address and log format are given on the command line.

        `program`: what Python runs. `python`: which one, the tests' own by default.
        """
        self.log_path = folder / "server.log"
        self._log: IO[bytes] = self.log_path.open("ab")
        self._read_from = self._log.tell()
        typed = [*prefix, python, *program, command]
        if options:
            typed += ["--data", str(folder / "data"), "--listen", listen, "--log-format", "json"]
        typed += arguments
        # Variables that are meant for the tests would each add a warning to the log.
        env = {name: value for name, value in os.environ.items() if not name.startswith("SESSIOND_TEST_")}
        self.process = subprocess.Popen(
            typed, stderr=self._log, stdout=self._log, start_new_session=True, cwd=cwd, env=env
        )

    async def address(self) -> str:
        """Wait until it serves, and return its address. Raise AssertionError with its log if it ends instead."""
        while True:
            for line in self.log().splitlines():
                if line.startswith("{") and json.loads(line).get("event") == "serving":
                    return str(json.loads(line)["address"])
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.log()}")
            await asyncio.sleep(0.02)

    def log(self) -> str:
        """Return its output, in complete lines."""
        text = self.log_path.read_bytes()[self._read_from :].decode()
        return text[: text.rfind("\n") + 1]

    def kill(self) -> None:
        """Kill it with SIGKILL, with its whole process group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()

    async def terminate(self) -> int:
        """Ask it to stop, and return its exit code."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        code = await asyncio.to_thread(self.process.wait)
        self._log.close()
        return code
