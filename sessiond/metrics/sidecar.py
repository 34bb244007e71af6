"""The metrics of a sidecar: its cache, and whether it may answer from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import Metric

from sessiond.metrics.families import counter, gauge
from sessiond.system.failures import failures
from sessiond_client.near_cache import NearCacheStats

__all__ = ["SidecarMetrics"]


class SidecarMetrics:
    """What a sidecar counts; see `Source`. `stats` returns the counters of its cache."""

    def __init__(self, stats: Callable[[], NearCacheStats]) -> None:
        self._stats = stats

    def families(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        stats = self._stats()
        yield counter("sessiond_failures", "Unexpected errors in sessiond itself.", failures())
        text = "Whether the cache may answer (1), or every call goes to the authority (0)."
        yield gauge("sessiond_sidecar_cache_open", text, stats.is_open)
        answers = {("hit",): float(stats.hits), ("miss",): float(stats.misses), ("closed",): float(stats.closed)}
        text = "Validations: the cache had the answer (hit), did not have it (miss), or was closed."
        yield counter("sessiond_sidecar_validations", text, answers.items(), ("cache",))
        yield gauge("sessiond_sidecar_cache_entries", "Answers in the cache.", stats.entries)
        yield gauge("sessiond_sidecar_cache_bytes", "About how many bytes these answers take.", stats.size)
        dropped = {("evicted",): float(stats.evicted), ("changed",): float(stats.dropped)}
        text = "Answers that were dropped to make room (evicted) or after a change (changed)."
        yield counter("sessiond_sidecar_cache_dropped", text, dropped.items(), ("why",))
        if stats.staleness is not None:
            text = "For how many seconds the cache may have been behind the authority."
            yield gauge("sessiond_sidecar_cache_staleness_seconds", text, stats.staleness)
