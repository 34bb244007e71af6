"""Traces of calls, as a real collector receives them from real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from sessiond.app import App
from sessiond.config import BadConfig, Override, load_config
from sessiond.monitoring import BadTracing
from sessiond.sidecar_app import Sidecar
from sessiond_client import AsyncClient, ClientContext, InternalError, InvalidArgument
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.canary import Canary
from tests.support.clock import ManualClock
from tests.support.collector import Collector, Received, collecting
from tests.support.server import ServerProcess, config_for, serving, stub_for
from tests.support.sidecars import SidecarProcess, beside, is_open, until

SERVICE = "sessiond.v1.SessionAuthority"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-01")
NOT_SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-00")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent at once."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """A collector."""
    async with collecting() as collector:
        yield collector


@pytest.fixture(params=["grpcio", "native"])
async def app(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, collector: Collector
) -> AsyncIterator[App]:
    """An authority that traces, on each transport."""
    if request.param == "native":
        pytest.importorskip("pygrpc_native")
    config = config_for(tmp_path, tracing=collector.url, transport=request.param, http_listen="127.0.0.1:0")
    async with serving(config, clock) as app:
        yield app


@asynccontextmanager
async def processes(folder: Path, url: str) -> AsyncIterator[tuple[ServerProcess, SidecarProcess, str]]:
    """Run an authority and a sidecar that trace, as processes, and return the sidecar's address too."""
    server = ServerProcess(folder, "--config", str(config_file(folder, url)))
    near = None
    try:
        near = SidecarProcess(folder / "near", await server.address(), "--tracing", url)
        yield server, near, await near.address()
        assert (await near.terminate(), await server.terminate()) == (0, 0)
    finally:
        for one in (near, server):
            if one is not None:
                one.kill()


def config_file(folder: Path, url: str) -> Path:
    """Write a configuration with tracing."""
    file = folder / "sessiond.toml"
    file.write_text(f'[server]\ntracing = "{url}"\n', encoding="utf-8")
    return file


def raw_call(channel: Any, path: str) -> Any:
    """Return a call of raw bytes, which the types of gRPC do not know."""
    return channel.unary_unary(path)


def http_of(near: Sidecar) -> str:
    """Return where a sidecar answers over HTTP."""
    assert near._http is not None
    return near._http.address


def named(spans: Sequence[Received], method: str) -> list[Received]:
    """Return the spans of a method."""
    return [span for span in spans if span.name == f"{SERVICE}/{method}"]


async def test_from_the_client_to_the_authority(tmp_path: Path, collector: Collector) -> None:
    """The spans of a caller, a sidecar, its authority and the commit are one trace, each the parent of the next."""
    async with processes(tmp_path, collector.url) as (_, _, address), stub_for(address) as stub:
        sent = [SAMPLED, ("x-request-id", "checkout-1")]
        await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), metadata=sent)
        await collector.until(lambda spans: len(named(spans, "CreateSession")) == 3 and len(spans) >= 4)
    name = f"{SERVICE}/CreateSession"
    near = collector.one(service="sessiond-sidecar", name=name, kind="SERVER")
    asking = collector.one(service="sessiond-sidecar", name=name, kind="CLIENT")
    authority = collector.one(service="sessiond", name=name, kind="SERVER")
    commit = collector.one(service="sessiond", name="sessiond.commit")
    chain = [near, asking, authority, commit]
    assert [span.parent_id for span in chain] == [PARENT, near.span_id, asking.span_id, authority.span_id]
    assert {span.trace_id for span in chain} == {TRACE}
    assert authority.facts == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "CreateSession",
        "rpc.grpc.status_code": 0,
        "sessiond.application": "default",
        "sessiond.call_id": "checkout-1",
    }
    assert near.facts["sessiond.answered_from"] == "authority"
    assert not any(span.is_error for span in chain)


