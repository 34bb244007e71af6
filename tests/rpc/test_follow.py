"""Follow: the stream of changes for caches, its leases, and what it refuses."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.authority.authority import Authority
from sessiond.changes.maintenance import RecordOther
from sessiond.domain.event import Event, EventType
from sessiond.domain.signals import Reaction, Signal, SignalType
from sessiond.domain.values import (
    MAX_LABELS,
    Authentication,
    Cause,
    CauseKind,
    ClientContext,
    Instant,
    Revision,
    SessionId,
)
from sessiond.eventlog.replays import PAGE
from sessiond.rpc.encode import batch_message
from sessiond.store.shared import LEASE
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import authority, create, loose, policy, validate
from tests.rpc.refusals import Refusal, refusal_of, revision_of
from tests.support.assembly import assembled
from tests.support.clock import ManualClock
from tests.support.figures import report
from tests.support.following import FollowStream, following
from tests.support.held import until
from tests.support.processes import resident_bytes, until_idle
from tests.support.server import AsyncStub, ServerProcess, config_for, serving, stub_for
from tests.support.streams import PADDING, fill_log, open_sessions, write_lives
from tests.support.tokens import at_revision, revision_in

MIB = 1024 * 1024
WITHOUT_EFFECT = {
    EventType.SESSION_CREATED: "a cache keeps nothing of a session before it exists",
    EventType.CONCURRENCY_LIMIT_REACHED: "sessions that end because of it have events of their own",
    EventType.GUESSING_SUSPECTED: "an alarm that denies nobody",
    EventType.SOURCE_UNLOCKED: "a cache keeps no denial",
}
"""The events that may be left out, and why no cached response depends on them."""


async def revoke(stub: AsyncStub, token: str, *, waits: bool = False) -> pb.RevokeSessionResponse:
    """Revoke a session."""
    wait = pb.REVOCATION_WAIT_FOR_CACHES if waits else pb.REVOCATION_WAIT_UNSPECIFIED
    request = pb.RevokeSessionRequest(session=pb.SessionReference(token=token), wait=wait)
    answer: pb.RevokeSessionResponse = await stub.RevokeSession(request)
    return answer


async def refused(stream: FollowStream) -> Refusal:
    """How a stream is refused. Nothing that was read before matters."""

    async def read() -> None:
        if (error := await stream.end()) is not None:
            raise error

    return await refusal_of(read())


# The stream


async def test_it_begins_with_started(app: App, stub: AsyncStub) -> None:
    """The first message names the incarnation and the policies, and needs no acknowledgement."""
    await create(stub)
    stream = FollowStream(stub)
    await stream.start()
    first = await stream.next()
    assert (first.number, first.WhichOneof("item"), first.acknowledge) == (1, "started", False)
    assert first.started.incarnation == app.authority.parts.feed.incarnation.id.hex()
    assert first.started.policies_fingerprint == app.authority.parts.policies.fingerprint
    stream.call.cancel()


async def test_every_change_in_order(stub: AsyncStub) -> None:
    """Under concurrent writers a cache gets every event but SESSION_CREATED, once and in order."""
    facts: list[Any] = []
    async with following(stub) as stream:
        await asyncio.gather(*(write_lives(stub, writer, 10, facts) for writer in range(8)))
        expected = sorted((fact.revision, fact.type) for fact in facts if fact.type != pb.EVENT_TYPE_SESSION_CREATED)
        await stream.until_revision(expected[-1][0])
        assert [(event.revision, event.type) for event in stream.events] == expected


async def test_only_applications_that_were_asked_for(tmp_path: Path, clock: ManualClock) -> None:
    """A cache of some applications gets no event of another one."""
    async with (
        authority(tmp_path, clock, extra={"shop": policy(), "forum": policy()}) as (_, stub),
        following(stub, applications=["shop", "forum"]) as stream,
    ):
        for application in ("", "shop", "forum", ""):
            token = (await create(stub, application=application)).token
            reference = loose.RevokeSessionRequest(application=application, session={"token": token})
            last = await stub.RevokeSession(reference)
        assert revision_in(last) == 8
        await stream.renew()
        assert [(event.application, event.revision) for event in stream.events] == [("shop", 4), ("forum", 6)]


async def test_an_empty_name_is_the_application_default(tmp_path: Path, clock: ManualClock) -> None:
    """As everywhere, the application without a name is `default`."""
    async with authority(tmp_path, clock, extra={"shop": policy()}) as (_, stub):  # noqa: SIM117 - needs the outer one
        async with following(stub, applications=[""]) as stream:
            for application in ("shop", ""):
                token = (await create(stub, application=application)).token
                reference = loose.RevokeSessionRequest(application=application, session={"token": token})
                await stub.RevokeSession(reference)
            await stream.renew()
            assert [event.application for event in stream.events] == ["default"]


@pytest.mark.parametrize("kind", EventType)
async def test_every_type_is_sent_or_has_no_effect(app: App, stub: AsyncStub, kind: EventType) -> None:
    """An event of every type arrives, except those of which a reason here says that no cache needs them."""
    async with following(stub) as stream:
        unit = RecordOther(kind, "default", Cause(CauseKind.CONFIGURATION), "192.0.2.7")
        await app.authority.parts.journal.submit(unit)
        await stream.renew()
        expected = [] if kind in WITHOUT_EFFECT else [f"EVENT_TYPE_{kind.name}"]
        assert [pb.EventType.Name(event.type) for event in stream.events] == expected
        assert all(event.source == "192.0.2.7" for event in stream.events)


async def test_a_quiet_stream_asked_for_progress(stub: AsyncStub) -> None:
    """A grant's cursor goes up to the current revision, although the events before it were left out."""
    async with following(stub) as stream:
        for _ in range(3):
            own = await create(stub)
        grant = await stream.renew()
        assert grant.cursor == at_revision(grant.cursor, revision_in(own))
        assert grant.grant.duration.ToMilliseconds() == LEASE


