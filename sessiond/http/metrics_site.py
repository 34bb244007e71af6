"""The ASGI application for Prometheus: `/metrics`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
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
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), headers={"content-type": content_type, "cache-control": "no-store"})
