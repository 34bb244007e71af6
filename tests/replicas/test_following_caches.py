"""Caches that follow one replica, and revocations that are awaited at another."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.store.shared import LEASE
from sessiond.system.clock import since_boot
from sessiond_client.following import Lease
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.following import FollowStream, following
from tests.support.held import until
from tests.support.replicas import replica, replicas
from tests.support.server import AsyncStub, ServerProcess, stub_for
from tests.support.streams import create
from tests.support.tokens import at_revision, revision_in


def passed() -> int:
    """Milliseconds of the clock that the caches of this test and the replicas read."""
    return since_boot() // 1_000_000


async def revoke(stub: AsyncStub, token: str, *, waits: bool = True) -> pb.RevokeSessionResponse:
    """Revoke a session, by default everywhere."""
    wait = pb.REVOCATION_WAIT_FOR_CACHES if waits else pb.REVOCATION_WAIT_UNSPECIFIED
    request = pb.RevokeSessionRequest(session=pb.SessionReference(token=token), wait=wait)
    answer: pb.RevokeSessionResponse = await stub.RevokeSession(request)
    return answer


async def leased(stream: FollowStream, most: int = LEASE) -> Lease:
    """Ask until a lease of at most `most` milliseconds is granted, and return it as the cache counts.

    A replica that has just started has no lease itself, and grants none; later it grants what is left of its own.
    """
    async with asyncio.timeout(20):
        while True:
            sent = passed()
            grant = await stream.renew()
            if 0 < (duration := grant.grant.duration.ToMilliseconds()) <= most:
                await stream.acknowledge()
                lease = Lease()
                lease.extend(sent, duration)
                return lease


async def still_waits(call: asyncio.Future[Any], seconds: float = 0.5) -> None:
    """Look at a call for a while; it must not have returned."""
    done, _ = await asyncio.wait([call], timeout=seconds)
    assert not done


@pytest.fixture
async def both(tmp_path: Path, database: str) -> AsyncIterator[list[App]]:
    async with replicas(tmp_path, database) as running:
        yield running


@pytest.fixture
async def stubs(both: list[App]) -> AsyncIterator[list[AsyncStub]]:
    async with stub_for(both[0].address) as one, stub_for(both[1].address) as other:
        yield [one, other]


async def test_a_cache_of_another_replica_is_waited_for(stubs: list[AsyncStub]) -> None:
    """A revocation that is awaited at one replica returns once the cache of the other has acknowledged it too."""
    one, other = stubs
    async with following(other) as stream:
        for _ in range(5):
            token, fact = await create(one, "ada")
            await leased(stream)
            call = asyncio.ensure_future(revoke(one, token))
            message = await stream.until("batch")
            assert [event.session_id for event in message.batch.events] == [fact.session_id]
            assert message.acknowledge  # nobody has to ask again on behalf of the other replica
            await still_waits(call)
            await stream.acknowledge()
            async with asyncio.timeout(2):
                assert (await call).revoked


async def test_a_silent_cache_of_another_replica(stubs: list[AsyncStub]) -> None:
    """A cache that stays silent, although its replica acknowledges, is waited for until its lease has ended."""
    one, other = stubs
    token, _ = await create(one, "ada")
    async with following(other) as stream:
        lease = await leased(stream)
        call = asyncio.ensure_future(revoke(one, token))
        await stream.until("batch")
        seen = await other.ValidateSession(pb.ValidateSessionRequest(token=token))
        assert seen.verdict == pb.VERDICT_REVOKED  # the replica itself is not what the call waits for
        await call
        assert not lease.is_valid(passed())


async def test_a_cache_that_only_renews_does_not_hold_up_another_replica(stubs: list[AsyncStub]) -> None:
    """A cache that goes on renewing its lease and acknowledges nothing is not waited for for ever."""
    one, other = stubs
    token, _ = await create(one, "ada")
    async with following(other) as stream:
        lease = await leased(stream)
        call = asyncio.ensure_future(revoke(one, token))
        async with asyncio.timeout(15):
            while not call.done():
                await stream.renew()
                await asyncio.wait([call], timeout=0.3)
        assert (await call).revoked
        assert not lease.is_valid(passed())


async def test_a_repeated_revocation_waits_for_the_own_caches(both: list[App], stubs: list[AsyncStub]) -> None:
    """A revocation that another replica has made already, and that this one has not read yet, waits for its caches."""
    one, other = stubs
    token, _ = await create(one, "ada")
    async with following(other) as stream:
        await leased(stream)
        follower = both[1].authority.parts.follower
        assert follower is not None
        async with follower._turn:  # the replica reads nothing
            await revoke(one, token, waits=False)
            call = asyncio.ensure_future(revoke(other, token))
            await still_waits(call, 0.3)
        await stream.until("batch")
        await still_waits(call)
        await stream.acknowledge()
        async with asyncio.timeout(3):
            assert not (await call).revoked


async def test_changes_that_do_not_concern_a_cache_are_not_waited_for(stubs: list[AsyncStub]) -> None:
    """A cache of other applications does not hold up a revocation at another replica."""
    one, other = stubs
    async with following(other, applications=["shop"]) as stream:
        for _ in range(5):
            await leased(stream)
            token, _ = await create(one, "ada")
            async with asyncio.timeout(2):
                await revoke(one, token)


async def test_a_cursor_of_one_replica_at_another(stubs: list[AsyncStub]) -> None:
    """A cache may follow another replica from its cursor, and may ask another one with it."""
    one, other = stubs
    async with following(one) as stream:
        for _ in range(20):
            token, _ = await create(one, "ada")
            ended = await revoke(one, token, waits=False)
            await stream.until_revision(revision_in(ended))
            seen = await other.ValidateSession(pb.ValidateSessionRequest(token=token, at_least=stream.cursor))
            assert seen.verdict == pb.VERDICT_REVOKED
            async with following(other, stream.cursor) as resumed:
                grant = await resumed.renew()
                assert grant.cursor == at_revision(grant.cursor, revision_in(ended))
                assert resumed.events == []


# A replica that is gone


@asynccontextmanager
async def processes(folder: Path, database: str) -> AsyncIterator[list[ServerProcess]]:
    """Two replicas as processes."""
    servers: list[ServerProcess] = []
    folders = [folder / "one", folder / "other"]
    try:
        for mine in folders:
            (mine / "data").mkdir(parents=True, mode=0o700)
            if servers:
                shutil.copy(folders[0] / "data" / "sessiond.key", mine / "data" / "sessiond.key")
            servers.append(ServerProcess(mine, prefix=("env", f"SESSIOND_STORE={database}")))
            await servers[-1].address()
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.mark.parametrize("end", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM], ids=["stopped", "killed", "ended"])
async def test_a_lease_outlives_its_replica(tmp_path: Path, database: str, end: signal.Signals) -> None:
    """If a replica is stopped, killed or shut down, a revocation at another one returns only after the lease of its
    cache has ended, by the clock of the cache.
    """
    async with processes(tmp_path, database) as servers, AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(stub_for(await server.address())) for server in servers]
        token, _ = await create(one, "ada")
        stream = await stack.enter_async_context(following(other))
        lease = await leased(stream, LEASE - 600)  # half a second after the replica has renewed its own
        servers[1].process.send_signal(end)
        if end is not signal.SIGSTOP:
            await asyncio.to_thread(servers[1].process.wait)
        assert lease.is_valid(passed())
        await asyncio.wait_for(revoke(one, token), 20)
        assert not lease.is_valid(passed())


async def test_a_replica_without_caches_is_not_waited_for_after_its_end(tmp_path: Path, database: str) -> None:
    """A replica that is shut down while no cache of it may answer leaves nothing to wait for."""
    async with replica(tmp_path, database, 0) as first, stub_for(first.address) as one:
        token, _ = await create(one, "ada")
        async with (
            replica(tmp_path, database, 1) as second,
            stub_for(second.address) as other,
            following(other) as stream,
        ):
            await leased(stream)
            await stream.release()
            await until(lambda: not second.authority.parts.caches.may_answer())
        async with asyncio.timeout(2):
            assert (await revoke(one, token)).revoked