async def test_it_resumes_after_a_cursor(stub: AsyncStub) -> None:
    """A stream from a cursor gets exactly the events after it, whichever message the cursor came with."""
    async with following(stub) as stream:
        cursors = {0: stream.cursor}
        for number in range(6):
            token = (await create(stub)).token
            ended = revision_in(await revoke(stub, token))
            await stream.until_revision(ended)
            cursors[ended] = stream.cursor
            if number % 2:
                grant = await stream.renew()
                cursors[ended] = grant.cursor
        everything = [event.revision for event in stream.events]
    for position, cursor in cursors.items():
        async with following(stub, cursor) as stream:
            await stream.renew()
            assert [event.revision for event in stream.events] == [one for one in everything if one > position]


async def test_it_resumes_after_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """A cursor outlives a restart: nothing is missing, and `started` names the new incarnation."""
    async with authority(tmp_path, clock) as (_, stub):
        tokens = [(await create(stub)).token for _ in range(3)]
        async with following(stub) as stream:
            cursor = stream.cursor
        await revoke(stub, tokens[0])
    async with authority(tmp_path, clock) as (app, stub):
        await revoke(stub, tokens[1])
        stream = FollowStream(stub)
        await stream.start(cursor)
        first = await stream.next()
        assert first.started.incarnation == app.authority.parts.feed.incarnation.id.hex()
        await stream.until_revision(5)
        assert [event.revision for event in stream.events] == [4, 5]
        stream.call.cancel()


async def test_a_long_way_behind(stub: AsyncStub) -> None:
    """A cache that is thousands of padded events behind gets all of them, in messages that clients accept."""
    async with following(stub) as stream:
        cursor = stream.cursor
    await fill_log(stub, 3_200, PADDING)
    head = await revision_of(stub)
    async with following(stub, cursor) as stream:
        grant = await stream.renew()
        assert grant.cursor == at_revision(grant.cursor, head)
        created = 32
        assert len({event.revision for event in stream.events}) == len(stream.events) == head - created


def test_the_largest_events_fit_into_a_message() -> None:
    """A page of the largest events that there can be is one message that every client accepts."""
    text, agent = "\U0001f9ff" * 256, "x" * 1_024
    largest = Event(
        Revision(2**63 - 1),
        EventType.SESSION_AUTHENTICATED,
        Instant(2**40),
        "x" * 64,
        text,
        SessionId.parse("01a3185c-5000-7fc0-9220-67c80e3195c1"),
        Cause(CauseKind.REQUEST, text, text),
        ClientContext("x" * 64, agent, b"x" * 64, text),
        2**31 - 1,
        Authentication(3, tuple("\U0001f9ff" * 62 + f"{number:02}" for number in range(16)), Instant(2**40)),
        tuple(Signal(kind, agent, agent) for kind in SignalType),
        Reaction.ALERT,
        "x" * 64,
        tuple(("x" * 63 + str(number), text) for number in range(MAX_LABELS)),
    )
    size = len(batch_message([largest] * PAGE))
    report(f"a page of the largest events: {size / MIB:.1f} MiB")
    assert size < 4 * MIB - 1_024


