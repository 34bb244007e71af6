"""What the metrics of an authority and of a sidecar say, after things happened that they are about."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import chain
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from sessiond.app import App
from sessiond.config import BadConfig, Override, load_config
from sessiond.domain.event import EventFilter
from sessiond.rpc.sockets import CannotListen
from sessiond_client import AsyncClient, ClientContext, InvalidArgument, Verdict
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.hostile import frames
from tests.metrics.scraping import address_of, fetched, scraped
from tests.support.canary import Canary
from tests.support.certificates import Authority, server_files
from tests.support.clock import ManualClock
from tests.support.replicas import replicas
from tests.support.server import config_for, serving, stub_for
from tests.support.sidecars import beside, is_open, until
from tests.support.streams import open_sessions, read, subscribe

METHOD = {"grpc_service": "sessiond.v1.SessionAuthority"}
REFERENCE = Path("docs/reference/metrics.md")
POLICY = '[applications.default]\nguessing = { alarm_after = 2, lock_after = 4, lock_time = "1h" }\n'


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority with metrics."""
    async with serving(config_for(tmp_path, POLICY, metrics_listen="127.0.0.1:0"), clock) as app:
        yield app


# Calls


async def test_calls_by_method_and_status(app: App) -> None:
    """Each call is counted when it begins, and with its status and its time when it has ended."""
    async with AsyncClient(app.address, retries=0) as client, stub_for(app.address) as stub:
        token = (await client.create(subject="ada")).token
        for _ in range(3):
            await client.validate(token)
        with pytest.raises(InvalidArgument):
            await client.create(subject="a" * 10_000)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ValidateSession(pb.ValidateSessionRequest(application="elsewhere"))
        found = await scraped(app)
    validate, create = {**METHOD, "grpc_method": "ValidateSession"}, {**METHOD, "grpc_method": "CreateSession"}
    assert found.value("grpc_server_started_total", **validate, grpc_type="unary") == 4
    assert found.value("grpc_server_handled_total", **validate, grpc_code="OK") == 3
    assert found.value("grpc_server_handled_total", **validate, grpc_code="INVALID_ARGUMENT") == 1
    assert found.value("grpc_server_handled_total", **create, grpc_code="INVALID_ARGUMENT") == 1
    assert found.value("grpc_server_handling_seconds_count", **validate) == 4
    assert found.value("grpc_server_handling_seconds_bucket", **validate, le="+Inf") == 4
    assert 0 < found.value("grpc_server_handling_seconds_sum", **validate) < 60
    assert found.value("grpc_server_msg_sent_total", **validate) == 3


async def test_a_call_that_its_caller_gives_up(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that its caller cancels is counted as CANCELLED, and one that fails with a bug of ours as INTERNAL."""
    waiting, never = asyncio.Event(), asyncio.Event()

    async def wait(*_: object) -> None:
        waiting.set()
        await never.wait()

    async with stub_for(app.address) as stub:
        with monkeypatch.context() as patch:
            patch.setattr(app.authority.parts.store, "activity", wait)
            call = stub.ListActivity(pb.ListActivityRequest(application="default", subject="ada"))
            await waiting.wait()
            assert (await scraped(app)).value("grpc_server_started_total", grpc_method="ListActivity") == 1
            assert (await scraped(app)).value("grpc_server_handled_total", grpc_method="ListActivity") == 0
            call.cancel()

            async def is_counted() -> bool:
                found = await scraped(app)
                return found.samples(
                    "grpc_server_handled_total", grpc_method="ListActivity", grpc_code="CANCELLED"
                ) == [1]

            await until(is_counted)
            patch.setattr(app.authority.parts.store, "activity", None)
            with pytest.raises(grpc.aio.AioRpcError, match="internal error"):
                await stub.ListActivity(pb.ListActivityRequest(application="default", subject="ada"))
        found = await scraped(app)
    assert found.value("grpc_server_handled_total", grpc_method="ListActivity", grpc_code="INTERNAL") == 1


async def test_messages_of_streams(app: App) -> None:
    """A stream is counted with its messages, also if it stays open; it has ended with its status."""
    async with stub_for(app.address) as stub:
        await open_sessions(stub, 5)
        call = subscribe(stub)
        for _ in range(6):
            await read(call)
        found = await scraped(app)
        subscribed = {"grpc_method": "Subscribe", "grpc_type": "server_stream"}
        assert found.value("grpc_server_started_total", **subscribed) == 1
        assert found.value("grpc_server_handled_total", **subscribed) == 0
        assert found.value("grpc_server_msg_sent_total", **subscribed) == 6
        call.cancel()

        async def has_ended() -> bool:
            found = await scraped(app)
            return found.samples("grpc_server_handled_total", **subscribed, grpc_code="CANCELLED") == [1]

        await until(has_ended)


async def test_callers_that_hang_up_while_something_is_sent(app: App) -> None:
    """A stream whose caller takes nothing and hangs up is CANCELLED: it is no failure of the server."""
    host, _, port = app.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(frames.start(0))
    for stream in (1, 3):
        path = "/grpc.health.v1.Health/Watch"
        writer.write(frames.headers(stream, frames.CALL(path)) + frames.data(stream, frames.message(b""), 1))
    await writer.drain()

    async def has(name: str, count: int, **labels: str) -> bool:
        return (await scraped(app)).samples(name, grpc_method="Watch", **labels) == [count]

    await until(lambda: has("grpc_server_started_total", 2))
    writer.write(frames.reset(1))
    await writer.drain()
    await until(lambda: has("grpc_server_handled_total", 1, grpc_code="CANCELLED"))
    writer.close()
    await until(lambda: has("grpc_server_handled_total", 2, grpc_code="CANCELLED"))
    assert (await scraped(app)).value("grpc_server_handled_total", grpc_method="Watch", grpc_code="UNKNOWN") == 0


async def test_health_checks_are_counted_too(app: App) -> None:
    """Calls of the services from libraries are counted under their own names."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", Empty.SerializeToString, Empty.FromString)
        await check(Empty())
    found = await scraped(app)
    assert found.value("grpc_server_handled_total", grpc_service="grpc.health.v1.Health", grpc_code="OK") == 1


