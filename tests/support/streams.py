"""Subscriptions for tests: what writers were told, what subscribers received, and whether the two agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub
from tests.support.tokens import revision_in

__all__ = [
    "EARLIEST",
    "NOW",
    "PADDING",
    "Fact",
    "Stream",
    "create",
    "faults_of",
    "fill_log",
    "open_sessions",
    "position",
    "read",
    "read_to_end",
    "read_up_to",
    "subscribe",
    "write_lives",
]

EARLIEST = pb.STREAM_START_EARLIEST
NOW = pb.STREAM_START_NOW
PATIENCE = 30.0
"""Seconds after which an expected message counts as missing, so that a broken promise fails and does not hang."""
PADDING = pb.ClientContext(user_agent="\U0001f9ff" * 1024, device_id="\U0001f9ff" * 256)
"""The largest client context, 5 KiB: few events with it fill every buffer between server and client."""

Stream: TypeAlias = "grpc.aio.UnaryStreamCall[pb.SubscribeRequest, pb.SubscribeResponse]"


@dataclass(frozen=True, slots=True)
class Fact:
    """What a writer was told, or a subscriber received, about one event."""

    revision: int
    type: pb.EventType.ValueType
    session_id: str
    subject: str

    @classmethod
    def of(cls, event: pb.Event) -> Fact:
        """Return the fact in an event."""
        return cls(event.revision, event.type, event.session_id, event.subject)


# Writers


async def create(stub: AsyncStub, subject: str, client: pb.ClientContext | None = None) -> tuple[str, Fact]:
    """Open a session. Return its token, and the event that must be in the log."""
    answer = await stub.CreateSession(pb.CreateSessionRequest(subject=subject, client=client))
    return answer.token, Fact(
        revision_in(answer),
        pb.EVENT_TYPE_SESSION_CREATED,
        answer.session.session_id,
        answer.session.subject,
    )


async def open_sessions(
    stub: AsyncStub, count: int, subject: str = "ada", client: pb.ClientContext | None = None, writers: int = 32
) -> list[Fact]:
    """Open so many sessions from several concurrent writers. Return their events, in the order of the log."""

    async def write(share: int) -> list[Fact]:
        return [(await create(stub, subject, client))[1] for _ in range(share)]

    shares = (count // writers + (writer < count % writers) for writer in range(writers))
    facts = [fact for part in await asyncio.gather(*map(write, shares)) for fact in part]
    return sorted(facts, key=lambda fact: fact.revision)


async def fill_log(stub: AsyncStub, calls: int, client: pb.ClientContext, writers: int = 32) -> None:
    """Write two events per call for few sessions: each writer logs one subject in repeatedly."""

    async def write() -> None:
        token, _ = await create(stub, "ada", client)
        for _ in range(calls // writers):
            request = pb.AuthenticateSessionRequest(token=token, subject="ada", client=client)
            token = (await stub.AuthenticateSession(request)).token

    await asyncio.gather(*(write() for _ in range(writers)))


async def write_lives(stub: AsyncStub, writer: int, lives: int, facts: list[Fact]) -> None:
    """Open, change and revoke sessions one after another. Whatever is acknowledged is added to `facts`."""
    for _ in range(lives):
        token, fact = await create(stub, f"subject-{writer}")
        facts.append(fact)
        reference = pb.SessionReference(token=token)
        changed = await stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=reference, set={"key": b"value"}))
        facts.append(
            Fact(
                revision_in(changed),
                pb.EVENT_TYPE_SESSION_DATA_CHANGED,
                fact.session_id,
                fact.subject,
            )
        )
        ended = await stub.RevokeSession(pb.RevokeSessionRequest(session=reference, reason="logout"))
        facts.append(Fact(revision_in(ended), pb.EVENT_TYPE_SESSION_REVOKED, fact.session_id, fact.subject))


# Subscribers


def subscribe(
    stub: AsyncStub,
    cursor: str = "",
    start: pb.StreamStart.ValueType = EARLIEST,
    types: Iterable[pb.EventType.ValueType] = (),
    subjects: Iterable[str] = (),
    interval_ms: int = 3_600_000,
) -> Stream:
    """Return a stream, from the cursor if one is given. Without `interval_ms` only the first checkpoint comes."""
    request = pb.SubscribeRequest(filter=pb.EventFilter(types=types, subjects=subjects))
    request.checkpoint_interval.CopyFrom(Duration(seconds=interval_ms // 1000, nanos=interval_ms % 1000 * 1_000_000))
    if cursor:
        request.cursor = cursor
    else:
        request.start = start
    return stub.Subscribe(request)


def position(item: pb.SubscribeResponse) -> int:
    """Return the revision that an item brings its subscriber to."""
    return item.event.revision if item.HasField("event") else item.checkpoint.revision


async def read(stream: Stream) -> pb.SubscribeResponse:
    """Return the next item. Raise if the stream ends."""
    item = await asyncio.wait_for(stream.read(), PATIENCE)
    assert isinstance(item, pb.SubscribeResponse), "a stream ended without a status; the contract knows no such end"
    return item


async def read_up_to(stream: Stream, revision: int) -> list[pb.SubscribeResponse]:
    """Return all items until one brings the subscriber to that revision."""
    items: list[pb.SubscribeResponse] = []
    while not items or position(items[-1]) < revision:
        items.append(await read(stream))
    return items


async def read_to_end(stream: Stream) -> tuple[list[pb.SubscribeResponse], grpc.aio.AioRpcError]:
    """Return all items until the authority ends the stream, and the error with which it ends."""
    items: list[pb.SubscribeResponse] = []
    while True:
        try:
            items.append(await read(stream))
        except grpc.aio.AioRpcError as error:
            return items, error


# The check


def faults_of(
    items: Sequence[pb.SubscribeResponse],
    facts: Iterable[Fact],
    begin: int = 0,
    wanted: Callable[[Fact], bool] = lambda fact: True,
) -> list[str]:
    """Return what is wrong with a stream that began after revision `begin`, according to what the writers were told.

    Each broken promise has its own sentence. An empty list means that all were kept up to the last item.
    """
    expected = sorted((f for f in facts if f.revision > begin and wanted(f)), key=lambda fact: fact.revision)
    faults: list[str] = []
    delivered: list[Fact] = []
    at = begin
    for item in items:
        here = position(item)
        if item.HasField("event"):
            if here == at and delivered and delivered[-1].revision == here:
                faults.append(f"not unique: revision {here} came twice")
            elif here <= at:
                faults.append(f"not ordered: revision {here} came when the stream was at {at}")
            delivered.append(Fact.of(item.event))
        elif here < at:
            faults.append(f"a checkpoint went back from {at} to {here}")
        elif early := {f.revision for f in expected if f.revision <= here} - {f.revision for f in delivered}:
            faults.append(f"the checkpoint {here} is ahead of undelivered events {sorted(early)[:3]}")
        at = max(at, here)
    due = [fact for fact in expected if fact.revision <= at]
    if missing := {fact.revision for fact in due} - {fact.revision for fact in delivered}:
        faults.append(f"not reliable: revisions {sorted(missing)[:3]} are missing")
    if strange := set(delivered) - set(expected):
        faults.append(f"delivered, but never acknowledged to a writer or not asked for: {sorted_facts(strange)[:3]}")
    return faults


def sorted_facts(facts: Iterable[Fact]) -> list[Fact]:
    """Return the facts in the order of the log."""
    return sorted(facts, key=lambda fact: fact.revision)
