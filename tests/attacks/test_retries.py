"""Safe retries: an answer is lost, and the call is made again; neither a second session nor an alarm comes of it."""

from __future__ import annotations

import asyncio
import uuid
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.values import Instant
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    HOUR,
    MINUTE,
    VICTIM,
    authority,
    create,
    fresh_id,
    hijacks,
    kinds,
    login,
    policy,
    roll,
    story_of,
    validate,
)
from tests.rpc.refusals import refusal_of, revision_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, sqlite_of

LOCKING = policy(guessing=GuessLimits(alarm_after=1, lock_after=1), idle_timeout=3 * HOUR)
SOURCE = pb.ClientContext(ip_address="203.0.113.66")


@dataclass(frozen=True)
class Mutation:
    """One call that changes something: how it is made, what makes it another one, how many events it has."""

    name: str
    request: Callable[[pb.CreateSessionResponse], Any]
    other: Callable[[Any], None]
    events: int = 1


def _named(session: pb.CreateSessionResponse) -> pb.SessionReference:
    return pb.SessionReference(token=session.token)


def _set(**fields: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for name, value in fields.items():
            setattr(request, name, value)

    return change


def _set_data(request: pb.UpdateSessionDataRequest) -> None:
    request.set["a"] = b"2"


MUTATIONS = [
    Mutation("CreateSession", lambda s: pb.CreateSessionRequest(subject="ada", client=VICTIM), _set(subject="bob")),
    Mutation(
        "AuthenticateSession",
        lambda s: pb.AuthenticateSessionRequest(token=s.token, subject="ada", client=VICTIM),
        _set(reason="other"),
        events=2,
    ),
    Mutation("RollSession", lambda s: pb.RollSessionRequest(token=s.token, client=VICTIM), _set(reason="other")),
    Mutation("RefreshSession", lambda s: pb.RefreshSessionRequest(token=s.token), _set()),
    Mutation(
        "RevokeSession",
        lambda s: pb.RevokeSessionRequest(session=_named(s), open_anonymous=True),
        _set(open_anonymous=False),
        events=2,
    ),
    Mutation(
        "RevokeSessions",
        lambda s: pb.RevokeSessionsRequest(filter=pb.SessionFilter(subject="ada"), reason="breach"),
        _set(reason="other"),
    ),
    Mutation("UpdateSessionData", lambda s: pb.UpdateSessionDataRequest(session=_named(s), set={"a": b"1"}), _set_data),
    Mutation("ReportSignal", lambda s: pb.ReportSignalRequest(session=_named(s), reason="odd"), _set(reason="other")),
    Mutation("ClearSourceLock", lambda s: pb.ClearSourceLockRequest(source="203.0.113.66/32"), _set(reason="other")),
]
every = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)


@pytest.fixture
async def stub(tmp_path: Path, clock: ManualClock) -> AsyncIterator[AsyncStub]:
    """A client of an authority with one source locked."""
    async with authority(tmp_path, clock, LOCKING) as (_, stub):
        await validate(stub, "x", SOURCE)
        yield stub


def ask(stub: AsyncStub, mutation: Mutation, request: Any) -> Awaitable[Any]:
    answer: Awaitable[Any] = getattr(stub, mutation.name)(request)
    return answer


@every
async def test_a_lost_answer_is_given_again(stub: AsyncStub, clock: ManualClock, mutation: Mutation) -> None:
    """The same call with the same id gives the same answer, tokens included, hours later too, and changes nothing."""
    request = mutation.request(await create(stub))
    request.request_id = fresh_id()
    first = await ask(stub, mutation, request)
    before = await revision_of(stub)
    assert await ask(stub, mutation, request) == first
    clock.advance(HOUR)
    assert await ask(stub, mutation, request) == first
    assert await revision_of(stub) == before
    told = kinds(await story_of(stub, *filter(None, [getattr(first, "token", "")])))
    assert told.count("HIJACK_SUSPECTED") == (1 if mutation.name == "ReportSignal" else 0)