async def test_a_log_that_no_longer_exists(tmp_path: Path, clock: ManualClock) -> None:
    """On a restored copy, and ahead of the log, a cursor is OUT_OF_RANGE, and the message names the field."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    async with authority(original, clock) as (_, stub):
        await create(stub)
    shutil.copytree(original / "data", copy / "data")
    async with authority(original, clock) as (_, stub):
        own = await create(stub)
        async with following(stub) as stream:
            cursor = stream.cursor
        ahead = FollowStream(stub)
        await ahead.start(at_revision(cursor, revision_in(own) + 1))
        refusal = await refused(ahead)
        assert (refusal.code, "cursor" in refusal.message) == (grpc.StatusCode.OUT_OF_RANGE, True)
    async with authority(copy, clock) as (_, stub):
        for _ in range(3):
            await create(stub)
        stream = FollowStream(stub)
        await stream.start(cursor)
        refusal = await refused(stream)
        assert (refusal.code, "cursor" in refusal.message) == (grpc.StatusCode.OUT_OF_RANGE, True)


# Leases


async def test_a_grant_follows_every_change_that_was_acknowledged(stub: AsyncStub) -> None:
    """Under load, a grant comes after every event that some caller knew of before its renewal was sent."""
    facts: list[Any] = []
    writers = [asyncio.create_task(write_lives(stub, writer, 25, facts)) for writer in range(8)]
    grants = 0
    async with following(stub) as stream:
        while not all(writer.done() for writer in writers):
            known = {fact.revision for fact in facts if fact.type != pb.EVENT_TYPE_SESSION_CREATED}
            newest = max((fact.revision for fact in facts), default=0)
            grant = await stream.renew()
            grants += 1
            assert known <= {event.revision for event in stream.events}
            assert grant.cursor == at_revision(grant.cursor, max(newest, revision_of_cursor(grant.cursor)))
    await asyncio.gather(*writers)
    assert grants > 10


def revision_of_cursor(cursor: str) -> int:
    """The revision in a cursor."""
    return revision_in(pb.CreateSessionResponse(consistency_token=cursor))


async def test_every_renewal_gets_one_grant(stub: AsyncStub) -> None:
    """Renewals that are sent at once get one grant each, in their order."""
    async with following(stub) as stream:
        asked = [await stream.ask() for _ in range(10)]
        assert [(await stream.until("grant")).grant.nonce for _ in asked] == asked


class Passed:
    """Milliseconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        """Return the time."""
        return self.now


@asynccontextmanager
async def timed(folder: Path, clock: ManualClock) -> AsyncIterator[tuple[Authority, AsyncStub, Passed]]:
    """An authority whose leases end when a test says so."""
    passed = Passed()
    async with assembled(folder, clock, passed=passed) as (one, _, stub, _):
        yield one, stub, passed


async def still_waits(call: asyncio.Future[Any]) -> None:
    """Look at a call for longer than the authority takes to look at its leases; it must not have returned."""
    done, _ = await asyncio.wait([call], timeout=0.2)
    assert not done


async def test_an_awaited_revocation_waits_for_the_acknowledgement(tmp_path: Path, clock: ManualClock) -> None:
    """The call returns once the cache has acknowledged the revocation, and not with an older acknowledgement."""
    async with timed(tmp_path, clock) as (_, stub, _), following(stub) as stream:
        own = await create(stub)
        await stream.renew()
        before = stream.cursor
        call = asyncio.ensure_future(revoke(stub, own.token, waits=True))
        message = await stream.until("batch")
        assert message.batch.events[0].type == pb.EVENT_TYPE_SESSION_REVOKED
        await stream.acknowledge(before)
        await still_waits(call)
        while not message.acknowledge:
            message = await stream.next()
        await stream.acknowledge()
        assert (await call).revoked


