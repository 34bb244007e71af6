"""Consistency tokens: a caller sees its own changes, and tokens of a log that no longer exists are refused."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.rpc.cursor import encode_page
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import authority, create, login, loose, roll, validate
from tests.rpc.refusals import first_of, refusal_of, revision_of
from tests.support.clock import ManualClock
from tests.support.held import held
from tests.support.server import AsyncStub
from tests.support.streams import position, read
from tests.support.tokens import at_revision, revision_in

INVALID, OUT_OF_RANGE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE

Read = Callable[[AsyncStub, pb.CreateSessionResponse, str], Awaitable[Any]]
READS: dict[str, Read] = {
    "ValidateSession": lambda stub, own, at_least: validate(stub, own.token, at_least=at_least),
    "ValidateSession passive": lambda stub, own, at_least: validate(stub, own.token, at_least=at_least, passive=True),
    "ValidateSession with data": lambda stub, own, at_least: validate(stub, own.token, at_least=at_least, data={}),
    "ValidateSessions": lambda stub, own, at_least: stub.ValidateSessions(
        loose.ValidateSessionsRequest(requests=[{"token": own.token}, {"token": own.token, "at_least": at_least}])
    ),
    "GetSession by token": lambda stub, own, at_least: stub.GetSession(
        loose.GetSessionRequest(session={"token": own.token}, at_least=at_least)
    ),
    "GetSession by id": lambda stub, own, at_least: stub.GetSession(
        loose.GetSessionRequest(session={"session_id": own.session.session_id}, at_least=at_least)
    ),
    "ListSessions": lambda stub, own, at_least: stub.ListSessions(loose.ListSessionsRequest(at_least=at_least)),
    "GetSessionData": lambda stub, own, at_least: stub.GetSessionData(
        loose.GetSessionDataRequest(session={"token": own.token}, at_least=at_least)
    ),
    "ListActivity": lambda stub, own, at_least: stub.ListActivity(
        loose.ListActivityRequest(subject="ada", at_least=at_least)
    ),
    "ListCallers": lambda stub, own, at_least: stub.ListCallers(pb.ListCallersRequest(at_least=at_least)),
    "GetKeyRing": lambda stub, own, at_least: stub.GetKeyRing(pb.GetKeyRingRequest(at_least=at_least)),
}
FIELDS = {"ValidateSessions": "requests[1].at_least"}
"""How a refusal names the field, if it is not simply `at_least`."""
reads = pytest.mark.parametrize("name", READS)


def test_every_read_is_here() -> None:
    """Every call of the contract that takes `at_least` is tested here."""
    service = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
    taking = {method.name for method in service.methods if "at_least" in method.input_type.fields_by_name}
    assert taking | {"ValidateSessions"} == {name.split()[0] for name in READS}


# On every read


@reads
async def test_ones_own_change_is_seen(stub: AsyncStub, name: str) -> None:
    """Every read accepts the token of every change, the newest and an older one, of the authority, and a cursor."""
    own = await create(stub)
    named = {"token": own.token}
    changed = await stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set={"a": b"1"}))
    state = await stub.GetAuthority(pb.GetAuthorityRequest())
    cursor = (await first_of(stub, pb.SubscribeRequest(start=pb.STREAM_START_NOW))).cursor
    for token in (own.consistency_token, changed.consistency_token, state.consistency_token, cursor, ""):
        assert await READS[name](stub, own, token) is not None


@reads
async def test_what_is_ahead_of_the_log(stub: AsyncStub, name: str) -> None:
    """A token or cursor of a revision that does not exist yet is OUT_OF_RANGE at once, and the message says so."""
    own = await create(stub)
    cursor = (await first_of(stub, pb.SubscribeRequest(start=pb.STREAM_START_NOW))).cursor
    for ahead in (revision_in(own) + 1, 2**63 - 1, 2**64 - 1):
        for token in (own.consistency_token, cursor):
            refused = await refusal_of(READS[name](stub, own, at_revision(token, ahead)))
            assert refused.code == OUT_OF_RANGE
            assert "at_least" in refused.message
            assert str(ahead) in refused.message


@reads
@pytest.mark.parametrize("bad", ["x", "A" * 52, "cut", "changed", "cut cursor", "page token", "session token"])
async def test_what_is_no_token(stub: AsyncStub, name: str, bad: str) -> None:
    """A damaged token, or an opaque text of another kind, is refused with INVALID_ARGUMENT and the field's name."""
    own = await create(stub)
    token = own.consistency_token
    cursor = (await first_of(stub, pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST))).cursor
    texts = {
        "cut": token[:-1],
        "changed": token[:9] + ("A" if token[9] != "A" else "B") + token[10:],
        "cut cursor": cursor[:-1],
        "page token": encode_page(b"query", b"position"),
        "session token": own.token,
    }
    refused = await refusal_of(READS[name](stub, own, texts.get(bad, bad)))
    assert (refused.code, refused.fields) == (INVALID, [FIELDS.get(name, "at_least")])
    assert own.token not in refused.message


