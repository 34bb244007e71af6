"""Load for replicas whose database fails over: writers that continue after an outage, and subscribers of each replica.

`work` of `tests.support.faults` makes the calls, and its ledger has what was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import pairwise
from typing import TypeAlias

import grpc

from sessiond_client import AsyncClient, OutOfRange
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.faults import OUTCOME_UNKNOWN, Ledger, Life, Unsure, work
from tests.support.server import AsyncStub, stub_for
from tests.support.streams import Fact, position, subscribe
from tests.support.tokens import revision_in

__all__ = ["Load", "Seen", "seen_in", "stream_faults"]

Seen: TypeAlias = tuple[int, str, str, str]
"""Revision, type, session and subject of an event."""

_WORKERS = 4
"""Writers per replica."""


class Acknowledged(list[Fact]):
    """The facts that writers were told, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def append(self, fact: Fact) -> None:
        """Add a fact that was acknowledged now."""
        super().append(fact)
        self.times.append(asyncio.get_running_loop().time())

    def longest_pause(self) -> float:
        """Return the longest time in seconds without an acknowledgement."""
        return max((later - earlier for earlier, later in pairwise(self.times)), default=0.0)


class Load:
    """Writers and subscribers of replicas, from `running` until `end_writers` and `end`."""

    def __init__(self, stubs: Sequence[AsyncStub], clients: Sequence[AsyncClient], dice: random.Random) -> None:
        self.stubs = stubs
        self.facts = Acknowledged()
        self.ledger = Ledger(facts=self.facts)
        self.failed_calls = 0
        self.resumed = 0
        self.seen: list[list[Seen]] = [[] for _ in range(2 * len(stubs))]
        """What each subscriber received."""
        self.refused = [asyncio.Event() for _ in self.seen]
        """Set if the position of a subscriber was refused: it is in a part of the log that is lost."""
        self._dice = dice
        self._writers = [
            asyncio.create_task(self._write(stub, random.Random(dice.random())))
            for stub in stubs
            for _ in range(_WORKERS)
        ]
        self._writers += [
            asyncio.create_task(self._cross(stubs[0], stubs[1])),
            asyncio.create_task(self._cross(stubs[1], stubs[0])),
        ]
        self._subscribers = [asyncio.create_task(self._follow(client, n)) for n, client in enumerate(clients)]
        self._subscribers += [asyncio.create_task(self._resume(stub, len(stubs) + n)) for n, stub in enumerate(stubs)]

    @classmethod
    @asynccontextmanager
    async def running(cls, addresses: Sequence[str], dice: random.Random) -> AsyncIterator[Load]:
        """Load the replicas at these addresses for the duration of the block."""
        async with AsyncExitStack() as stack:
            stubs = [await stack.enter_async_context(stub_for(address)) for address in addresses]
            clients = [await stack.enter_async_context(AsyncClient(address)) for address in addresses]
            load = cls(stubs, clients, dice)
            try:
                yield load
            finally:
                await load.end_writers()
                await load.end()

    async def more(self, count: int, seconds: float = 60) -> None:
        """Wait until so many more writes are acknowledged."""
        until = len(self.facts) + count
        async with asyncio.timeout(seconds):
            while len(self.facts) < until:
                self._check()
                await asyncio.sleep(0.01)

    async def serves(self, stub: AsyncStub, seconds: float = 60) -> None:
        """Wait until a replica carries out a write."""
        async with asyncio.timeout(seconds):
            while True:
                self._check()
                with suppress(grpc.aio.AioRpcError):
                    await self.create(stub)
                    return
                await asyncio.sleep(0.05)

    async def create(self, stub: AsyncStub) -> tuple[Life, str]:
        """Open a session. Return it, and its consistency token."""
        answer = await stub.CreateSession(pb.CreateSessionRequest(subject="crossing"))
        life = Life(answer.session.session_id, "crossing", answer.token)
        self.ledger.lives[life.session_id] = life
        self.facts.append(Fact(revision_in(answer), pb.EVENT_TYPE_SESSION_CREATED, life.session_id, life.subject))
        return life, answer.consistency_token

    async def reached(self, revision: int, seconds: float = 30) -> None:
        """Wait until every subscriber has received the event with this revision."""
        async with asyncio.timeout(seconds):
            while not all(seen and seen[-1][0] >= revision for seen in self.seen):
                self._check()
                await asyncio.sleep(0.01)

    async def end_writers(self) -> None:
        """Stop writing. The outcome of the calls that are under way is unknown."""
        await _end(self._writers)

    async def end(self) -> None:
        """Stop the subscribers."""
        await _end(self._subscribers)

    def _check(self) -> None:
        for task in (*self._writers, *self._subscribers):
            if task.done() and not task.cancelled():
                task.result()

    async def _write(self, stub: AsyncStub, dice: random.Random) -> None:
        own: list[Life] = []
        while True:
            await work(stub, self.ledger, own, dice)  # until the replica is unavailable
            self.failed_calls += 1
            own = [life for life in own if life.unsure is None]
            await asyncio.sleep(0.05)

    async def _cross(self, one: AsyncStub, other: AsyncStub) -> None:
        """Open and revoke sessions on one replica, and look at each on the other one."""
        while True:
            try:
                life, token = await self.create(one)
                asked = pb.ValidateSessionRequest(token=life.token, at_least=token)
                self._expect(life, await other.ValidateSession(asked), pb.VERDICT_VALID)
                life.unsure = Unsure.REVOKE
                ended = await one.RevokeSession(
                    pb.RevokeSessionRequest(
                        session=pb.SessionReference(session_id=life.session_id),
                        wait=pb.REVOCATION_WAIT_FOR_CACHES,
                    )
                )
                life.unsure, life.revoked = None, True
                fact = Fact(revision_in(ended), pb.EVENT_TYPE_SESSION_REVOKED, life.session_id, life.subject)
                self.facts.append(fact)
                asked = pb.ValidateSessionRequest(token=life.token)
                self._expect(life, await other.ValidateSession(asked), pb.VERDICT_REVOKED)
            except grpc.aio.AioRpcError as error:
                if error.code() not in OUTCOME_UNKNOWN:
                    raise
                self.failed_calls += 1
                await asyncio.sleep(0.05)

    def _expect(self, life: Life, answer: pb.ValidateSessionResponse, verdict: pb.Verdict.ValueType) -> None:
        if answer.verdict != verdict:
            self.ledger.wrong.append(f"{life} got {pb.Verdict.Name(answer.verdict)} on the other replica")

    async def _follow(self, client: AsyncClient, number: int) -> None:
        """Follow the log with the client, which resumes by itself."""
        try:
            async for event in client.events(start="earliest", applications=()):
                self.seen[number].append((event.revision, event.type.name, event.session_id or "", event.subject or ""))
        except OutOfRange:
            self.refused[number].set()

    async def _resume(self, stub: AsyncStub, number: int) -> None:
        """Follow the log with many short streams, each from the cursor of the last message."""
        cursor = ""
        while True:
            stream = subscribe(stub, cursor, interval_ms=500)
            self.resumed += 1
            try:
                for _ in range(self._dice.randrange(2, 200)):
                    item = await stream.read()
                    assert isinstance(item, pb.SubscribeResponse), "a stream ended without a status"
                    cursor = item.cursor
                    if item.HasField("event"):
                        self.seen[number].append(seen_in(item.event))
                    elif position(item) < (self.seen[number] or [(0, "", "", "")])[-1][0]:
                        self.ledger.wrong.append(f"a checkpoint is before {self.seen[number][-1]}")
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                    self.refused[number].set()
                    return
                if error.code() not in OUTCOME_UNKNOWN:
                    raise
                await asyncio.sleep(0.05)
            finally:
                stream.cancel()


def seen_in(event: pb.Event) -> Seen:
    """Return what a subscriber has received with an event."""
    kind = pb.EventType.Name(event.type).removeprefix("EVENT_TYPE_")
    return event.revision, kind, event.session_id, event.subject


def stream_faults(seen: Sequence[Seen], log: Sequence[Seen]) -> list[str]:
    """Return what is wrong with what a subscriber has received from the beginning of the log to its end."""
    faults = []
    for before, after in pairwise([(0, "", "", ""), *seen]):
        if after[0] <= before[0]:
            faults.append(f"not unique or not ordered: revision {after[0]} came after {before[0]}")
        elif after[0] > before[0] + 1:
            faults.append(f"a gap: revision {after[0]} came after {before[0]}")
    if strange := set(seen) - set(log):
        faults.append(f"not in the log: {sorted(strange)[:3]}")
    if missing := set(log) - set(seen):
        faults.append(f"missing: {sorted(missing)[:3]}")
    return faults


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