async def test_a_silent_cache_delays_a_revocation_until_its_lease_ends(tmp_path: Path, clock: ManualClock) -> None:
    """A cache that acknowledges nothing, and even one that goes on renewing, is waited for as long as its lease."""
    async with timed(tmp_path, clock) as (_, stub, passed), following(stub) as stream:
        own = await create(stub)
        await stream.renew()
        call = asyncio.ensure_future(revoke(stub, own.token, waits=True))
        await stream.until("batch")
        passed.now += LEASE - 1
        await stream.renew()
        await still_waits(call)
        passed.now += 1
        assert (await call).revoked


async def test_a_broken_stream_delays_a_revocation_until_its_lease_ends(tmp_path: Path, clock: ManualClock) -> None:
    """A cache whose stream has ended may still answer, so its lease counts."""
    async with timed(tmp_path, clock) as (one, stub, passed):
        own = await create(stub)
        async with following(stub) as stream:
            await stream.renew()
        await until(lambda: all(lease.has_left for lease in one.parts.caches._leases))
        call = asyncio.ensure_future(revoke(stub, own.token, waits=True))
        await still_waits(call)
        passed.now += LEASE
        assert (await call).revoked


async def test_a_cache_without_a_lease_delays_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """A cache that was granted no lease, or has given it up, is not waited for."""
    async with timed(tmp_path, clock) as (one, stub, _), following(stub) as stream:
        first, second = await create(stub), await create(stub)
        assert (await asyncio.wait_for(revoke(stub, first.token, waits=True), 20)).revoked
        await stream.renew()
        await stream.release()
        await until(lambda: not one.parts.caches.may_answer())
        assert (await asyncio.wait_for(revoke(stub, second.token, waits=True), 20)).revoked


async def test_after_a_restart_unknown_leases_count(tmp_path: Path, clock: ManualClock) -> None:
    """A process that has just started waits until every lease of the one before is over, and a new store has none."""
    async with timed(tmp_path, clock) as (_, stub, _):
        own = await create(stub)
        assert (await asyncio.wait_for(revoke(stub, own.token, waits=True), 20)).revoked
    async with timed(tmp_path, clock) as (_, stub, passed):
        own = await create(stub)
        call = asyncio.ensure_future(revoke(stub, own.token, waits=True))
        passed.now += LEASE
        await still_waits(call)
        passed.now += LEASE // 50
        assert (await call).revoked


async def test_changed_policies_are_told(app: App, stub: AsyncStub) -> None:
    """If the policies change, `started` comes again with their fingerprint, before the event and before any grant."""
    async with following(stub) as stream:
        changed = policy("owasp-high")
        await app.authority.change_policies({"default": changed}, {})
        await stream.ask()
        kinds = [await stream.next() for _ in range(3)]
        assert [one.WhichOneof("item") for one in kinds] == ["started", "batch", "grant"]
        assert kinds[0].started.policies_fingerprint == app.authority.parts.policies.fingerprint
        assert kinds[1].batch.events[0].type == pb.EVENT_TYPE_POLICY_CHANGED


async def test_a_cursor_is_a_consistency_token(stub: AsyncStub) -> None:
    """A read with the cursor of any message as `at_least` is answered."""
    own = await create(stub)
    async with following(stub) as stream:
        for cursor in (stream.cursor, (await stream.renew()).cursor):
            assert (await validate(stub, own.token, at_least=cursor)).verdict == pb.VERDICT_VALID


# The end


async def test_a_cache_that_ends_its_side(app: App, stub: AsyncStub) -> None:
    """A cache that ends its side ends the stream with OK, and nothing is left of it but its lease."""
    async with following(stub) as stream:
        await stream.renew()
        await stream.call.done_writing()
        assert await stream.end() is None
    caches = app.authority.parts.caches
    await until(lambda: all(lease.has_left for lease in caches._leases))
    assert caches.may_answer()


async def test_a_shutdown(tmp_path: Path, clock: ManualClock) -> None:
    """A stop of the authority ends every stream at once with UNAVAILABLE, and says how to go on."""
    async with serving(config_for(tmp_path), clock) as app, stub_for(app.address) as stub:
        async with following(stub) as stream:
            await stream.renew()
            stopping = asyncio.create_task(app.stop())
            error = await stream.end()
            assert error is not None
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "cursor" in (error.details() or "")
        await stopping
        app.stop = lambda: asyncio.sleep(0)  # type: ignore[method-assign]  # it has stopped


