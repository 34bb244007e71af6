"""A thousand events across a restart in the middle: each exactly once, no gap."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.faults import OUTCOME_UNKNOWN
from tests.support.server import AsyncStub, ServerProcess, stub_for
from tests.support.streams import Fact, create, faults_of, position, read, subscribe

EVENTS = 1000
WRITERS = 8


class Story:
    """What writers were told and a subscriber was sent, across as many processes as it takes."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.items: list[pb.SubscribeResponse] = []
        self.streams = 0
        self.half = asyncio.Event()
        self.written = asyncio.Event()

    async def write(self, stub: AsyncStub) -> None:
        """Open sessions until a thousand are acknowledged, trying again through the restart."""
        while not self.written.is_set():
            try:
                _, fact = await create(stub, "ada")
            except grpc.aio.AioRpcError as error:
                assert error.code() in OUTCOME_UNKNOWN  # noqa: PT017 - other errors are no restart
                await asyncio.sleep(0.05)
                continue
            self.facts.append(fact)
            if len(self.facts) >= EVENTS // 2:
                self.half.set()
            if len(self.facts) >= EVENTS:
                self.written.set()

    async def follow(self, stub: AsyncStub) -> None:
        """Consume the log by cursor resumption alone, until all that was acknowledged has come."""
        while not (self.written.is_set() and position(self.items[-1]) >= max(fact.revision for fact in self.facts)):
            stream = subscribe(stub, cursor=self.items[-1].cursor if self.items else "", interval_ms=100)
            self.streams += 1
            try:
                while not (self.written.is_set() and position(self.items[-1]) >= max(f.revision for f in self.facts)):
                    self.items.append(await read(stream))
            except grpc.aio.AioRpcError as error:
                assert error.code() in OUTCOME_UNKNOWN  # noqa: PT017 - other errors are no restart
                await asyncio.sleep(0.05)
            finally:
                stream.cancel()


@pytest.mark.parametrize("way", ["terminated", "killed"])
async def test_a_thousand_events_across_a_restart(tmp_path: Path, way: str) -> None:
    """A subscriber that resumes by cursor gets each of a thousand events once though the process ends half-way."""
    story = Story()
    first = ServerProcess(tmp_path)
    second: ServerProcess | None = None
    try:
        address = await first.address()
        async with stub_for(address) as stub, stub_for(address) as other, asyncio.TaskGroup() as group:
            group.create_task(story.follow(other))
            for _ in range(WRITERS):
                group.create_task(story.write(stub))
            await story.half.wait()
            await asyncio.sleep(random.Random(7).uniform(0, 0.02))  # somewhere inside a commit
            if way == "terminated":
                assert await first.terminate() == 0
            else:
                first.kill()
            acknowledged = len(story.facts)
            assert EVENTS // 2 <= acknowledged < EVENTS
            second = ServerProcess(tmp_path, listen=address)
            await second.address()
        # Calls that were cut off may have been carried out, unacknowledged: their events are in the log as well.
        events = [Fact.of(item.event) for item in story.items if item.HasField("event")]
        unacknowledged = set(events) - set(story.facts)
        assert len(unacknowledged) <= WRITERS
        assert faults_of(story.items, [*story.facts, *unacknowledged]) == []
        assert [event.revision for event in events] == list(range(1, len(events) + 1))
        assert story.streams >= 2
    finally:
        first.kill()
        if second is not None:
            second.kill()
