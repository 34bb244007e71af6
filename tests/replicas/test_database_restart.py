"""The database is restarted under load: nothing acknowledged is lost, and replicas serve again by themselves."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from scripts.postgres import LocalPostgres
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.postgres import new_database, start_again
from tests.support.replicas import replicas
from tests.support.server import AsyncStub, stub_for
from tests.support.streams import Fact, create, faults_of, position, read, subscribe

WRITERS = 3
ENOUGH = 60
"""Acknowledged sessions before the restart, and after it."""
HOUR = 3_600_000


def may_be_retried(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a failed call has the status UNAVAILABLE and says when to try again."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    status = rpc_status.from_call(error)
    return status is not None and any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)


@dataclass
class Story:
    """What writers were told and subscribers were sent.

    facts     acknowledged events
    failures  errors of calls and of streams
    streams   what each subscriber received
    done      set when the writers are to stop
    """

    facts: list[Fact] = field(default_factory=list)
    failures: list[grpc.aio.AioRpcError] = field(default_factory=list)
    streams: list[list[pb.SubscribeResponse]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, stub: AsyncStub) -> None:
        """Open sessions until it is enough."""
        while not self.done.is_set():
            try:
                self.facts.append((await create(stub, "ada"))[1])
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
                await asyncio.sleep(0.05)

    async def follow(self, stub: AsyncStub) -> None:
        """Read the log, and resume by cursor whenever a stream ends, until all that was acknowledged has come."""
        items: list[pb.SubscribeResponse] = []
        self.streams.append(items)
        while not self._has_all(items):
            stream = subscribe(stub, cursor=items[-1].cursor if items else "", interval_ms=100)
            try:
                while not self._has_all(items):
                    items.append(await read(stream))
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
                await asyncio.sleep(0.05)
            finally:
                stream.cancel()

    async def until(self, acknowledged: int) -> None:
        """Wait until so many calls were acknowledged."""
        async with asyncio.timeout(60):
            while len(self.facts) < acknowledged:  # noqa: ASYNC110 - the list does not signal its growth
                await asyncio.sleep(0.01)

    def _has_all(self, items: list[pb.SubscribeResponse]) -> bool:
        newest = max((fact.revision for fact in self.facts), default=0)
        return self.done.is_set() and bool(items) and position(items[-1]) >= newest


async def first_failure(stub: AsyncStub, token: str) -> grpc.aio.AioRpcError:
    """Validate until the answer is an error: for a moment the cache still has a lease."""
    async with asyncio.timeout(20):
        while True:
            try:
                await stub.ValidateSession(pb.ValidateSessionRequest(token=token))
            except grpc.aio.AioRpcError as error:
                return error
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_a_restart_of_the_database(
    tmp_path: Path, server: LocalPostgres, clock: ManualClock, how: signal.Signals
) -> None:
    """Calls fail with UNAVAILABLE and RetryInfo while the database is away; then all goes on, nothing is missing."""
    database = await new_database(server.url())
    story = Story()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(replicas(tmp_path, database, clock=clock))
        stubs = [await stack.enter_async_context(stub_for(app.address)) for app in running]
        token, fact = await create(stubs[0], "ada")
        story.facts.append(fact)
        async with asyncio.TaskGroup() as group:
            for stub in stubs:
                group.create_task(story.follow(stub))
                for _ in range(WRITERS):
                    group.create_task(story.write(stub))
            await story.until(ENOUGH)
            await asyncio.to_thread(server.stop, how)
            for stub in stubs:
                assert may_be_retried(await first_failure(stub, token))
            acknowledged = len(story.facts)
            await asyncio.to_thread(start_again, server)
            await story.until(acknowledged + ENOUGH)
            story.done.set()

        assert story.failures
        assert all(may_be_retried(error) for error in story.failures)
        for items in story.streams:
            events = [Fact.of(item.event) for item in items if item.HasField("event")]
            unacknowledged = set(events) - set(story.facts)
            assert len(unacknowledged) <= len(story.failures)
            assert faults_of(items, [*story.facts, *unacknowledged]) == []
            assert [event.revision for event in events] == list(range(1, len(events) + 1))

        for stub in stubs:
            assert (await stub.ValidateSession(pb.ValidateSessionRequest(token=token))).verdict == pb.VERDICT_VALID
        reference = pb.SessionReference(token=token)
        await stubs[0].RevokeSession(pb.RevokeSessionRequest(session=reference, wait=pb.REVOCATION_WAIT_FOR_CACHES))
        seen = await stubs[1].ValidateSession(pb.ValidateSessionRequest(token=token))
        assert seen.verdict == pb.VERDICT_REVOKED

        tails = [subscribe(stub, types=[pb.EVENT_TYPE_SESSION_EXPIRED], start=pb.STREAM_START_NOW) for stub in stubs]
        for tail in tails:
            await read(tail)
        clock.advance(HOUR)
        for tail in tails:
            assert (await read(tail)).event.type == pb.EVENT_TYPE_SESSION_EXPIRED
            tail.cancel()