async def test_nothing_is_left_of_ended_streams(app: App, stub: AsyncStub) -> None:
    """However a stream ends, its read ends too, and the limit on streams does not count it any more."""

    def reads() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if task.get_name() == "follow: read"]

    for kind in ("cancel", "half-close", "error"):
        async with following(stub) as stream:
            assert len(reads()) == 1
            match kind:
                case "half-close":
                    await stream.call.done_writing()
                    await stream.end()
                case "error":
                    await stream.start()
                    await stream.end()
        await until(lambda: not reads())
    assert not app.authority.parts.caches._leases


# Refusals


async def test_a_stream_without_a_message(stub: AsyncStub) -> None:
    """A caller that ends its side without a message is told to send one."""
    stream = FollowStream(stub)
    await stream.call.done_writing()
    refusal = await refused(stream)
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({}, "start"),
        ({"renewal": {"nonce": 1}}, "start"),
        ({"applied": {}}, "start"),
        ({"release": {}}, "start"),
        ({"start": {"cursor": "x"}}, "start.cursor"),
        ({"start": {"cursor": "A" * 60}}, "start.cursor"),
        ({"start": {"follower": "x" * 257}}, "start.follower"),
        ({"start": {"applications": ["x" * 257]}}, "start.applications"),
        ({"start": {"applications": [str(number) for number in range(101)]}}, "start.applications"),
    ],
)
async def test_a_bad_first_message(stub: AsyncStub, message: dict[str, Any], field: str) -> None:
    """A first message that is no valid `start` is INVALID_ARGUMENT with the field's name."""
    stream = FollowStream(stub)
    await stream.call.write(loose.FollowRequest(**message))
    refusal = await refused(stream)
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({}, "item"),
        ({"start": {}}, "start"),
        ({"applied": {}}, "applied.cursor"),
        ({"applied": {"cursor": "x"}}, "applied.cursor"),
        ({"applied": {"cursor": "A" * 60}}, "applied.cursor"),
    ],
)
async def test_a_bad_later_message(stub: AsyncStub, message: dict[str, Any], field: str) -> None:
    """A later message that breaks a rule ends the stream with INVALID_ARGUMENT and the field's name."""
    async with following(stub) as stream:
        await stream.call.write(loose.FollowRequest(**message))
        refusal = await refused(stream)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_a_remedy_for_a_bad_cursor_fits_the_call(tmp_path: Path, stub: AsyncStub) -> None:
    """A cursor of another authority is refused, and the remedy is one that Follow has."""
    async with authority(tmp_path / "other") as (_, theirs), following(theirs) as foreign:
        cursor = foreign.cursor
    stream = FollowStream(stub)
    await stream.start(cursor)
    refusal = await refused(stream)
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["start.cursor"])
    assert "another authority" in refusal.message
    assert "EARLIEST" not in refusal.message


async def test_an_acknowledgement_ahead_of_what_was_sent(stub: AsyncStub) -> None:
    """A cache cannot acknowledge what it did not get, although it exists."""
    async with following(stub) as stream:
        await open_sessions(stub, 3)
        cursor = (await stream.renew()).cursor
        await stream.acknowledge()
        await stream.acknowledge(at_revision(cursor, 4))
        refusal = await refused(stream)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["applied.cursor"])
        assert "ahead" in refusal.message


async def test_an_unknown_item(stub: AsyncStub) -> None:
    """A message with nothing but a field of a later version is refused as one without content."""
    async with following(stub) as stream:
        later = pb.FollowRequest.FromString(bytes([15 << 3 | 2, 1, 0]))
        await stream.call.write(later)
        refusal = await refused(stream)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["item"])


async def test_too_many_streams(tmp_path: Path, clock: ManualClock) -> None:
    """Streams beyond the limit are RESOURCE_EXHAUSTED, with the setting that raises it, until one ends."""
    text = "[server]\nmax_subscribers = 2\n"
    async with serving(config_for(tmp_path, text), clock) as app, AsyncExitStack() as stack:
        stubs = [await stack.enter_async_context(stub_for(app.address)) for _ in range(3)]
        for stub in stubs[:2]:
            first = await stack.enter_async_context(following(stub))
        stream = FollowStream(stubs[2])
        await stream.start()
        refusal = await refused(stream)
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "server.max_subscribers" in refusal.message
        await first.call.done_writing()
        assert await first.end() is None
        await stack.enter_async_context(following(stubs[2]))


