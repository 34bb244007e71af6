"""What all metrics have in common: families of Prometheus, made from plain numbers when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Protocol, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sessiond.system.distribution import Distribution

__all__ = ["Source", "counter", "gauge", "histogram", "registry_of"]


T = TypeVar("T")
Labelled = Iterable[tuple[Sequence[str], T]]
"""Values with those of their labels."""


class Source(Protocol):
    """Knows numbers."""

    def families(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""


class _Collector(Collector):
    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        return self._source.families()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the metrics are not asked for when a registry is made."""
        return ()


def registry_of(sources: Iterable[Source]) -> CollectorRegistry:
    """Return a registry with these sources, and with what is known of the process itself."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    for source in sources:
        registry.register(_Collector(source))
    return registry


def counter(name: str, text: str, values: Labelled[float] | float, labels: Sequence[str] = ()) -> Metric:
    """Return a counter, whose name gets the ending `_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for label_values, value in _labelled(values):
        family.add_metric(label_values, value)
    return family


def gauge(name: str, text: str, values: Labelled[float] | float, labels: Sequence[str] = ()) -> Metric:
    """Return a gauge."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in _labelled(values):
        family.add_metric(label_values, value)
    return family


def histogram(
    name: str, text: str, values: Labelled[Distribution] | Distribution, labels: Sequence[str] = ()
) -> Metric:
    """Return a histogram."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for label_values, one in [((), values)] if isinstance(values, Distribution) else values:
        buckets = [("+Inf" if bound == inf else str(float(bound)), count) for bound, count in one.cumulative()]
        family.add_metric(label_values, buckets, one.total)
    return family


def _labelled(values: Labelled[float] | float) -> Labelled[float]:
    return [((), values)] if isinstance(values, (int, float)) else values
