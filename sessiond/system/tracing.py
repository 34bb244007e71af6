"""Tracing with OpenTelemetry: spans of calls, sent to a collector with OTLP over gRPC.

Imported only if tracing is on: the packages that it needs are optional. What spans may say is in decision 44: no
tokens, subjects, addresses or other text of clients.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as RecordedSpan
from opentelemetry.trace import SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sessiond.system.clock import since_boot
from sessiond.system.ongoing import Metadata

__all__ = ["FROM_ENVIRONMENT", "CallSpan", "Tracing"]

FROM_ENVIRONMENT = "env"
"""The endpoint that stands for those in the variables OTEL_EXPORTER_OTLP_*."""
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""The status codes of gRPC, each at the place of its number."""
_FAILURES = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""The codes that are errors of a server; others are those of its callers (semantic conventions for gRPC)."""
_SERVER_ERROR = 500
_LONGEST_END = 2.0
"""Seconds in which the last spans must be sent."""
_QUIET = 60 * 1_000_000_000
"""Nanoseconds between two lines of the log about spans that cannot be sent."""
_LOGGER = "opentelemetry"
_SAFE_LOGGERS = ("opentelemetry.exporter.", "opentelemetry.sdk.trace.export")
"""Whose messages have only addresses, codes and times as values."""
_CONTEXT = TraceContextTextMapPropagator()
_log = structlog.get_logger(__name__)


class CallSpan:
    """The span of one call; see `system.ongoing.Span`."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Tracer, span: RecordedSpan) -> None:
        self._tracer = tracer
        self._span = span

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add facts, as attributes that begin with `sessiond.`."""
        if self._span.is_recording():
            for name, value in facts.items():
                self._span.set_attribute(f"sessiond.{name}", value)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Return a block that is a span of its own within this one. An exception marks it, and shows its type."""
        span = self._tracer.start_span(f"sessiond.{name}", set_span_in_context(self._span))
        try:
            yield
        except BaseException as error:
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()

    @contextmanager
    def calling(self, path: str) -> Iterator[Metadata]:
        """Return a block in which a method of another server is called, with the metadata to send there."""
        facts = _facts_of_rpc(*path.removeprefix("/").split("/", 1))
        parent = set_span_in_context(self._span)
        span = self._tracer.start_span(path.removeprefix("/"), parent, kind=SpanKind.CLIENT, attributes=facts)
        code = "CANCELLED"
        try:
            yield _headers(span)
            code = "OK"
        except Exception as error:
            found = getattr(error, "code", None)
            code = str(found().name) if callable(found) else "UNKNOWN"
            raise
        finally:
            _end(span, code, is_failure=code != "OK")

    def headers(self) -> Metadata:
        """Return the metadata that makes a further call a part of this span."""
        return _headers(self._span)

    def end(self, code: str | int) -> None:
        """End the span with the name of a status code of gRPC, or the status of HTTP."""
        if isinstance(code, str):
            _end(self._span, code, is_failure=code in _FAILURES)
            return
        self._span.set_attribute("http.response.status_code", code)
        if code >= _SERVER_ERROR:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracing:
    """Begins the spans of a process, and sends them in the background.

    endpoint  `http://HOST:PORT` or `https://HOST:PORT`, or `FROM_ENVIRONMENT`
    service   the name of the service, unless the environment has one
    version   its version

    Everything else is in the standard variables, OTEL_*. Spans that cannot be sent are dropped; calls never wait for
    them. Raises `ValueError` if it cannot be set up.
    """

    def __init__(self, endpoint: str, service: str, version: str) -> None:
        self._lines = _LogLines()
        logger = logging.getLogger(_LOGGER)
        logger.handlers, logger.propagate = [self._lines], False
        protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "grpc")
        if protocol != "grpc":
            raise ValueError(f"the protocol {protocol} is not supported; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
        try:
            # The environment has the last word about what is named here.
            resource = Resource({"service.name": service, "service.version": version}).merge(Resource.create())
            if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
                resource = resource.merge(Resource({"service.name": service}))
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._exporter = OTLPSpanExporter(None if endpoint == FROM_ENVIRONMENT else endpoint)
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        except Exception as error:
            raise ValueError(f"cannot be set up: {error}; correct the variables that begin with OTEL_") from error
        self._tracer = self._provider.get_tracer("sessiond", version)

    def rpc(self, service: str, method: str, metadata: Metadata | None) -> CallSpan:
        """Begin the span of a call that a client makes, as a part of what the client's metadata says."""
        return self._serving(f"{service}/{method}", metadata or (), _facts_of_rpc(service, method))

    def http(self, method: str, route: str, headers: Iterable[tuple[bytes, bytes]]) -> CallSpan:
        """Begin the span of a request over HTTP. `route` is the path without what clients choose."""
        sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        return self._serving(f"{method} {route}", sent, {"http.request.method": method, "http.route": route})

    def shut_down(self, grace: float) -> None:
        """Send the last spans, and stop. Blocks for `grace` seconds, and two at most, whatever the collector does."""
        self._lines.is_closed = True
        ending = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        ending.start()
        ending.join(min(grace, _LONGEST_END))
        if ending.is_alive():
            # This ends the attempt that is under way; the thread and the process need not wait for it.
            self._exporter.shutdown()
            _log.warning("traces not exported", problem="the collector did not answer in time", effect="spans are lost")

    def _serving(self, name: str, sent: Metadata, facts: Mapping[str, Any]) -> CallSpan:
        carrier = {key: value for key, value in sent if key in _CONTEXT.fields and isinstance(value, str)}
        span = self._tracer.start_span(name, _CONTEXT.extract(carrier), kind=SpanKind.SERVER, attributes=facts)
        return CallSpan(self._tracer, span)


class _LogLines(logging.Handler):
    """Writes what the packages log to our log, at most one line a minute: a collector may be away for hours."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.is_closed = False
        self._quiet_until = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if self.is_closed or (now := since_boot()) < self._quiet_until:
            return
        self._quiet_until = now + _QUIET
        # Other parts repeat the value of a variable that is not in good form, such as a header with a collector's key.
        says_values = record.name.startswith(_SAFE_LOGGERS)
        problem = record.getMessage() if says_values else str(record.msg).replace("%s", "(not shown)")
        _log.warning("traces not exported", problem=problem, effect="spans may be lost; calls go on")


def _facts_of_rpc(service: str, method: str) -> dict[str, Any]:
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}


def _headers(span: RecordedSpan) -> Metadata:
    carrier: dict[str, str] = {}
    _CONTEXT.inject(carrier, set_span_in_context(span))
    return tuple(carrier.items())


def _end(span: RecordedSpan, code: str, *, is_failure: bool) -> None:
    span.set_attribute("rpc.grpc.status_code", _CODES.index(code))
    if is_failure:
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR)
    span.end()