# A cache that does not read


async def test_too_many_renewals(tmp_path: Path, clock: ManualClock) -> None:
    """A cache that does not read and goes on asking for leases is refused."""
    async with serving(config_for(tmp_path), clock) as app, stub_for(app.address) as stub:
        async with following(stub) as stream:
            cursor = stream.cursor
        await fill_log(stub, 6_400, PADDING)
        stream = FollowStream(stub)
        await stream.start(cursor)
        await stream.next()
        for _ in range(17):  # not one more: gRPC's client would report that the write failed instead of the status
            await stream.ask()
        refusal = await refused(stream)
        assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["renewal"])


async def test_a_cache_that_does_not_read_is_ended_and_resumes(tmp_path: Path, clock: ManualClock) -> None:
    """After the write timeout the stream ends with RESOURCE_EXHAUSTED; its last cursor brings exactly the rest."""
    text = '[server]\nsubscriber_write_timeout = "500ms"\n'
    async with serving(config_for(tmp_path, text), clock) as app, stub_for(app.address) as stub:
        async with following(stub) as stream:
            cursor = stream.cursor
        await fill_log(stub, 6_400, PADDING)
        head = await revision_of(stub)
        for patience in (1.0, 2.0, 5.0, 10.0):  # a machine that is busy elsewhere may need longer to fill the buffers
            async with stub_for(app.address) as other, following(other, cursor) as stuck:
                await asyncio.sleep(patience)
                await stuck.ask()
                stuck_until = asyncio.create_task(stuck.until("grant"))
                await asyncio.wait([stuck_until])
                if stuck_until.exception() is not None:
                    break
        error = stuck_until.exception()
        assert isinstance(error, grpc.aio.AioRpcError), "a cache that did not read for ten seconds was not ended"
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "cursor" in (error.details() or "")
        async with following(stub, stuck.cursor) as stream:
            await stream.renew()
            revisions = [event.revision for event in (*stuck.events, *stream.events)]
        assert revisions == sorted(set(revisions))
        assert len(revisions) == head - 32


async def test_a_cache_that_never_reads_keeps_no_place(tmp_path: Path, clock: ManualClock) -> None:
    """After the write timeout nothing waits for a cache that does not read, although it has not seen the status."""
    text = '[server]\nsubscriber_write_timeout = "100ms"\n'
    async with serving(config_for(tmp_path, text), clock) as app, stub_for(app.address) as stub:
        async with following(stub) as stream:
            cursor = stream.cursor
        await fill_log(stub, 6_400, PADDING)
        caches = app.authority.parts.caches
        async with stub_for(app.address) as other, following(other, cursor):
            assert len(caches) == 1
            async with asyncio.timeout(20):
                while len(caches):  # noqa: ASYNC110 - nothing tells of its end
                    await asyncio.sleep(0.02)


async def _growth(folder: Path, *, stuck: bool) -> int:
    """By how many bytes a server grows over 20,000 events."""
    agent = pb.ClientContext(user_agent="agent " * 170)
    server = ServerProcess(folder)
    try:
        address = await server.address()
        async with stub_for(address) as stub, stub_for(address) as other, following(other) as stream:
            if not stuck:
                stream.call.cancel()
            await fill_log(stub, 500, agent)
            before = resident_bytes(server.process.pid)
            await fill_log(stub, 10_000, agent)
            await until_idle(server.process.pid)
            after = resident_bytes(server.process.pid)
            assert await revision_of(stub) > 20_000
            return after - before
    finally:
        server.kill()


@pytest.mark.slow
async def test_a_cache_that_does_not_read_costs_constant_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over 20,000 events, 20 MiB, a server with a cache that never reads grows hardly more than one without."""
    control = await _growth(tmp_path_factory.mktemp("control"), stuck=False)
    growth = await _growth(tmp_path_factory.mktemp("stuck"), stuck=True)
    report(f"growth over 20,000 events: {growth / MIB:.1f} MiB, without the stuck cache {control / MIB:.1f} MiB")
    assert growth - control < 8 * MIB