async def test_where_answers_come_from(app: App, collector: Collector) -> None:
    """A validation says its verdict, and whether the session came from memory or from the store."""
    async with stub_for(app.address) as stub:
        token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
        app.authority.parts.cache.clear()
        for asked in (token, token, token, "no token"):
            await stub.ValidateSession(pb.ValidateSessionRequest(token=asked))
        spans = await collector.until(lambda spans: len(named(spans, "ValidateSession")) == 4)
    found = [
        tuple(span.facts.get(f"sessiond.{name}") for name in ("session_from", "verdict", "application"))
        for span in named(spans, "ValidateSession")
    ]
    assert found == [
        ("store", "VALID", "default"),
        ("memory", "VALID", "default"),
        ("memory", "VALID", "default"),
        ("memory", "MALFORMED", "default"),
    ]


async def test_a_sidecar_s_memory(tmp_path: Path, collector: Collector) -> None:
    """An answer from a sidecar's memory is a span of the sidecar alone, which says so."""
    async with (
        serving(config_for(tmp_path, tracing=collector.url)) as app,
        beside(app.address, tmp_path, tracing=collector.url) as near,
        stub_for(near.address) as stub,
    ):
        await until(lambda: is_open(near))
        token = (await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))).token
        asked = pb.ValidateSessionRequest(token=token, client=pb.ClientContext(ip_address="192.0.2.7"))
        for _ in range(3):
            await stub.ValidateSession(asked)
        await collector.until(lambda spans: len(named(spans, "ValidateSession")) == 5)
    found = [span for span in named(collector.spans, "ValidateSession") if span.service == "sessiond-sidecar"]
    kinds = [(span.kind, span.facts.get("sessiond.answered_from")) for span in found]
    assert sorted(kinds, key=str) == [
        ("CLIENT", None),
        ("SERVER", "authority"),
        ("SERVER", "cache"),
        ("SERVER", "cache"),
    ]


