"""Each alert fires on the fault that it is for, in a real Prometheus, and the log has what its runbook looks for."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import asyncpg
import grpc
import pytest

from scripts.postgres import LocalPostgres
from sessiond.app import App
from sessiond.authority.reading import Reading
from sessiond.config import Config
from sessiond.domain.event import EventFilter
from sessiond_client import AsyncClient, ClientContext, SessiondError
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.access.test_audit import full_disk
from tests.metrics.prometheus import RULES, free_port, needs_prometheus, watching
from tests.metrics.scraping import address_of
from tests.support.certificates import Authority, server_files
from tests.support.postgres import new_database, own_postgres
from tests.support.replicas import replica
from tests.support.server import ServerProcess, config_for, serving, stub_for
from tests.support.sidecars import beside, is_open, until
from tests.support.streams import open_sessions

pytestmark = [needs_prometheus, pytest.mark.slow]
RUNBOOK = Path("docs/how-to/respond-to-alerts.md")
POLICY = """
[applications.default]
guessing = { alarm_after = 3, lock_after = 5, lock_time = "1h" }
[limits]
rate_per_application = 50
"""


def metrics(folder: Path, text: str = "", **changes: object) -> Config:
    """Return the configuration of a server with metrics."""
    return config_for(folder, text, metrics_listen="127.0.0.1:0", **changes)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """An authority that is well, by the real clock."""
    async with serving(metrics(tmp_path, POLICY)) as app:
        yield app


def first_step(alert: str, log: str) -> None:
    """Check that the log has one of the lines that the first step of the alert's runbook looks for."""
    section = RUNBOOK.read_text(encoding="utf-8").partition(f"\n## {alert}\n")[2].partition("\n## ")[0]
    assert section, f"{alert} has no section"
    wanted = re.findall(r"`([^`]+)`", section.partition("1. ")[2].partition("\n2. ")[0])
    assert any(line in log for line in wanted), (alert, wanted)


# One authority


async def test_a_server_that_is_gone(tmp_path: Path) -> None:
    """A server that has stopped does not answer Prometheus."""
    async with serving(metrics(tmp_path / "a")) as first, serving(metrics(tmp_path / "b")) as other:
        addresses = address_of(first), address_of(other)
        async with watching(tmp_path, sessiond=addresses[0], sessiond_other=addresses[1]) as prometheus:
            await first._endpoints.stop(0)
            summary = (await prometheus.until_fires("SessiondDown"))["SessiondDown"]
            assert summary == f"{addresses[0]} does not answer"


async def test_a_server_that_restarts(tmp_path: Path) -> None:
    """A server that is killed and started again, three times, at the same address."""
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "sessiond.toml").write_text(f'[server]\nmetrics_listen = "{address}"\n')

    async def started() -> ServerProcess:
        server = ServerProcess(tmp_path, "--config", str(tmp_path / "sessiond.toml"))
        await server.address()
        return server

    server = await started()
    async with watching(tmp_path, sessiond=address) as prometheus:
        for _ in range(3):
            before = await prometheus.values("process_start_time_seconds")
            server.kill()
            server = await started()

            async def is_seen(before: list[float] = before) -> bool:
                return await prometheus.values("process_start_time_seconds") not in (before, [])

            await until(is_seen)
        await prometheus.until_fires("SessiondRestarts")
    server.kill()