# The authority


async def test_verdicts_events_and_locks(app: App) -> None:
    """Verdicts, events and locked sources are counted by application."""
    source = ClientContext(ip_address="192.0.2.7")
    async with AsyncClient(app.address) as client:
        session = await client.create(subject="ada")
        for _ in range(3):
            assert (await client.validate(session.token)).verdict is Verdict.VALID
        for _ in range(5):
            await client.validate("forged" * 12, client=source)
        await client.revoke(token=session.token)
        assert (await client.validate(session.token)).verdict is Verdict.REVOKED
        await until(lambda: app._event_counts.events.total() == 4)
    found = await scraped(app)
    of_ours = {"application": "default"}
    assert found.value("sessiond_validations_total", **of_ours, verdict="valid") == 3
    assert found.value("sessiond_validations_total", **of_ours, verdict="revoked") == 1
    assert found.value("sessiond_validations_total", **of_ours) == 9
    assert found.value("sessiond_events_total", **of_ours, type="session_created") == 1
    assert found.value("sessiond_events_total", **of_ours, type="source_locked") == 1
    assert found.value("sessiond_locked_sources", **of_ours) == 1


async def test_signals(app: App) -> None:
    """A reported signal is counted with what was done about it."""
    async with AsyncClient(app.address) as client:
        session = await client.create(subject="ada", client=ClientContext(user_agent="Firefox on Linux"))
        await client.validate(session.token, client=ClientContext(user_agent="curl/8"))
    found = await scraped(app)
    assert found.value("sessiond_signals_total", application="default", signal="user_agent_change") == 1
    assert found.value("sessiond_events_total", application="default", type="hijack_suspected") == 1


async def test_memory_and_commits(tmp_path: Path, clock: ManualClock) -> None:
    """Commits are counted with how many changes each had, and reads with what memory did not have."""
    settings = config_for(tmp_path, metrics_listen="127.0.0.1:0")
    async with serving(settings, clock) as app, AsyncClient(app.address) as client:
        tokens = [(await client.create(subject="ada")).token for _ in range(3)]
    async with serving(settings, clock) as app, AsyncClient(app.address) as client:
        found = await scraped(app)
        assert found.value("sessiond_cached_sessions") == 0
        units = found.value("sessiond_commit_units_count")
        for token in (*tokens, *tokens):
            await client.validate(token)
        await client.create(subject="eve")
        found = await scraped(app)
    assert found.value("sessiond_cached_sessions") == 4
    assert found.value("sessiond_cache_reads_total") == 3
    assert found.value("sessiond_commit_units_count") >= units + 1
    assert found.value("sessiond_commit_seconds_count") == found.value("sessiond_commit_units_count")
    assert found.value("sessiond_commit_failures_total") == 0
    assert found.value("sessiond_revision") == 4
    assert found.value("sessiond_store_up") == 1
    assert all(size > 50_000 for size in found.samples("sessiond_store_bytes"))
    assert found.value("sessiond_sealing_keys", state="sealing") == 1


