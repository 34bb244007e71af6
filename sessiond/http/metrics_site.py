"""The ASGI application for Prometheus: `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["MetricsSite"]


class MetricsSite:
    """Serves the metrics of a registry. `look` brings up to date what must be waited for."""

    def __init__(self, registry: CollectorRegistry, look: Callable[[], Awaitable[None]] | None = None) -> None:
        self._registry = registry
        self._look = look

    def application(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(routes=[Route("/metrics", self._metrics)])

    def stop(self) -> None:
        """Nothing here goes on by itself."""

    async def _metrics(self, request: Request) -> Response:
        if self._look is not None:
            await self._look()
        # The form that the client prefers: OpenMetrics, or the text form that everything reads.
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # of the library, which does not expect every version of a form
            encode, content_type = choose_encoder("text/plain")
        # The numbers are read on the event loop, which changes them. To write them takes several times as long.
        collected = _Collected(list(self._registry.collect()))
        text = await asyncio.to_thread(encode, collected)
        return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})


class _Collected(CollectorRegistry):
    """Metrics as they were."""

    def __init__(self, families: Sequence[Metric]) -> None:
        super().__init__(auto_describe=False)
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        return self._families
