"""What a server or sidecar has for those who watch it: metrics on an address of their own, and traces of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sessiond import __version__
from sessiond.config import Config
from sessiond.metrics.watched import Watched
from sessiond.rpc.call_stats import CallStats

if TYPE_CHECKING:  # the packages that they need are optional
    from sessiond.access.tls_watch import TlsWatch
    from sessiond.config.sidecar import SidecarConfig
    from sessiond.http.server import HttpServer
    from sessiond.metrics.families import Source
    from sessiond.system.tracing import Tracing
    from sessiond_client.near_cache import NearCacheStats

__all__ = ["BadTracing", "metrics_server", "sidecar_metrics_server", "stop_tracing", "tracing_to"]

_MAX_CONNECTIONS = 32


class BadTracing(ValueError):
    """Tracing cannot be set up. The text names the setting, with the remedy."""


def tracing_to(endpoint: str, setting: str, service: str) -> Tracing | None:
    """Return what traces calls, running; None if the endpoint is empty. Raises `BadTracing`.

    `setting` is the name of the setting, and `service` the default of the service's name in traces.
    """
    if not endpoint:
        return None
    try:
        from sessiond.system.tracing import Tracing

        return Tracing(endpoint, service, __version__)
    except ImportError as error:
        # Two packages have the same files, and pip lets the one that it installs last overwrite those of the other.
        raise BadTracing(
            f"{setting}: OpenTelemetry cannot be imported ({error.msg}). If the package xds-protos is installed too, "
            "it may have replaced files; run in the server's virtual environment: "
            "pip install --force-reinstall --no-deps opentelemetry-proto"
        ) from error
    except ValueError as error:
        raise BadTracing(f"{setting}: {error}") from error


async def stop_tracing(tracing: Tracing | None, grace: float = 0) -> None:
    """Send the last spans, for `grace` seconds, and two at most."""
    if tracing is not None:
        await asyncio.to_thread(tracing.shut_down, grace)


async def metrics_server(config: Config, watched: Watched) -> HttpServer | None:
    """Return the server of an authority's metrics, started; None if there is none. Raises `CannotListen`."""
    if not config.metrics_listen:
        return None
    from sessiond.metrics.authority import AuthorityMetrics
    from sessiond.metrics.calls import CallMetrics
    from sessiond.metrics.process import ProcessMetrics

    tls = watched.tls
    facts = {
        "version": __version__,
        "kind": "authority",
        "store": "sqlite" if config.store is None else "postgres",
        "transport": config.transport,
    }
    process = ProcessMetrics(facts, lambda: _validity(tls))
    authority = AuthorityMetrics(watched)
    sources: list[Source] = [process, CallMetrics(watched.calls), authority]
    return await _started(sources, authority.look, config.metrics_listen, config.socket_mode)


async def sidecar_metrics_server(
    config: SidecarConfig, cache: Callable[[], NearCacheStats], stats: CallStats, tls: TlsWatch | None
) -> HttpServer | None:
    """Return the server of a sidecar's metrics, started; None if there is none. Raises `CannotListen`."""
    if not config.metrics_listen:
        return None
    from sessiond.metrics.calls import CallMetrics
    from sessiond.metrics.process import ProcessMetrics
    from sessiond.metrics.sidecar import SidecarMetrics

    process = ProcessMetrics({"version": __version__, "kind": "sidecar"}, lambda: _validity(tls))
    sources: list[Source] = [process, CallMetrics(stats), SidecarMetrics(cache)]
    return await _started(sources, None, config.metrics_listen, config.socket_mode)


def _validity(tls: TlsWatch | None) -> tuple[int, int] | None:
    if tls is None or tls.current.not_before is None or tls.current.not_after is None:
        return None
    return tls.current.not_before, tls.current.not_after


async def _started(
    sources: list[Source], look: Callable[[], Awaitable[None]] | None, address: str, socket_mode: int
) -> HttpServer:
    from sessiond.http.metrics_site import MetricsSite
    from sessiond.http.server import HttpServer
    from sessiond.metrics.families import registry_of

    server = HttpServer(MetricsSite(registry_of(sources), look), _MAX_CONNECTIONS)
    await server.start(address, socket_mode)
    return server