async def test_errors(app: App, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of ours marks its span as an error, with its status and the id of the log line; a wrong request not."""

    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(app.authority.parts.store, "activity", fail)
    async with AsyncClient(app.address) as client:
        with pytest.raises(InvalidArgument):
            await client.create(subject="a" * 5_000)
        with pytest.raises(InternalError) as raised:
            [event async for event in client.activity(subject="ada")]
        await collector.until(lambda spans: len(spans) == 2)
    wrong, failed = collector.one(name=f"{SERVICE}/CreateSession"), collector.one(name=f"{SERVICE}/ListActivity")
    assert (wrong.is_error, wrong.facts["rpc.grpc.status_code"]) == (False, 3)
    assert (failed.is_error, failed.facts["rpc.grpc.status_code"]) == (True, 13)
    assert failed.facts["sessiond.call_id"] == raised.value.call_id


async def test_streams(app: App, collector: Collector) -> None:
    """A stream is a span that ends with it."""
    async with stub_for(app.address) as stub:
        await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
        call = stub.Subscribe(pb.SubscribeRequest(), metadata=[SAMPLED])
        await call.read()
        assert named(collector.spans, "Subscribe") == []
        call.cancel()
        await collector.until(lambda spans: bool(named(spans, "Subscribe")))
    found = collector.one(name=f"{SERVICE}/Subscribe")
    assert (found.trace_id, found.parent_id) == (TRACE, PARENT)
    assert found.facts["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]


async def test_what_is_not_sampled(tmp_path: Path, collector: Collector) -> None:
    """A caller that does not sample its trace gets no spans, neither from a sidecar nor from its authority."""
    async with (
        serving(config_for(tmp_path, tracing=collector.url)) as app,
        beside(app.address, tmp_path, tracing=collector.url) as near,
        stub_for(near.address) as stub,
    ):
        for trace in (NOT_SAMPLED, SAMPLED):
            await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), metadata=[trace])
        await collector.until(lambda spans: len(named(spans, "CreateSession")) == 3)
    assert len(named(collector.spans, "CreateSession")) == 3


async def test_the_sampler_of_the_environment(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standard variables decide what is sampled, and as what the service is known."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "sessions-eu")
    async with serving(config_for(tmp_path, tracing=collector.url)) as app, stub_for(app.address) as stub:
        await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
        await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), metadata=[SAMPLED])
        await collector.until(lambda spans: len(spans) == 2)
    assert {(span.service, span.trace_id) for span in collector.spans} == {("sessions-eu", TRACE)}


async def test_the_endpoint_of_the_environment(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `env`, spans go where the standard variables say."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    async with serving(config_for(tmp_path, tracing="env")) as app, stub_for(app.address) as stub:
        await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
    assert len(named(collector.spans, "CreateSession")) == 1  # the last spans are sent before the server has stopped


async def test_questions_over_http(tmp_path: Path, collector: Collector) -> None:
    """A question of a proxy is a part of the trace of its request, through a sidecar too."""
    asked = {
        "x-forwarded-method": "GET",
        "x-forwarded-uri": "/secret-page?q=1",
        "x-forwarded-host": "app.example",
        "x-forwarded-for": "203.0.113.9",
    }
    odd = asked | {"x-forwarded-for": "nobody", "traceparent": "ä"}
    async with (
        serving(config_for(tmp_path, tracing=collector.url)) as app,
        beside(app.address, tmp_path, tracing=collector.url, http_listen="127.0.0.1:0") as near,
        httpx2.AsyncClient(base_url=f"http://{http_of(near)}", trust_env=False) as http,
    ):
        found = await http.get("/check", params={"guests": "true"}, headers=asked | dict([SAMPLED]))
        assert found.status_code == 200
        await http.get("/check", headers={name.encode(): value.encode() for name, value in odd.items()})
        await collector.until(lambda spans: len(spans) == 6)
    first = [span for span in collector.spans if span.trace_id == TRACE]
    by_parent = {span.parent_id: span for span in first}
    chain = [by_parent[PARENT]]
    while chain[-1].span_id in by_parent:
        chain.append(by_parent[chain[-1].span_id])
    assert [(span.service, span.name, span.kind) for span in chain] == [
        ("sessiond-sidecar", "GET /check", "SERVER"),
        ("sessiond-sidecar", "sessiond.http.ForwardAuth/Check", "CLIENT"),
        ("sessiond", "sessiond.http.ForwardAuth/Check", "SERVER"),
    ]
    assert chain[0].facts["http.response.status_code"] == 200
    (failed,) = [span for span in collector.spans if span.name == "GET /check" and span.trace_id != TRACE]
    assert (failed.is_error, failed.facts["http.response.status_code"]) == (True, 500)


async def test_workers(tmp_path: Path, collector: Collector) -> None:
    """A call over a worker has a span of the worker and one of the owner, in one trace."""
    server = ServerProcess(tmp_path, "--config", str(config_file(tmp_path, collector.url)), "--workers", "1")
    try:
        async with stub_for(await server.address()) as stub:
            await stub.CreateSession(pb.CreateSessionRequest(subject="ada"), metadata=[SAMPLED])
            await collector.until(lambda spans: len(named(spans, "CreateSession")) == 3)
        assert await server.terminate() == 0
    finally:
        server.kill()
    found = {(span.service, span.kind) for span in named(collector.spans, "CreateSession") if span.trace_id == TRACE}
    assert found == {("sessiond-worker", "SERVER"), ("sessiond-worker", "CLIENT"), ("sessiond", "SERVER")}


@pytest.mark.parametrize("kind", ["refuses", "is silent"])
async def test_without_a_collector(tmp_path: Path, kind: str) -> None:
    """A collector that is away, or takes connections and is silent, changes no answer and delays no stop."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if kind == "refuses":
            silent.close()
        async with processes(tmp_path, f"http://127.0.0.1:{port}") as (server, near, address):
            async with AsyncClient(address, coalesce=False) as client:
                token = (await client.create(subject="ada")).token
                for _ in range(3_000):  # more than are kept
                    assert (await client.validate(token)).valid
            began = time.monotonic()
            assert (await near.terminate(), await server.terminate()) == (0, 0)
            took = time.monotonic() - began
        assert took < 8  # seconds; each process waits for two, and gRPC's stop takes some
    for one in (server, near):
        lines = [json.loads(line) for line in one.log_path.read_text(encoding="utf-8").splitlines()]  # all of it JSON
        found = [line for line in lines if line["event"] == "traces not exported"]
        assert 1 <= len(found) <= 2
        assert all(line["level"] == "warning" for line in found)
        assert not [line for line in lines if line["level"] == "error"]


async def test_no_secret_is_exported(tmp_path: Path, collector: Collector) -> None:
    """No token, key, request id, subject, session data, address, user agent or path of a client is in what is sent."""
    canary = Canary()
    subject, agent, address, data = "ada.lovelace", "Firefox/canary", "203.0.113.77", b"data of the session"
    for label, text in (("subject", subject), ("agent", agent), ("address", address), ("data", data.decode())):
        canary.know_text(label, text)
    async with serving(config_for(tmp_path, tracing=collector.url, http_listen="127.0.0.1:0")) as app:
        canary.know_key_file(tmp_path / "data" / "sessiond.key")
        assert app._endpoints._http is not None
        client = ClientContext(ip_address=address, user_agent=agent)
        async with (
            beside(app.address, tmp_path, tracing=collector.url) as near,
            AsyncClient(near.address) as authority,
            stub_for(near.address) as stub,
            httpx2.AsyncClient(base_url=f"http://{app._endpoints._http.address}", trust_env=False) as http,
        ):
            identity = canary.know_id("7b0f2c4e-0f1e-4d5c-9a2a-6f1f0f5f9a11")
            created = await authority.create(subject=subject, client=client, data={"k": data}, request_id=identity)
            token = canary.know_token(created.token.reveal())
            canary.know_text("session id", str(created.session.session_id))
            for _ in range(3):
                await authority.validate(token, client=client, data=True)
            await authority.validate(token + "x", client=client)
            # Where an application, an id or the name of a call belongs.
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.ValidateSession(
                    pb.ValidateSessionRequest(application=token), metadata=[("x-request-id", token)]
                )
            with pytest.raises(grpc.aio.AioRpcError):
                async with grpc.aio.insecure_channel(near.address) as channel:
                    await raw_call(channel, f"/{SERVICE}/{token}")(b"")
            rolled = await authority.roll(token, client=client)
            assert rolled.token is not None
            canary.know_token(rolled.token.reveal())
            await authority.list(subject=subject).__anext__()
            asked = {
                "x-forwarded-method": "GET",
                "x-forwarded-uri": f"/path?token={token}",
                "x-forwarded-host": "app.example",
                "x-forwarded-for": address,
                "user-agent": agent,
                "cookie": f"__Host-id={token}",
                "x-request-id": token,
            }
            await http.get("/check", params={"level": "0"}, headers=asked)
            await http.get(f"/browser/{token}/session", headers=asked)
            await authority.revoke(subject=subject, session_id=created.session.session_id)
    assert len(collector.spans) > 15
    assert len(canary.tokens) == 2
    assert canary.found_in("traces", *collector.raw) == []


def test_off_by_default() -> None:
    """A server and a sidecar that do not trace import nothing of OpenTelemetry."""
    code = (
        "import sys, asyncio; from pathlib import Path; from tests.support.server import *;"
        "from tests.support.sidecars import beside; from sessiond_client import AsyncClient\n"
        "async def main(folder):\n"
        "    async with serving(config_for(folder, metrics_listen='127.0.0.1:0')) as app:\n"
        "        async with beside(app.address, folder) as near, AsyncClient(near.address) as client:\n"
        "            await client.validate((await client.create(subject='ada')).token)\n"
        "    print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
        "import tempfile\n"
        "with tempfile.TemporaryDirectory() as folder: asyncio.run(main(Path(folder)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional packages the setting is refused, and the message says what to install."""
    monkeypatch.setattr("sessiond.config.sections.find_spec", lambda _: None)
    with pytest.raises(BadConfig, match=r"server.tracing|--tracing") as raised:
        load_config(None, [Override("server.tracing", "http://127.0.0.1:4317", "--tracing")])
    assert "pip install 'sessiond[tracing]'" in str(raised.value)


@pytest.mark.parametrize(
    "value", ["127.0.0.1:4317", "grpc://collector:4317", "http://collector", "http://user:secret@collector:4317", "on"]
)
def test_other_values(value: str) -> None:
    """Anything but an address of a collector, or `env`, is refused with the accepted form."""
    with pytest.raises(BadConfig, match='must be "http://HOST:PORT"'):
        load_config(None, [Override("server.tracing", value, "--tracing")])


async def test_variables_that_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables with which nothing can be sent stop the start, and the message names the setting."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    with pytest.raises(BadTracing, match=r"server.tracing: the protocol http/protobuf is not supported"):
        await App.start(config_for(tmp_path, tracing="env"))
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with pytest.raises(BadTracing, match=r"--tracing: cannot be set up: .*OTEL_"):
        async with beside("127.0.0.1:1", tmp_path, tracing="env"):
            pass
    assert "OTEL_EXPORTER_OTLP_TIMEOUT" in os.environ


async def test_the_python_client_with_the_standard_instrumentation(tmp_path: Path, collector: Collector) -> None:
    """With OpenTelemetry's own instrumentation, a call of the client is a part of the application's trace."""
    from opentelemetry import trace
    from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider()
    instrumentor = GrpcAioInstrumentorClient()  # type: ignore[no-untyped-call]
    instrumentor.instrument(tracer_provider=provider)
    try:
        async with serving(config_for(tmp_path, tracing=collector.url)) as app, AsyncClient(app.address) as client:
            with provider.get_tracer("shop").start_as_current_span("checkout") as span:
                token = (await client.create(subject="ada")).token
                await client.validate(token)
                wanted = trace.format_trace_id(span.get_span_context().trace_id)
    finally:
        instrumentor.uninstrument()
    assert {one.trace_id for one in collector.spans} == {wanted}
    assert {one.name for one in collector.spans} >= {f"{SERVICE}/CreateSession", f"{SERVICE}/ValidateSession"}


def test_files_of_another_package() -> None:
    """If another package has overwritten files of OpenTelemetry, the error names the setting and the remedy."""
    program = (
        "import sys, types; sys.modules['opentelemetry.proto.common.v1.common_pb2'] = types.ModuleType('older')\n"
        "from sessiond.monitoring import BadTracing, tracing_to\n"
        "try:\n    tracing_to('http://127.0.0.1:4317', 'server.tracing', 'sessiond')\n"
        "except BadTracing as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("server.tracing: OpenTelemetry cannot be imported (")
    assert run.stdout.endswith("pip install --force-reinstall --no-deps opentelemetry-proto\n")


def test_a_collectors_key_is_not_logged() -> None:
    """A header that is not in good form, which may be a collector's key, is a line in the log without its value."""
    program = (
        "from sessiond.monitoring import tracing_to\n"
        "tracing_to('http://127.0.0.1:9', 'server.tracing', 'sessiond').shut_down(0.1)"
    )
    secret = "api-key Zw93nq"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"OTEL_EXPORTER_OTLP_HEADERS": secret},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "traces not exported" in run.stdout + run.stderr
    assert "Header format invalid" in run.stdout + run.stderr
    assert "Zw93nq" not in run.stdout + run.stderr