@reads
async def test_of_another_authority(tmp_path: Path, stub: AsyncStub, name: str) -> None:
    """A token or cursor of another authority is INVALID_ARGUMENT, whatever its revision."""
    own = await create(stub)
    async with authority(tmp_path / "other") as (_, theirs):
        foreign = (await create(theirs)).consistency_token
        cursor = (await first_of(theirs, pb.SubscribeRequest(start=pb.STREAM_START_NOW))).cursor
    for token in (foreign, cursor):
        refused = await refusal_of(READS[name](stub, own, token))
        assert (refused.code, refused.fields) == (INVALID, [FIELDS.get(name, "at_least")])
        assert "another authority" in refused.message


# Every change returns a token


async def test_every_change_names_the_state_after_it(stub: AsyncStub) -> None:
    """The token of a change is that of its last event; if nothing changed, it is that of the current state."""
    own = await create(stub)
    named = {"session_id": own.session.session_id}
    changed = await stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set={"a": b"1"}))
    entered = await login(stub, own.token)
    rolled = await roll(stub, entered.token)
    refreshed = await stub.RefreshSession(pb.RefreshSessionRequest(token=rolled.token))
    reported = await stub.ReportSignal(loose.ReportSignalRequest(session=named, reason="odd"))
    ended = await stub.RevokeSession(loose.RevokeSessionRequest(session=named))
    steps = [own, changed, entered, rolled, refreshed, reported, ended]
    assert [revision_in(step) for step in steps] == [1, 2, 4, 5, 6, 7, 8]
    idle = [
        await stub.RevokeSession(loose.RevokeSessionRequest(session=named)),
        await stub.RevokeSessions(loose.RevokeSessionsRequest(whole_application=True)),
        await login(stub, rolled.token),
        await stub.RollSession(pb.RollSessionRequest(token="x")),
        await stub.GetAuthority(pb.GetAuthorityRequest()),
    ]
    assert [revision_in(step) for step in idle] == [8] * 5


async def test_tokens_outlive_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """Tokens issued before a restart are valid after it, up to the last revision of their incarnation."""
    async with authority(tmp_path, clock) as (_, stub):
        own = await create(stub)
        last = await create(stub)
    async with authority(tmp_path, clock) as (_, stub):
        for token in (own.consistency_token, last.consistency_token):
            assert (await validate(stub, own.token, at_least=token)).verdict == pb.VERDICT_VALID
        await create(stub)
        beyond = at_revision(own.consistency_token, revision_in(last) + 1)
        refused = await refusal_of(validate(stub, own.token, at_least=beyond))
        assert refused.code == OUT_OF_RANGE
        assert "no longer exists" in refused.message


# A restored copy


