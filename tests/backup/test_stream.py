"""The call StreamBackup: what it streams, when it is refused, and how it ends."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.store.sqlite import snapshot as snapshots
from sessiond_client import AsyncClient, Client, FailedPrecondition, ResourceExhausted, Unavailable
from sessiond_client.backup import _Parts
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.moving import homes_of
from tests.support.server import AsyncStub, config_for, serving, sqlite_of, stub_for


async def fill(client: AsyncClient, size: int = 20_000_000) -> None:
    """Make the database larger than what a stream holds on its way."""
    part = bytes(60_000)
    await asyncio.gather(*(client.create(data={"cart": part}) for _ in range(size // len(part))))


async def rest_of(call: Any) -> None:
    """Read a stream to its end."""
    while await call.read():
        pass


async def until_free(app: App) -> None:
    """Wait until no snapshot is open."""
    async with asyncio.timeout(10):
        while sqlite_of(app)._has_snapshot:  # noqa: ASYNC110 - nothing tells of its end
            await asyncio.sleep(0.01)


async def test_both_clients(app: App, clock: ManualClock) -> None:
    """Both clients get the whole file, and what it is of."""

    def read() -> tuple[Any, bytes]:
        with Client(app.address) as client, client.backup() as backup:
            return backup.facts, b"".join(backup)

    async with AsyncClient(app.address) as client:
        await client.create(subject="ada")
        async with client.backup() as backup:
            parts = [part async for part in backup]
        described, ring = await client.authority(), await client.key_ring()
    facts = backup.facts
    assert (await asyncio.to_thread(read)) == (facts, b"".join(parts))
    assert facts.time.timestamp() * 1000 == clock.now()
    assert facts.size == sum(map(len, parts))
    assert (facts.authority_id, facts.revision) == (described.authority_id, described.revision)
    assert facts.key_fingerprints == tuple(key.fingerprint for key in ring.keys)
    assert (facts.server_version, facts.schema_version) == (described.version, 8)


async def test_one_at_a_time(app: App, stub: AsyncStub) -> None:
    """A second backup is refused, and allowed once the first caller has hung up."""
    async with AsyncClient(app.address) as client:
        await fill(client)
        call: Any = stub.StreamBackup(pb.StreamBackupRequest())
        await call.read()
        with pytest.raises(FailedPrecondition, match="another backup is under way"):
            async with client.backup():
                pass
        call.cancel()
        await until_free(app)
        async with client.backup() as backup:
            assert sum([len(part) async for part in backup]) == backup.facts.size


async def test_a_caller_that_does_not_read(tmp_path: Path, clock: ManualClock) -> None:
    """A caller that leaves its stream unread loses it, and the next one can begin."""
    config = config_for(tmp_path, subscriber_write_timeout=100)
    async with serving(config, clock) as app, stub_for(app.address) as stub, AsyncClient(app.address) as client:
        await fill(client)
        call: Any = stub.StreamBackup(pb.StreamBackupRequest())
        await call.read()
        await until_free(app)
        with pytest.raises(grpc.aio.AioRpcError, match="did not read the backup in time") as refused:
            await rest_of(call)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_log_that_grows_too_large(app: App, stub: AsyncStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """If too much is committed while a caller reads, it gets RESOURCE_EXHAUSTED and no end of the backup."""
    async with AsyncClient(app.address) as client:
        await fill(client)
        monkeypatch.setattr(snapshots, "_LEAST_LOG", 1_000_000)
        async with client.backup() as backup:
            await fill(client, backup.facts.size + 10_000_000)
            with pytest.raises(ResourceExhausted, match="not read fast enough"):
                async for _ in backup:
                    pass


async def test_a_server_that_stops(tmp_path: Path, clock: ManualClock) -> None:
    """A backup ends with UNAVAILABLE when the server stops, and does not hold it up."""
    async with serving(config_for(tmp_path), clock) as app, AsyncClient(app.address) as client:
        await fill(client)
        async with client.backup() as backup:
            began = time.monotonic()
            stopping = asyncio.create_task(app.authority.parts.journal.close())
            app.authority.backups.close()
            with pytest.raises(Unavailable, match="shutting down"):
                async for _ in backup:
                    pass
            await stopping
            assert time.monotonic() - began < 4.5, "less than the grace of open calls"


async def test_postgres_has_its_own_tools(tmp_path: Path, postgres: str, clock: ManualClock) -> None:
    """With a store in Postgres the call is refused, and the error names the tools."""
    (home,) = await homes_of(tmp_path, postgres, "postgres")
    async with home.served(clock) as app, AsyncClient(app.address) as client:
        with pytest.raises(FailedPrecondition, match="pg_dump or pg_basebackup"):
            async with client.backup():
                pass


STARTED = pb.StreamBackupResponse(started=pb.BackupStarted(size=6))
PART = pb.StreamBackupResponse(part=b"abc")


def complete(content: bytes) -> pb.StreamBackupResponse:
    return pb.StreamBackupResponse(complete=pb.BackupComplete(sha256=sha256(content).digest()))


@pytest.mark.parametrize(
    "messages",
    [
        [PART],
        [complete(b"")],
        [pb.StreamBackupResponse()],
        [STARTED, STARTED],
        [STARTED, pb.StreamBackupResponse()],
        [STARTED, PART, complete(b"abc")],
        [STARTED, PART, PART, complete(b"abcabd")],
        [STARTED, PART, PART, PART, complete(b"abcabcabc")],
    ],
)
def test_a_damaged_stream(messages: list[pb.StreamBackupResponse]) -> None:
    """A stream that the contract does not allow, or whose SHA-256 is another one, is refused at its last message."""
    parts = _Parts()
    for message in messages[:-1]:
        assert parts.step(message) is not None
    with pytest.raises(Unavailable, match="the backup is damaged") as refused:
        parts.step(messages[-1])
    assert refused.value.status == "DATA_LOSS"


def test_a_whole_stream() -> None:
    """The same messages in order are a backup."""
    parts = _Parts()
    assert [parts.step(one) for one in (STARTED, PART, PART, complete(b"abcabc"))] == [b"", b"abc", b"abc", None]