async def test_subscribers_that_are_behind(app: App) -> None:
    """How far the slowest subscriber of each caller is behind is known, and falls to nothing when it has caught up."""
    reading = app.authority.reading
    behind = await reading.subscribe(None, EventFilter(), 3_600, earliest=True, who="billing")
    async with stub_for(app.address) as stub, aclosing(behind):
        call = subscribe(stub)
        await read(call)
        await anext(behind)
        await open_sessions(stub, 50)
        for _ in range(50):
            await read(call)
        found = await scraped(app)
        assert found.value("sessiond_feed_subscribers") == 2
        assert found.value("sessiond_feed_lag_events", caller="billing") == 50
        assert found.value("sessiond_feed_lag_events", caller="caller") == 0
        for _ in range(50):
            await anext(behind)
        found = await scraped(app)
        assert found.value("sessiond_feed_lag_events", caller="billing") <= 1, "the event that it is busy with"
        call.cancel()


async def test_the_sweeper(app: App, clock: ManualClock) -> None:
    """Rounds of the sweeper, what they did, and when the last one was done."""
    async with AsyncClient(app.address) as client:
        await client.create(subject="ada")
    clock.advance(24 * 3_600_000)

    async def has_swept() -> bool:
        found = await scraped(app)
        return found.value("sessiond_sweeper_rounds_total", outcome="done") > 0 and (
            found.value("sessiond_swept_sessions_total", what="expired") == 1
        )

    await until(has_swept)
    found = await scraped(app)
    assert found.value("sessiond_sweeper_done_timestamp_seconds") == clock.now() / 1000


async def test_calls_beyond_a_limit(tmp_path: Path) -> None:
    """Calls that a limit refuses are counted by the setting."""
    text = "[limits]\nrate_per_application = 2\n"
    async with serving(config_for(tmp_path, text, metrics_listen="127.0.0.1:0")) as app:
        async with stub_for(app.address) as stub:
            outcomes = await asyncio.gather(
                *(stub.ListActivity(pb.ListActivityRequest(application="default", subject="ada")) for _ in range(20)),
                return_exceptions=True,
            )
        refused = sum(
            isinstance(one, grpc.aio.AioRpcError) and one.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            for one in outcomes
        )
        found = await scraped(app)
    assert refused
    assert found.value("sessiond_limited_calls_total", setting="limits.rate_per_application") == refused


async def test_replicas(tmp_path: Path, database: str) -> None:
    """Each replica says for how long it may judge from memory; one of them sweeps."""
    async with replicas(tmp_path, database, metrics_listen="127.0.0.1:0") as both:
        await until(
            lambda: sum(app.authority.parts.follower.leads for app in both if app.authority.parts.follower) == 1
        )
        found = [await scraped(app) for app in both]
    assert all(0 < one.value("sessiond_lease_seconds") <= 5 for one in found)
    assert all(one.value("sessiond_memory_open") == 1 for one in found)
    assert all(one.value("sessiond_store_bytes") > 1_000_000 for one in found)
    assert sum(one.value("sessiond_replica_leads") for one in found) == 1
    assert 'store="postgres"' in found[0].text


# A sidecar


async def test_a_sidecar(tmp_path: Path, app: App) -> None:
    """A sidecar says whether its cache may answer, and how many validations it has answered."""
    async with beside(app.address, tmp_path, metrics_listen="127.0.0.1:0") as sidecar:
        await until(lambda: is_open(sidecar))
        async with AsyncClient(sidecar.address) as client:
            token = (await client.create(subject="ada")).token
            for _ in range(4):
                await client.validate(token)
        found = await scraped(sidecar)
    assert found.value("sessiond_sidecar_cache_open") == 1
    assert found.value("sessiond_sidecar_validations_total", cache="hit") == 3
    assert found.value("sessiond_sidecar_validations_total", cache="miss") == 1
    assert found.value("sessiond_sidecar_cache_entries") == 1
    assert 0 <= found.value("sessiond_sidecar_cache_staleness_seconds") < 60
    assert found.value("grpc_server_handled_total", grpc_method="ValidateSession", grpc_code="OK") == 4
    assert 'kind="sidecar"' in found.text


async def test_calls_that_no_contract_names(tmp_path: Path, app: App) -> None:
    """A sidecar forwards calls of any name, and these do not fill its memory with counts."""
    async with beside(app.address, tmp_path, metrics_listen="127.0.0.1:0") as sidecar:
        await until(lambda: is_open(sidecar))
        before = (await scraped(sidecar)).value("grpc_server_started_total")
        async with grpc.aio.insecure_channel(sidecar.address) as channel:
            for number in range(20):
                call = channel.unary_unary(f"/any.Service/Method{number}", Empty.SerializeToString, Empty.FromString)
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(Empty())
        found = await scraped(sidecar)
    assert found.value("grpc_server_started_total") == before
    assert "any.Service" not in found.text


# The page


