"""The metrics of what a process is, and of the certificate that it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import InfoMetricFamily
from prometheus_client.metrics_core import Metric

from sessiond.metrics.families import gauge

__all__ = ["ProcessMetrics"]


class ProcessMetrics:
    """Says what a process is; see `Source`.

    `facts` become labels of `sessiond_info`. `certificate` returns from when to when the certificate is valid that the
    process shows, in milliseconds since 1970; None: it shows none.
    """

    def __init__(self, facts: dict[str, str], certificate: Callable[[], tuple[int, int] | None] = lambda: None) -> None:
        self._facts = facts
        self._certificate = certificate

    def families(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        yield InfoMetricFamily("sessiond", "What this process is.", self._facts)
        if (valid := self._certificate()) is not None:
            text = "The start of the validity of the certificate that this process presents."
            yield gauge("sessiond_certificate_begin_timestamp_seconds", text, valid[0] / 1000)
            text = "The end of the validity of the certificate that this process presents."
            yield gauge("sessiond_certificate_end_timestamp_seconds", text, valid[1] / 1000)
