"""The composition root of a sidecar: what it consists of, and the order its parts start and stop in."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from sessiond import __version__
from sessiond.app import RemotePlaintext
from sessiond.config.sidecar import SidecarConfig
from sessiond.domain.call import FORWARDED_KEY, PEER_KEY
from sessiond.monitoring import sidecar_metrics_server, stop_tracing, tracing_to
from sessiond.rpc.arrivals import Arrivals
from sessiond.rpc.stream_limit import StreamLimit
from sessiond.sidecar.barrier import Barrier
from sessiond.sidecar.endpoint import Endpoint
from sessiond.sidecar.forwarding import Forwarding, Way
from sessiond.sidecar.near import NearAnswers
from sessiond.sidecar.upstream import Metadata, Upstream, tls_of
from sessiond.sidecar.watch import Watch
from sessiond.system.clock import SystemClock
from sessiond.system.entropy import SystemEntropy
from sessiond_client.near_aio import FollowingTask
from sessiond_client.near_cache import NearCache, boot_millis
from sessiond_client.targets import is_local

if TYPE_CHECKING:  # the packages that it needs are optional
    from sessiond.http.server import HttpServer
    from sessiond.system.tracing import Tracing

__all__ = ["Sidecar"]

_WRITE_TIMEOUT = 30.0
_log = structlog.get_logger(__name__)


class Sidecar:
    """One sidecar, running: its parts, wired. Made by `start`, ended by `stop`."""

    address: str
    cache: NearCache[bytes]

    def __init__(self, config: SidecarConfig, clock: Callable[[], int], *, is_worker: bool) -> None:
        self._config = config
        self._clock = clock
        self._is_worker = is_worker
        self._tracing: Tracing | None = None

    @classmethod
    async def start(
        cls, config: SidecarConfig, clock: Callable[[], int] = boot_millis, *, is_worker: bool = False
    ) -> Sidecar:
        """Start serving, whether the authority can be reached yet or not.

        `clock` returns milliseconds and never goes backwards; it is compared with nobody else's. A worker shares its
        port with others, and its authority trusts it to say who calls.

        Raises `RemotePlaintext`, `BadTls`, `BadTracing`, `BadKey` or `CannotListen`; nothing is left running then.
        """
        if not is_worker:  # its owner has checked this
            _refuse_plaintext(config)
        sidecar = cls(config, clock, is_worker=is_worker)
        try:
            await sidecar._start()
        except BaseException:
            await stop_tracing(sidecar._tracing)
            raise
        return sidecar

    async def _start(self) -> None:
        config = self._config
        self._tracing = tracing_to(config.tracing, "--tracing", f"sessiond-{self._kind}")
        self.cache = NearCache(config.cache_entries, config.cache_bytes, self._clock)
        self._tls = tls_of(config, SystemClock())
        upstream = self._upstream = Upstream(config, self._tls)
        barrier = self._barrier = Barrier(
            self.cache, f"{self._kind} {socket.gethostname()}:{os.getpid()}, {config.listen}"[:256]
        )
        barrier.clock = self._clock
        self._following = FollowingTask(upstream.following, barrier)
        barrier.send = self._following.send
        arrivals = Arrivals()
        limit = StreamLimit(config.max_streams, "streams", "--max-streams")
        answers = NearAnswers(self.cache, SystemEntropy())
        way = Way(upstream, answers, barrier, arrivals, limit, _WRITE_TIMEOUT, tracer=self._tracing)
        if self._is_worker:
            way = replace(way, metadata=lambda peer: ((PEER_KEY, peer),))
        self._forwarding = Forwarding(way)
        self._endpoint = Endpoint(self._forwarding, way, max_calls=config.max_calls, shares_port=self._is_worker)
        try:
            self.address = await self._endpoint.start(config.listen, config.socket_mode)
            self._http = await self._http_server()
            try:
                self._metrics = await sidecar_metrics_server(config, self.cache.stats, way.stats, self._tls)
            except BaseException:
                if self._http is not None:
                    await self._http.stop(0)
                raise
        except BaseException:
            await self._endpoint.stop(0)
            await upstream.close()
            raise
        self._following.start()
        watch = Watch(self._endpoint, upstream, self.cache, config.upstream)
        self._watching = asyncio.create_task(watch.run(), name="watch")
        self._watching_files = asyncio.create_task(self._watch_files(), name="tls")
        _log.info(
            "worker serving" if self._is_worker else "serving",
            address=self.address,
            pid=os.getpid(),
            **({} if self._http is None else {"http": self._http.address}),
            **({} if self._metrics is None else {"metrics": self._metrics.address}),
            upstream=config.upstream,
            upstream_tls=_tls_text(config),
            settings={key: origin for key, origin in config.origins.items() if origin != "default"},
            version=__version__,
        )

    async def _http_server(self) -> HttpServer | None:
        """Return the server that proxies ask over HTTP, started; None if there is none. Raises `CannotListen`."""
        config = self._config
        if not config.http_listen:
            return None
        # Imported here: the packages that it needs are optional.
        from sessiond.http.relay import Relay
        from sessiond.http.server import HttpServer
        from sessiond.http.site import ProxySite

        site = ProxySite(Relay(self._ask_for_proxy).respond, self._upstream.is_answering, tracer=self._tracing)
        server = HttpServer(site, config.max_calls)
        await server.start(config.http_listen, config.socket_mode)
        return server

    async def _ask_for_proxy(self, method: str, raw: bytes, metadata: Metadata, timeout: float) -> bytes:
        reply = await self._upstream.ask(method, raw, [*metadata, (FORWARDED_KEY, "sidecar")], timeout)
        return reply.body

    async def stop(self) -> None:
        """Stop: health first, then the cache with its lease, streams, calls, and the connection."""
        grace = self._config.drain_timeout / 1000
        await self._endpoint.announce_stop()
        if self._http is not None:
            self._http.announce_stop()
        await asyncio.sleep(self._config.drain_delay / 1000)
        await self._following.close()
        self._barrier.broken(None)  # nobody waits for the cache any more
        self._forwarding.stop()
        servers = [one for one in (self._endpoint, self._http, self._metrics) if one is not None]
        await asyncio.gather(*(one.stop(grace) for one in servers))
        for task in (self._watching, self._watching_files):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._upstream.close()
        await stop_tracing(self._tracing, grace)
        _log.info("worker stopped" if self._is_worker else "stopped", pid=os.getpid())

    async def _watch_files(self) -> None:
        """Use new files for TLS when there are any, until the task is cancelled."""
        if self._tls is not None:
            await self._tls.run(self._upstream.renew)

    @property
    def _kind(self) -> str:
        return "worker" if self._is_worker else "sidecar"


def _tls_text(config: SidecarConfig) -> str:
    """Return for the log who proves what: nobody, the authority, or both sides."""
    if config.upstream_ca is None:
        return "none"
    return "server" if config.upstream_certificate is None else "mutual"


def _refuse_plaintext(config: SidecarConfig) -> None:
    if config.allow_remote_plaintext:
        return
    remote = next((one for one in (config.listen, config.http_listen) if one and not is_local(one)), None)
    if remote is not None:
        raise RemotePlaintext(
            f"{remote} can be reached from other machines, and tokens would be sent unencrypted: listen on "
            "unix:PATH or 127.0.0.1, or accept the risk with --allow-remote-plaintext"
        )
    if not is_local(config.upstream) and config.upstream_ca is None:
        raise RemotePlaintext(
            f"{config.upstream} is on another machine, and tokens would be sent there unencrypted: name the "
            "certificates that may sign its own with --upstream-ca, or accept the risk with --allow-remote-plaintext"
        )