async def test_every_metric_is_in_the_reference(tmp_path: Path, database: str, app: App) -> None:
    """The reference has a row for each metric of ours, with its type and its labels, and for no other."""
    files = server_files(Authority(), tmp_path / "tls")
    async with (
        replicas(tmp_path, database, 1, metrics_listen="127.0.0.1:0", **files) as (first,),
        beside(app.address, tmp_path, metrics_listen="127.0.0.1:0") as sidecar,
    ):
        await until(lambda: is_open(sidecar))
        async with AsyncClient(app.address) as client:
            session = await client.create(subject="ada", client=ClientContext(user_agent="Firefox on Linux"))
            await client.validate(session.token, client=ClientContext(user_agent="curl/8"))
        app._limit_log.refused("caller", "limits.rate_per_caller")
        await until(lambda: first.sweeper.rounds["done"] > 0)

        async def are_measured() -> bool:
            return all([(await scraped(one)).samples("sessiond_store_bytes") for one in (app, first)])

        await until(are_measured)
        all_families = [list((await scraped(server)).families.values()) for server in (app, first, sidecar)]
    found: dict[str, tuple[str, set[str]]] = {}
    for family in chain.from_iterable(all_families):
        if family.name.startswith(("sessiond", "grpc_server")):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            _, labels = found.setdefault(name, (family.type, set()))
            labels.update(label for sample in family.samples for label in sample.labels if label != "le")
    assert _documented() == found


def _documented() -> dict[str, tuple[str, set[str]]]:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\| ", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


async def test_forms(app: App) -> None:
    """The page has the form that Prometheus asks for, and nothing else is served there."""
    text, kind = await fetched(address_of(app))
    assert kind.startswith("text/plain; version=")
    assert "# TYPE sessiond_validations_total counter" in text
    openmetrics, kind = await fetched(address_of(app), "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.endswith("# EOF\n")
    for unknown in ("text/plain; version=1.0.0", "application/openmetrics-text; version=9", "image/png", ";"):
        text, kind = await fetched(address_of(app), unknown)
        assert "sessiond_validations_total" in text
    with pytest.raises(OSError, match="404"):
        await fetched(address_of(app), path="/")


async def test_no_secret_is_shown(app: App, tmp_path: Path) -> None:
    """No token, subject or address of a client is in the metrics, whatever clients send."""
    canary = Canary()
    canary.know_key_file(tmp_path / "data" / "sessiond.key")
    async with AsyncClient(app.address) as client:
        session = await client.create(subject="ada-lovelace", client=ClientContext(ip_address="192.0.2.7"))
        canary.know_token(session.token.reveal())
        await client.validate(session.token)
        for _ in range(5):
            await client.validate("forged" * 12, client=ClientContext(ip_address="192.0.2.8"))
    text, _ = await fetched(address_of(app))
    assert canary.found_in("metrics", text) == []
    assert "ada" not in text
    assert "192.0.2" not in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
async def test_promtool_finds_nothing(app: App, tmp_path: Path) -> None:
    """Prometheus's own check has nothing to say against names, help and units."""
    async with AsyncClient(app.address) as client:
        token = (await client.create(subject="ada")).token
        await client.validate(token)
    async with beside(app.address, tmp_path, metrics_listen="127.0.0.1:0") as sidecar:
        texts = [(await scraped(server)).text for server in (app, sidecar)]
    for text in texts:
        # It finds fault with names that the library has chosen, and with the names of gRPC's metrics.
        own = "\n".join(line for line in text.splitlines() if " sessiond" in line or line.startswith("sessiond")) + "\n"
        assert _checked(own) == (0, "", "")
        assert _checked(own.replace("_total", "_sum"))[0] == 3, "the control: a counter without its ending"


def _checked(text: str) -> tuple[int, str, str]:
    command = ["promtool", "check", "metrics"]
    run = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return run.returncode, run.stdout, run.stderr


async def test_addresses_that_cannot_be_used(tmp_path: Path, app: App) -> None:
    """A wrong address and one that is in use are refused at the start, and nothing stays open."""
    with pytest.raises(BadConfig, match=r"--test: must be"):
        load_config(None, [Override("server.metrics_listen", "nowhere", "--test")])
    taken, proxies = address_of(app), tmp_path / "proxies.sock"
    with pytest.raises(CannotListen, match=taken):
        async with serving(config_for(tmp_path / "other", metrics_listen=taken, http_listen=f"unix:{proxies}")):
            pass
    assert proxies.exists(), "it was listened on"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_unix_connection(proxies)
    socket = f"unix:{tmp_path / 'metrics.sock'}"
    async with serving(config_for(tmp_path / "other", metrics_listen=socket)):
        assert (tmp_path / "metrics.sock").is_socket()