async def test_a_restored_copy(tmp_path: Path, clock: ManualClock) -> None:
    """On a restored copy, tokens from the lost end of the log are OUT_OF_RANGE, although its revisions are used again;
    older ones resume without a gap.
    """
    original, copy = tmp_path / "original", tmp_path / "copy"
    async with authority(original, clock) as (_, stub):
        old = [await create(stub) for _ in range(3)]
        old_cursor = (await first_of(stub, pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST))).cursor
        stream = stub.Subscribe(pb.SubscribeRequest(cursor=old_cursor))
        middle = [await read(stream) for _ in range(3)][-1]
        stream.cancel()
        assert middle.event.revision == 2
    shutil.copytree(original / "data", copy / "data")
    async with authority(original, clock) as (_, stub):
        lost = [await create(stub, "lost") for _ in range(3)]
        stream = stub.Subscribe(pb.SubscribeRequest(cursor=middle.cursor))
        tail = [await read(stream) for _ in range(5)]
        stream.cancel()
        assert [position(item) for item in tail] == [2, 3, 4, 5, 6]
        assert (await validate(stub, old[0].token, at_least=lost[-1].consistency_token)).verdict == pb.VERDICT_VALID
    async with authority(copy, clock) as (_, stub):
        assert await revision_of(stub) == 3
        new = [await create(stub, "new") for _ in range(4)]  # the same revisions again, and one more
        assert revision_in(new[0]) == revision_in(lost[0])
        for name, ask in READS.items():
            for answer in lost:
                refused = await refusal_of(ask(stub, old[0], answer.consistency_token))
                assert refused.code == OUT_OF_RANGE, name
                assert "at_least" in refused.message
            for answer in (*old, *new):
                assert await ask(stub, old[0], answer.consistency_token) is not None
        for item in tail[2:]:
            refused = await refusal_of(first_of(stub, pb.SubscribeRequest(cursor=item.cursor)))
            assert refused.code == OUT_OF_RANGE
            assert "cursor" in refused.message
        stream = stub.Subscribe(pb.SubscribeRequest(cursor=middle.cursor))
        resumed = [await read(stream) for _ in range(6)]
        stream.cancel()
        assert [position(item) for item in resumed] == [2, 3, 4, 5, 6, 7]
        assert [item.event.subject for item in resumed[1:]] == ["ada", "new", "new", "new", "new"]
        stream = stub.Subscribe(pb.SubscribeRequest(cursor=old_cursor))
        assert [position(await read(stream)) for _ in range(8)] == [0, 1, 2, 3, 4, 5, 6, 7]
        stream.cancel()


async def test_the_original_does_not_take_the_copys(tmp_path: Path, clock: ManualClock) -> None:
    """The original refuses tokens of the copy too: two logs with the same beginning are two different logs."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    async with authority(original, clock) as (_, stub):
        own = await create(stub)
    shutil.copytree(original / "data", copy / "data")
    async with authority(copy, clock) as (_, stub):
        theirs = await create(stub)
        cursor = (await first_of(stub, pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST))).cursor
    async with authority(original, clock) as (_, stub):
        await create(stub)
        assert (await refusal_of(validate(stub, own.token, at_least=theirs.consistency_token))).code == OUT_OF_RANGE
        assert (await refusal_of(first_of(stub, pb.SubscribeRequest(cursor=cursor)))).code == OUT_OF_RANGE
        assert (await validate(stub, own.token, at_least=own.consistency_token)).verdict == pb.VERDICT_VALID


async def test_a_batch_with_one_bad_token(stub: AsyncStub) -> None:
    """A batch in which one question has an invalid token is refused completely, and counts as no activity."""
    own = await create(stub)
    ahead = at_revision(own.consistency_token, revision_in(own) + 1)
    questions = [{"token": own.token}, {"token": own.token, "at_least": ahead}]
    refused = await refusal_of(stub.ValidateSessions(loose.ValidateSessionsRequest(requests=questions)))
    assert refused.code == OUT_OF_RANGE
    assert await revision_of(stub) == revision_in(own)


async def test_nothing_waits_for_what_is_known(app: App, stub: AsyncStub) -> None:
    """A read at a revision that is already known here does not wait for the store."""
    own = await create(stub)
    async with held(app):
        answer = await validate(stub, own.token, at_least=own.consistency_token)
    assert answer.verdict == pb.VERDICT_VALID
