"""A collector of traces for tests: a gRPC server that receives OTLP, as OpenTelemetry's own collector does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

__all__ = ["Collector", "Received", "collecting"]


class Received:
    """A span as the collector got it."""

    def __init__(self, service: str, span: Span) -> None:
        self.service = service
        self.name: str = span.name
        self.trace_id: str = span.trace_id.hex()
        self.span_id: str = span.span_id.hex()
        self.parent_id: str = span.parent_span_id.hex()
        self.kind: str = Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_")
        self.is_error = span.status.code == Status.STATUS_CODE_ERROR
        self.facts = {one.key: getattr(one.value, one.value.WhichOneof("value") or "") for one in span.attributes}


class Collector:
    """Keeps what it receives: the spans, and the messages as they came."""

    def __init__(self) -> None:
        self.address = ""
        self.raw: list[bytes] = []
        self.spans: list[Received] = []
        self._arrived = asyncio.Event()

    @property
    def url(self) -> str:
        """The setting that sends traces here."""
        return f"http://{self.address}"

    async def Export(self, request: Any, _: Any) -> Any:  # noqa: N802 - the name in OTLP
        """Receive spans."""
        self.raw.append(request.SerializeToString())
        for group in request.resource_spans:
            service = next(one.value.string_value for one in group.resource.attributes if one.key == "service.name")
            self.spans += [Received(service, span) for scope in group.scope_spans for span in scope.spans]
        self._arrived.set()
        return otlp.ExportTraceServiceResponse()

    async def until(self, wanted: Callable[[Sequence[Received]], bool]) -> Sequence[Received]:
        """Wait until the spans are as wanted, and return them."""
        async with asyncio.timeout(30):
            while not wanted(self.spans):
                self._arrived.clear()
                await self._arrived.wait()
        return self.spans

    def one(self, **wanted: str) -> Received:
        """Return the only span with these values."""
        found = [span for span in self.spans if all(getattr(span, key) == value for key, value in wanted.items())]
        assert len(found) == 1, (wanted, [(span.service, span.name, span.kind) for span in self.spans])
        return found[0]


@asynccontextmanager
async def collecting(address: str = "127.0.0.1:0") -> AsyncIterator[Collector]:
    """Run a collector."""
    collector, server = Collector(), grpc.aio.server()
    add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call] # generated without types
    port = server.add_insecure_port(address)
    collector.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)