async def test_attacks_and_limits(tmp_path: Path, app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """Sessions that are used by other clients, guesses, and calls beyond a limit."""
    async with (
        watching(tmp_path, sessiond=address_of(app)) as prometheus,
        AsyncClient(app.address, retries=0) as client,
    ):
        mine, theirs = ClientContext(user_agent="Firefox on Linux"), ClientContext(user_agent="curl/8")
        for number in range(12):
            session = await client.create(subject=f"user {number}", client=mine)
            await client.validate(session.token, client=theirs)
        for _ in range(4):
            await client.validate("forged" * 12, client=ClientContext(ip_address="192.0.2.7"))
        await prometheus.until_fires("SessiondHijacksSuspected", "SessiondGuessing")

        async def hurry() -> None:
            while True:
                with suppress(SessiondError):
                    await client.validate(session.token)

        hurrying = asyncio.ensure_future(hurry())
        await prometheus.until_fires("SessiondCallsLimited")
        hurrying.cancel()
    log = capsys.readouterr().out
    for alert in ("SessiondHijacksSuspected", "SessiondGuessing", "SessiondCallsLimited"):
        first_step(alert, log)


async def test_a_bug(
    tmp_path: Path, app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A call that fails with a bug of ours."""
    async with watching(tmp_path, sessiond=address_of(app)) as prometheus, stub_for(app.address) as stub:
        monkeypatch.setattr(Reading, "activity", None)
        with pytest.raises(grpc.aio.AioRpcError, match="internal error"):
            await stub.ListActivity(pb.ListActivityRequest(application="default", subject="ada"))
        summary = (await prometheus.until_fires("SessiondBugs"))["SessiondBugs"]
        assert summary.startswith(f"{address_of(app)} has had ")
    first_step("SessiondBugs", capsys.readouterr().out)


async def test_a_subscriber_that_does_not_read(tmp_path: Path, app: App) -> None:
    """A subscriber that is behind is named by its caller."""
    async with watching(tmp_path, sessiond=address_of(app)) as prometheus, stub_for(app.address) as stub:
        behind = await app.authority.reading.subscribe(None, EventFilter(), 3_600, earliest=True, who="billing")
        async with aclosing(behind):
            await anext(behind)
            await open_sessions(stub, 40)
            summary = (await prometheus.until_fires("SessiondSubscriberBehind"))["SessiondSubscriberBehind"]
            assert "billing" in summary


async def test_a_certificate_that_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate that is replaced by one with less than a week left."""
    files = server_files(Authority(), tmp_path / "tls")
    async with (
        serving(metrics(tmp_path, **files)) as app,
        watching(tmp_path, sessiond=address_of(app)) as prometheus,
    ):
        server_files(Authority(), tmp_path / "tls", begin=timedelta(days=-80), end=timedelta(days=3))
        summary = (await prometheus.until_fires("SessiondCertificateEnds"))["SessiondCertificateEnds"]
        assert "ends in 2d 23h" in summary
    first_step("SessiondCertificateEnds", capsys.readouterr().out)


async def test_an_audit_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk under the audit file."""
    async with (
        serving(metrics(tmp_path, log_audit_file=tmp_path / "audit.log")) as app,
        watching(tmp_path, sessiond=address_of(app)) as prometheus,
        AsyncClient(app.address) as client,
    ):
        with full_disk(app):
            with suppress(SessiondError):
                await client.key_ring()
            await prometheus.until_fires("SessiondAuditNotWritten")
    first_step("SessiondAuditNotWritten", capsys.readouterr().out)


async def test_a_key_that_is_missing(tmp_path: Path, app: App, capsys: pytest.CaptureFixture[str]) -> None:
    """A process without one of the keys that its store records."""
    async with watching(tmp_path, sessiond=address_of(app)) as prometheus:
        keeper = app._keeper
        keeper._keys.clear()
        keeper.apply(keeper.records)
        await prometheus.until_fires("SessiondKeyMissing")
    first_step("SessiondKeyMissing", capsys.readouterr().out)


# A sidecar


async def test_a_sidecar_without_its_authority(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sidecar that cannot follow any more."""
    async with (
        serving(config_for(tmp_path)) as app,
        beside(app.address, tmp_path, metrics_listen="127.0.0.1:0") as sidecar,
    ):
        await until(lambda: is_open(sidecar))
        async with watching(tmp_path, sessiond_sidecar=address_of(sidecar)) as prometheus:
            await app._endpoints.stop(0)
            await prometheus.until_fires("SessiondSidecarClosed")
    first_step("SessiondSidecarClosed", capsys.readouterr().out)


# Postgres


@pytest.fixture
async def server() -> AsyncIterator[LocalPostgres]:
    """A Postgres that the test may stop."""
    with own_postgres() as server:
        yield server


@pytest.fixture
async def replicated(tmp_path: Path, server: LocalPostgres) -> AsyncIterator[App]:
    """A replica with metrics."""
    async with replica(tmp_path, await new_database(server.url()), 0, metrics_listen="127.0.0.1:0") as app:
        yield app


@asynccontextmanager
async def busy(app: App) -> AsyncIterator[None]:
    """Create sessions all the time, whether that works or not."""

    async def create(client: AsyncClient) -> None:
        while True:
            with suppress(SessiondError):
                await client.create(subject="ada")
            await asyncio.sleep(0.01)

    async with AsyncClient(app.address, retries=0, timeout=2) as client:
        creating = asyncio.ensure_future(create(client))
        try:
            yield
        finally:
            creating.cancel()
            await asyncio.wait([creating])


async def test_a_database_that_is_gone(
    tmp_path: Path, server: LocalPostgres, replicated: App, capsys: pytest.CaptureFixture[str]
) -> None:
    """Postgres has stopped: the store does not answer, commits fail, the lease ends, and nothing is swept."""
    alerts = (
        "SessiondStoreDown",
        "SessiondCommitsFail",
        "SessiondUnavailable",
        "SessiondMemoryClosed",
        "SessiondSweeperStalled",
    )
    async with watching(tmp_path, sessiond=address_of(replicated)) as prometheus, busy(replicated):
        server.stop()
        await prometheus.until_fires(*alerts)
    log = capsys.readouterr().out
    for alert in alerts:
        first_step(alert, log)


async def test_a_database_that_is_slow(tmp_path: Path, replicated: App) -> None:
    """Something else in the database holds a lock again and again, so that commits and calls wait."""
    connection = await asyncpg.connect(replicated._config.store.url)  # type: ignore[union-attr]

    async def lock() -> None:
        while True:
            async with connection.transaction():
                await connection.execute("LOCK TABLE log_head IN EXCLUSIVE MODE")
                await asyncio.sleep(0.5)

    async with watching(tmp_path, sessiond=address_of(replicated)) as prometheus, busy(replicated):
        locking = asyncio.ensure_future(lock())
        await prometheus.until_fires("SessiondCommitsSlow", "SessiondCallsSlow")
        locking.cancel()
        await asyncio.wait([locking])
    await connection.close()


# The rules themselves


def test_every_alert_has_a_test_and_a_runbook() -> None:
    """Each alert is named in a test here, and has a section in the runbook with a first step."""
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
    tests, runbook = Path(__file__).read_text(encoding="utf-8"), RUNBOOK.read_text(encoding="utf-8")
    assert len(alerts) > 10
    runbooks = re.findall(r"runbook: docs/how-to/respond-to-alerts.md#(\w+)", RULES.read_text(encoding="utf-8"))
    assert runbooks == [alert.lower() for alert in alerts]
    for alert in alerts:
        assert f'"{alert}"' in tests
        assert "\n1. " in runbook.partition(f"\n## {alert}\n")[2].partition("\n## ")[0], alert
    assert re.findall(r"\n## (Sessiond\w+)\n", runbook) == alerts


def test_promtool_accepts_the_files() -> None:
    """Prometheus's own check finds nothing in the rules and in the example configuration."""
    command = ["promtool", "check", "config", "deploy/prometheus/prometheus.yaml"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
