"""The metrics of gRPC servers, under the names that dashboards for gRPC know (go-grpc-prometheus)."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from sessiond.metrics.families import counter, histogram
from sessiond.rpc.call_stats import CallStats, MethodStats

__all__ = ["CallMetrics"]

_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class CallMetrics:
    """What the servers of a process count about their calls; see `Source`."""

    def __init__(self, stats: CallStats) -> None:
        self._stats = stats

    def families(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        methods = {_labels(method): method for method in self._stats}
        started = {labels: method.started for labels, method in methods.items()}
        received = {labels: method.received for labels, method in methods.items()}
        sent = {labels: method.sent for labels, method in methods.items()}
        handled = {
            (*labels, code): count for labels, method in methods.items() for code, count in method.handled.items()
        }
        seconds = {labels: method.seconds for labels, method in methods.items()}
        yield counter("grpc_server_started", "Calls that have begun.", started.items(), _LABELS)
        yield counter("grpc_server_msg_received", "Messages from callers.", received.items(), _LABELS)
        yield counter("grpc_server_msg_sent", "Messages to callers.", sent.items(), _LABELS)
        text = "Calls that have ended, by status code."
        yield counter("grpc_server_handled", text, handled.items(), (*_LABELS, "grpc_code"))
        text = "How long calls took. A stream takes as long as it is open."
        yield histogram("grpc_server_handling_seconds", text, seconds.items(), _LABELS)


def _labels(method: MethodStats) -> tuple[str, ...]:
    return method.kind, method.service, method.method