@every
async def test_the_same_id_for_another_call(stub: AsyncStub, mutation: Mutation) -> None:
    """The same id with other parameters is refused by name, and changes nothing."""
    request = mutation.request(await create(stub))
    request.request_id = fresh_id()
    await ask(stub, mutation, request)
    another = await create(stub)
    before = await revision_of(stub)
    mutation.other(request)
    if mutation.name == "RefreshSession":
        request.token = another.token
    refused = await refusal_of(ask(stub, mutation, request))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request_id"])
    assert request.request_id not in refused.message
    assert await revision_of(stub) == before


@every
async def test_two_repeats_in_a_race(stub: AsyncStub, mutation: Mutation) -> None:
    """Ten simultaneous calls with one id are carried out once, and all get the same answer."""
    request = mutation.request(await create(stub))
    request.request_id = fresh_id()
    before = await revision_of(stub)
    answers = await asyncio.gather(*(ask(stub, mutation, request) for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)
    assert await revision_of(stub) == before + mutation.events


@pytest.mark.parametrize("bad", ["x", "00000000-0000-0000-0000-000000000000", "3CCC7482-2D80-4333-A312-ACB371A8121A"])
@every
async def test_an_id_that_could_be_guessed(stub: AsyncStub, mutation: Mutation, bad: str) -> None:
    """An id that is no UUIDv4 in its one form is refused by name and not shown."""
    request = mutation.request(await create(stub))
    request.request_id = bad
    refused = await refusal_of(ask(stub, mutation, request))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request_id"])
    assert len(bad) < 2 or bad not in refused.message


@pytest.mark.parametrize("name", ["RollSession", "AuthenticateSession"])
async def test_a_retry_after_the_tolerance_is_no_theft(stub: AsyncStub, clock: ManualClock, name: str) -> None:
    """A roll repeated when its old token would be a replay gives the new token again; without the id it is a replay."""
    (mutation,) = [one for one in MUTATIONS if one.name == name]
    mine = await create(stub)
    request = mutation.request(mine)
    request.request_id = fresh_id()
    first = await ask(stub, mutation, request)
    clock.advance(10 * MINUTE)
    again = await ask(stub, mutation, request)
    assert again.token == first.token
    assert not hijacks(await story_of(stub, mine.token, first.token))
    assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID
    request.request_id = ""
    assert (await ask(stub, mutation, request)).verdict == pb.VERDICT_REPLAYED
    assert len(hijacks(await story_of(stub))) == 1


async def test_a_day_later_the_id_is_forgotten(stub: AsyncStub, clock: ManualClock) -> None:
    """An answer is kept for 24 hours: one millisecond less it is given again, then the call is a new one."""
    request = pb.CreateSessionRequest(subject="ada", request_id=fresh_id())
    first = await stub.CreateSession(request)
    clock.advance(24 * HOUR - 1)
    assert (await stub.CreateSession(request)).token == first.token
    clock.advance(1)
    assert (await stub.CreateSession(request)).token != first.token


async def test_a_logout_that_proves_nothing_opens_one_session(stub: AsyncStub) -> None:
    """A logout with a token that is worth nothing, repeated, opens one anonymous session and not another."""
    request = pb.RevokeSessionRequest(
        session=pb.SessionReference(token="A" * 70), open_anonymous=True, request_id=fresh_id()
    )
    first, again = [await stub.RevokeSession(request) for _ in range(2)]
    assert first.token
    assert again == first


def content_of(folder: Path) -> bytes:
    """All that is in the files of a folder."""
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


async def test_what_the_database_holds(tmp_path: Path, clock: ManualClock) -> None:
    """Neither the token that is given again nor the id that opens it is in any file of the authority."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub, request_id=(creating := fresh_id()))
        request = pb.RollSessionRequest(token=mine.token, client=VICTIM, request_id=(rolling := fresh_id()))
        rolled = await stub.RollSession(request)
        assert (await stub.RollSession(request)).token == rolled.token
        assert (await login(stub, rolled.token)).token
        secrets = [mine.token, rolled.token, mine.csrf_token, rolled.csrf_token, creating, rolling]
        needles = [secret.encode() for secret in secrets]
        needles += [uuid.UUID(one).bytes for one in (creating, rolling)]
        needles += [urlsafe_b64decode(token + "==")[:52] for token in (mine.token, rolled.token)]
        live = content_of(tmp_path / "data")
    for content in (live, content_of(tmp_path / "data")):
        assert uuid.UUID(mine.session.session_id).bytes in content  # the control: this is where they would be
        assert not [needle for needle in needles if needle in content]


async def test_ids_of_two_applications(tmp_path: Path, clock: ManualClock) -> None:
    """The same id in another application is another call: nobody can ask for another application's answers."""
    async with authority(tmp_path, clock, extra={"shop": policy()}) as (_, stub):
        request_id = fresh_id()
        mine = await create(stub, request_id=request_id)
        theirs = await create(stub, request_id=request_id, application="shop")
        assert theirs.token != mine.token
        assert theirs.session.application == "shop"


async def test_without_an_id_nothing_is_repeated(stub: AsyncStub) -> None:
    """The control: two calls without an id are two sessions, and a second roll of one token is denied."""
    first, second = await create(stub), await create(stub)
    assert first.session.session_id != second.session.session_id
    await roll(stub, first.token)
    again = await stub.RollSession(pb.RollSessionRequest(token=first.token))
    assert again.verdict == pb.VERDICT_SUPERSEDED


async def test_what_was_asked_cannot_be_guessed_from_the_store(tmp_path: Path, clock: ManualClock) -> None:
    """What the store keeps of a call's fields follows from its secret id: whoever tries all values finds none."""
    async with authority(tmp_path, clock, encrypt_data=True) as (_, stub):
        mine = await create(stub)
        named = pb.SessionReference(session_id=mine.session.session_id)
        request = pb.UpdateSessionDataRequest(session=named, set={"pin": b"4711"}, request_id=fresh_id())
        assert (await stub.UpdateSessionData(request)).version == 1
        request.ClearField("request_id")
        fields = b"UpdateSessionDataRequest\0" + request.SerializeToString(deterministic=True)
        live = content_of(tmp_path / "data")
    assert sha256(fields).digest() not in live
    assert b"4711" not in live


async def test_a_dead_token_keeps_no_answer(tmp_path: Path, clock: ManualClock) -> None:
    """A change that a dead token asks for leaves nothing in the store, however often it is asked for."""
    async with authority(tmp_path, clock) as (app, stub):
        mine = await create(stub)
        await stub.RevokeSession(pb.RevokeSessionRequest(session=pb.SessionReference(token=mine.token)))
        before = await revision_of(stub)
        for _ in range(5):
            again = pb.RollSessionRequest(token=mine.token, client=VICTIM, request_id=fresh_id())
            assert (await stub.RollSession(again)).verdict == pb.VERDICT_REVOKED
        assert await revision_of(stub) == before
        rows = await sqlite_of(app)._db.all("SELECT count(*) FROM answers")
        assert rows[0][0] == 0


class Ticking(ManualClock):
    """Time that passes with each look at it, where it is told to."""

    ticks = False

    def now(self) -> Instant:
        """A while later than before."""
        self._now += 1_100 * self.ticks
        return super().now()


async def test_the_kept_answer_is_the_one_that_was_given(tmp_path: Path) -> None:
    """To the second of its cookie's age, however long it took to write the first answer down."""
    remembers = policy(remember_idle_timeout=9 * HOUR, remember_absolute_timeout=90 * HOUR)
    clock = Ticking()
    async with authority(tmp_path, clock, remembers) as (_, stub):
        for _ in range(5):
            request = pb.CreateSessionRequest(subject="ada", persistent=True, client=VICTIM, request_id=fresh_id())
            clock.ticks = True
            first = await stub.CreateSession(request)
            clock.ticks = False
            again = await stub.CreateSession(request)
            assert "; Max-Age=" in first.cookies.set_cookie[0]
            assert first == again
