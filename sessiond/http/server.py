"""Listening for proxies: uvicorn's HTTP/1.1 on a socket of ours, in the event loop of the server.

uvicorn's own server would take over the signals of the process, and decide about the mode of a Unix socket.
"""

from __future__ import annotations

import asyncio
from asyncio import Server
from contextlib import suppress
from typing import Protocol

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from sessiond.rpc.sockets import check_port, open_socket, prepare_socket, private_sockets, why_not

__all__ = ["HttpServer", "Site"]

_MAX_HEAD_BYTES = 64 * 1024
"""How long the line and the headers of a request may be. A proxy adds little to what it accepts from clients."""
_IDLE_TIMEOUT = 180
"""Seconds that a connection may be idle. Longer than proxies keep theirs (Caddy 120, nginx as deployed 60), so that no
question meets a connection that is being closed."""


class Site(Protocol):
    """What a server serves."""

    def application(self) -> Starlette:
        """Return the ASGI application."""

    def stop(self) -> None:
        """Report to health checks that the server stops, and end what would go on."""


class HttpServer:
    """Answers proxies.

    `max_connections`: how many connections and requests there may be; further ones get 503. `head_timeout`: seconds
    that the head of a request may take, and the first one of a new connection.
    """

    def __init__(self, site: Site, max_connections: int, head_timeout: float = 10.0) -> None:
        self._site = site
        self._head_timeout = head_timeout
        self._config = uvicorn.Config(
            site.application(),
            http=_Bounded,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            limit_concurrency=max_connections,
            timeout_keep_alive=_IDLE_TIMEOUT,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        )
        self._state = ServerState()
        self._server: Server | None = None
        self.address = ""
        """Where the server listens, once it does."""

    async def start(self, address: str, socket_mode: int = 0o600) -> str:
        """Listen on `host:port` (port 0: any free port) or `unix:path`, and return the bound address.

        Raises `CannotListen`.
        """
        if not self._config.loaded:
            self._config.load()
        loop = asyncio.get_running_loop()
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            prepare_socket(path)
            try:
                with private_sockets():
                    self._server = await loop.create_unix_server(self._protocol, path)
            except OSError:
                raise why_not(address) from None
            open_socket(path, socket_mode)
            self.address = address
            return address
        check_port(address)
        host, _, port = address.rpartition(":")
        try:
            self._server = await loop.create_server(self._protocol, host.strip("[]"), int(port))
        except OSError:
            raise why_not(address) from None
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"
        return self.address

    def announce_stop(self) -> None:
        """Make health checks report that the server stops, while it still answers."""
        self._site.stop()

    async def stop(self, grace: float) -> None:
        """Accept no connections, give questions `grace` seconds to be answered, and then end them."""
        self.announce_stop()
        if self._server is None:
            return
        self._server.close()
        connections = list(self._state.connections)
        for connection in connections:
            connection.shutdown()  # after the answer, if a question is open
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=grace)
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 1.0)

    def _protocol(self) -> asyncio.Protocol:
        protocol = _Bounded(self._config, self._state, {})
        protocol.head_timeout = self._head_timeout
        return protocol


class _Bounded(H11Protocol):
    """Closes a connection on which the head of a request takes too long. uvicorn has no such limit."""

    head_timeout: float
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._await_head()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before or (before is not None and not before.response_complete):
            self._forget_head()
        elif self._head_timer is None:
            self._await_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body:  # the rest of the request may never come
            self.transport.close()
            return
        # A client may have sent a part of its next request before this response.
        if self.conn.trailing_data[0] and self.cycle.response_complete and self._head_timer is None:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_timeout, self._close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self) -> None:
        self._head_timer = None
        self.transport.abort()
