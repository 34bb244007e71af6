"""Where an authority answers: its address, by itself or by workers, and the sockets of callers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import grpc

from sessiond.access.callers import Book, Callers
from sessiond.config import Config
from sessiond.config.data_folder import worker_socket_in
from sessiond.config.sidecar import MOST_ENTRIES
from sessiond.rpc.caller_sockets import CallerSockets
from sessiond.rpc.server import RpcServer
from sessiond.rpc.sockets import reserve_port
from sessiond.sidecar.workers import Workers

if TYPE_CHECKING:  # the packages that it needs are optional
    from sessiond.http.server import HttpServer

__all__ = ["Endpoints"]

_WORKER_END = 3.0
"""Seconds that a worker may take to end beside the grace of its calls."""


class Endpoints:
    """The servers of one authority. Made by `start`, ended by `withdraw` and then `stop`."""

    address: str

    def __init__(
        self,
        config: Config,
        server: RpcServer,
        sockets: CallerSockets,
        http: HttpServer | None,
        metrics: HttpServer | None,
    ) -> None:
        self._config = config
        self._server = server
        self._sockets = sockets
        self._http = http
        self._metrics = metrics
        self._workers: Workers | None = None
        self._reserved: Sequence[socket.socket] = ()

    @classmethod
    async def start(
        cls,
        config: Config,
        callers: Callers,
        book: Book,
        server_for: Callable[[str, Callers], RpcServer],
        credentials: grpc.ServerCredentials | None,
        http: HttpServer | None,
        start_metrics: Callable[[], Awaitable[HttpServer | None]],
    ) -> Endpoints:
        """Answer everywhere. Raises `CannotListen` or `WorkersFailed`; then nothing is listened on.

        `server_for` makes a server for a transport and the callers on its address. `credentials` are for TLS. `http`
        answers proxies already, and is stopped too. `start_metrics` starts what answers those who watch, if anything.
        """
        async with AsyncExitStack() as started:
            if http is not None:
                started.push_async_callback(http.stop, 0)
            if (metrics := await start_metrics()) is not None:
                started.push_async_callback(metrics.stop, 0)
            server_of = partial(server_for, "grpcio")
            sockets = await CallerSockets.start(config.sockets, book, callers.audit, server_of)
            started.push_async_callback(sockets.stop, 0)
            endpoints = cls(config, server_for(config.transport, callers), sockets, http, metrics)
            await endpoints._bind(credentials)
            started.pop_all()
        return endpoints

    def described(self) -> dict[str, object]:
        """Return for the log what answers beside the address: the process ids of workers, and addresses for HTTP."""
        workers: dict[str, object] = {} if self._workers is None else {"workers": self._workers.pids}
        others = {"http": self._http, "metrics": self._metrics}
        return {**workers, **{name: one.address for name, one in others.items() if one is not None}}

    async def withdraw(self, grace: float) -> None:
        """Stop the workers, which have `grace` seconds for their calls, and make health checks report NOT_SERVING."""
        if self._workers is not None:
            await self._workers.stop(grace + _WORKER_END)
            self._release_port()
        await asyncio.gather(self._server.announce_stop(), self._sockets.announce_stop())

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        servers = [one for one in (self._server, self._sockets, self._http, self._metrics) if one is not None]
        await asyncio.gather(*(one.stop(grace) for one in servers))

    async def _bind(self, credentials: grpc.ServerCredentials | None) -> None:
        config = self._config
        if not config.workers:
            self.address = await self._server.start(config.listen, config.socket_mode, credentials)
            return
        self._reserved, self.address = reserve_port(config.listen)
        socket_path = worker_socket_in(config.data)
        try:
            socket_path.parent.mkdir(mode=0o700, exist_ok=True)
            socket_path.parent.chmod(0o700)
            upstream = await self._server.start(f"unix:{socket_path}")
            try:
                self._workers = await Workers.start(config.workers, self._worker_arguments(upstream))
            except BaseException:
                await self._server.stop(0)
                raise
        except BaseException:
            self._release_port()
            raise

    def _worker_arguments(self, upstream: str) -> list[str]:
        config = self._config
        settings = {
            "upstream": upstream,
            "listen": self.address,
            "cache-entries": str(min(config.cache_sessions, MOST_ENTRIES)),
            "max-calls": str(config.max_calls),
            "max-streams": str(config.max_calls),
            "log-format": config.log_format,
            "log-level": config.log_level,
            "tracing": config.tracing,
        }
        return [part for name, value in settings.items() for part in (f"--{name}", value)]

    def _release_port(self) -> None:
        for one in self._reserved:
            one.close()
