"""The sockets of callers: servers of their own, each for one caller, beside the server's own address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from sessiond.access.audit import Audit
from sessiond.access.callers import Book, Callers, CallersOfSocket
from sessiond.config.caller_sockets import CallerSocket
from sessiond.rpc.server import RpcServer

__all__ = ["CallerSockets"]


class CallerSockets:
    """Servers that listen on the sockets of callers.

    gRPC does not say on which of its addresses a call has arrived, and for it all Unix sockets are one peer. So each
    socket has a server, which can take its calls for nobody else's.
    """

    def __init__(self, servers: Sequence[RpcServer]) -> None:
        self._servers = servers

    @classmethod
    async def start(
        cls, sockets: Iterable[CallerSocket], book: Book, audit: Audit, server_for: Callable[[Callers], RpcServer]
    ) -> CallerSockets:
        """Listen on the sockets. Raises `CannotListen`; then none is listened on."""
        servers: list[RpcServer] = []
        started = cls(servers)
        for one in sockets:
            server = server_for(CallersOfSocket(book, one.caller, one.path, audit))
            servers.append(server)
            try:
                await server.start(f"unix:{one.path}", one.mode, socket_group=one.group)
            except BaseException:
                await started.stop(0)
                raise
        return started

    async def report(self, *, is_ready: bool) -> None:
        """Set what health checks say: whether calls can be answered."""
        for server in self._servers:
            await server.report(is_ready=is_ready)

    async def announce_stop(self) -> None:
        """Make health checks report NOT_SERVING, while calls are still accepted."""
        for server in self._servers:
            await server.announce_stop()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give open calls `grace` seconds to finish, and then end them."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
