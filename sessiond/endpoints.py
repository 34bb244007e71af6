"""Where an authority answers: its address, by itself or by workers, and the sockets of callers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import grpc
import structlog

from sessiond.access.callers import Book, Callers
from sessiond.config import Config
from sessiond.config.data_folder import worker_socket_in
from sessiond.config.durations import format_duration
from sessiond.config.sidecar import MOST_ENTRIES
from sessiond.rpc.caller_sockets import CallerSockets
from sessiond.rpc.health_checks import HealthChecks
from sessiond.rpc.server import RpcServer
from sessiond.rpc.sockets import reserve_port
from sessiond.sidecar.workers import Workers

if TYPE_CHECKING:  # the packages that it needs are optional
    from sessiond.http.server import HttpServer

__all__ = ["Endpoints"]

_log = structlog.get_logger(__name__)

_LOOK_EVERY = 0.25
"""Seconds between two looks whether the authority is ready."""
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
        health: HealthChecks | None,
    ) -> None:
        self._config = config
        self._server = server
        self._sockets = sockets
        self._http = http
        self._metrics = metrics
        self._health = health
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
            health = await _health_checks(config)
            if health is not None:
                started.push_async_callback(health.stop)
            endpoints = cls(config, server_for(config.transport, callers), sockets, http, metrics, health)
            await endpoints._bind(credentials)
            if health is not None:
                await health.report(is_ready=True)
            started.pop_all()
        return endpoints

    def described(self) -> dict[str, object]:
        """Return for the log what answers beside the address: the process ids of workers, and addresses for HTTP."""
        workers: dict[str, object] = {} if self._workers is None else {"workers": self._workers.pids}
        others = {"http": self._http, "metrics": self._metrics, "health": self._health}
        return {**workers, **{name: one.address for name, one in others.items() if one is not None}}

    async def watch(self, is_ready: Callable[[], bool]) -> None:
        """Tell health checks and the log whether the authority is ready, until the task is cancelled."""
        was_ready = True
        while True:
            if (now_ready := is_ready()) != was_ready:
                was_ready = now_ready
                if now_ready:
                    _log.info("ready", effect="health checks report SERVING")
                else:
                    _log.warning("not ready", effect="health checks report NOT_SERVING")
                for one in self._checked():
                    await one.report(is_ready=now_ready)
            await asyncio.sleep(_LOOK_EVERY)

    async def withdraw(self, delay: float, grace: float) -> None:
        """Make health checks report NOT_SERVING, answer calls for another `delay` seconds, and stop the workers.

        The workers have `grace` seconds more for the calls that are under way then.
        """
        await asyncio.gather(*(one.announce_stop() for one in self._checked()))
        if self._workers is None:
            await asyncio.sleep(delay)
            return
        await self._workers.stop(delay + grace + _WORKER_END)
        self._release_port()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        servers = [one for one in (self._server, self._sockets, self._http, self._metrics) if one is not None]
        await asyncio.gather(*(one.stop(grace) for one in servers))
        if self._health is not None:
            await self._health.stop()  # last: until then it reports NOT_SERVING

    def _checked(self) -> Sequence[RpcServer | CallerSockets | HealthChecks]:
        """Return all that answer health checks over gRPC."""
        return [one for one in (self._server, self._sockets, self._health) if one is not None]

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
            "drain-delay": format_duration(config.drain_delay),
            "drain-timeout": format_duration(config.drain_timeout),
            "log-format": config.log_format,
            "log-level": config.log_level,
            "tracing": config.tracing,
        }
        return [part for name, value in settings.items() for part in (f"--{name}", value)]

    def _release_port(self) -> None:
        for one in self._reserved:
            one.close()


async def _health_checks(config: Config) -> HealthChecks | None:
    """Return what answers health checks on an address of its own, started; None if there is none."""
    if not config.health_listen:
        return None
    health = HealthChecks()
    await health.start(config.health_listen, config.socket_mode)
    return health
