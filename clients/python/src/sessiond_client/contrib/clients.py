"""A client for each process or event loop, created when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

from sessiond_client.aio import AsyncClient
from sessiond_client.gateway.settings import GatewaySettings
from sessiond_client.guard import AsyncConnectionGuard, ConnectionGuard
from sessiond_client.settings import ClientOptions
from sessiond_client.sync import Client

__all__ = ["ClientPerLoop", "ClientPerProcess", "split_options"]


def split_options(options: Mapping[str, Any]) -> tuple[GatewaySettings, ClientOptions]:
    """Divide an adapter's keyword arguments into the gateway's settings and the client's options.

    The client uses a near cache unless `near_cache=False`. Raises `TypeError` for an unknown name, and `ValueError` for
    a wrong setting.
    """
    ours = {name: value for name, value in options.items() if name in GatewaySettings.names()}
    others = {name: value for name, value in options.items() if name not in ours}
    known = ClientOptions.__optional_keys__ | ClientOptions.__required_keys__
    unknown = sorted(others.keys() - known)
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}{_suggestion(unknown[0], [*GatewaySettings.names(), *known])}")
    return GatewaySettings(**ours), cast(ClientOptions, {"near_cache": True, **others})


def _suggestion(wrong: str, names: Sequence[str]) -> str:
    """The option that was probably meant, or else those that exist."""
    from difflib import get_close_matches  # here: who makes no mistake does not need it

    found = get_close_matches(wrong, names, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; the options are {', '.join(sorted(names))}"


class ClientPerProcess:
    """A `Client` for each process: a server that forks workers after it has loaded the application needs several."""

    def __init__(self, target: str, options: ClientOptions) -> None:
        self._target, self._options = target, options
        self._lock = threading.Lock()
        self._process = 0
        self._client: Client | None = None
        self._guard: ConnectionGuard | None = None
        os.register_at_fork(after_in_child=self._begin_again)

    def get(self) -> Client:
        """The client of this process."""
        client = self._client
        if client is not None and self._process == os.getpid():
            return client
        with self._lock:
            if self._client is None or self._process != os.getpid():
                self._client, self._process = Client(self._target, **self._options), os.getpid()
                self._guard = None
            return self._client

    def guard(self) -> ConnectionGuard:
        """The guard of live connections of this process."""
        client = self.get()
        with self._lock:
            if self._guard is None:
                self._guard = ConnectionGuard(client)
            return self._guard

    def close(self) -> None:
        """Close the client of this process, and its guard. The next use creates another one."""
        with self._lock:
            client, self._client = self._client, None
            guard, self._guard = self._guard, None
        if client is not None and self._process == os.getpid():
            if guard is not None:
                guard.close()
            client.close()

    def _begin_again(self) -> None:
        self._lock = threading.Lock()  # another thread may have held it at the fork


class ClientPerLoop:
    """An `AsyncClient` for each event loop. Test clients, for example, may use a new loop for each request."""

    def __init__(self, target: str, options: ClientOptions) -> None:
        self._target, self._options = target, options
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = WeakKeyDictionary()
        self._guards: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncConnectionGuard] = WeakKeyDictionary()

    def get(self) -> AsyncClient:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            self._forget_closed_loops()
            client = self._clients[loop] = AsyncClient(self._target, **self._options)
        return client

    def guard(self) -> AsyncConnectionGuard:
        """The guard of live connections of the running event loop."""
        loop, client = asyncio.get_running_loop(), self.get()
        guard = self._guards.get(loop)
        if guard is None:
            guard = self._guards[loop] = AsyncConnectionGuard(client)
        return guard

    async def close(self) -> None:
        """Close the client of the running event loop, and its guard. The next use creates another one."""
        guard = self._guards.pop(asyncio.get_running_loop(), None)
        if guard is not None:
            await guard.close()
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def _forget_closed_loops(self) -> None:
        """Close the clients of loops that are closed. They refer to their loops, so nobody else would."""
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            self._guards.pop(loop, None)
            with contextlib.suppress(StopIteration):  # on a closed loop there is nothing to wait for
                self._clients.pop(loop).close().send(None)
