"""The fast path answers a question that was asked before by the same caller, and nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sessiond.access.callers import Callers
from sessiond.access.identity import AuthContext
from sessiond.app import App
from sessiond.authority.question import DataRequest, Question
from sessiond.authority.results import ValidationResult
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Caller
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.judge import PLAIN, Verdict
from sessiond.rpc import decode
from sessiond.rpc.fast_path import FastPath
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.response_cache import Refusals, SessionMessages
from sessiond.rpc.server import RpcServer
from sessiond.rpc.service.calls import Calls
from sessiond.rpc.service.validation import ValidationService
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import ATTACKER, HOUR, SECOND, VICTIM, authority, create, policy, roll, validate
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, stub_for, transport


def messages_read() -> int:
    """Return how many client contexts were parsed: one per message by the ordinary path, none by the fast path."""
    info = decode._client.cache_info()
    return info.hits + info.misses


class Asking:
    """A fast path over an authority, and callers that use it as the service does."""

    def __init__(self, app: App, capacity: int = 100) -> None:
        self.authority = app.authority
        self.fast = FastPath(app.authority.validation, os.urandom, capacity)

    async def ask(self, request: pb.ValidateSessionRequest, caller: str = "shop", **fields: Any) -> ValidationResult:
        """Ask by the ordinary path, which caches the question."""
        call = self.authority.call("default", Caller(caller), None)
        question = Question(call, Token(request.token), request.passive, **fields)
        answer = await self.authority.validation.validate(question)
        self.fast.remember(request, question, answer)
        return answer

    def again(self, request: pb.ValidateSessionRequest, caller: str = "shop") -> ValidationResult | None:
        """Ask the fast path."""
        return self.fast.answer(Caller(caller), request.SerializeToString())


# Over gRPC


async def test_the_same_question_takes_the_fast_path(stub: AsyncStub) -> None:
    """A question is parsed when it is first asked; repeated byte for byte, it is answered without parsing."""
    mine = await create(stub)
    read = messages_read()
    first = await validate(stub, mine.token)
    assert messages_read() == read + 1
    for _ in range(3):
        again = await validate(stub, mine.token)
        assert (again.verdict, again.session) == (pb.VERDICT_VALID, first.session)
    assert messages_read() == read + 1
    assert (await validate(stub, mine.token, ATTACKER)).verdict == pb.VERDICT_VALID
    assert messages_read() == read + 2


@pytest.mark.parametrize("passive", [True, False])
async def test_a_passive_question_stays_passive(stub: AsyncStub, clock: ManualClock, passive: bool) -> None:
    """A passive question moves no deadline, however often it is asked; one that is not passive does each time."""
    mine = await create(stub)
    for _ in range(5):
        clock.advance(SECOND)
        answer = await validate(stub, mine.token, passive=passive)
        assert answer.verdict == pb.VERDICT_VALID
        unmoved = answer.session.idle_expire_time == mine.session.idle_expire_time
        assert unmoved is passive


@pytest.mark.parametrize(
    "fields",
    [
        {"requirements": {"min_level": 0}},
        {"with_csrf_token": True},
        {"data": {}},
    ],
)
async def test_what_asks_for_more_is_always_read(stub: AsyncStub, fields: dict[str, Any]) -> None:
    """A question with requirements, or for more than the verdict, takes the ordinary path each time."""
    mine = await create(stub)
    read = messages_read()
    for count in range(1, 4):
        assert (await validate(stub, mine.token, **fields)).verdict == pb.VERDICT_VALID
        assert messages_read() == read + count


async def test_a_refusal_is_always_read(stub: AsyncStub) -> None:
    """A question that was not answered VALID takes the ordinary path each time."""
    mine = await create(stub)
    await roll(stub, mine.token)
    read = messages_read()
    for count in range(1, 4):
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_SUPERSEDED
        assert messages_read() == read + count


class ByMetadata(Callers):
    """Identifies callers by their metadata."""

    def identify(
        self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None, proved: AuthContext | None = None
    ) -> Caller:
        """Return the caller that the metadata names."""
        return Caller(str(dict(metadata or ()).get("who", "")), peer, metadata or ())


@asynccontextmanager
async def named_callers(app: App) -> AsyncIterator[AsyncStub]:
    """Return a second port of the authority, which identifies callers by their metadata."""
    calls, fast_path = Calls(app.authority), FastPath(app.authority.validation, os.urandom)
    validation = ValidationService(calls, app.authority, fast_path, SessionMessages(), Refusals(), UnaryCalls())
    server = RpcServer((validation,), ByMetadata(), validation.fast_path, transport=transport())
    try:
        async with stub_for(await server.start("127.0.0.1:0")) as stub:
            yield stub
    finally:
        await server.stop(0)


async def test_callers_are_told_apart_before_the_fast_path(app: App, stub: AsyncStub) -> None:
    """Each caller's first question is parsed, even if another caller has asked the same; later ones are not."""
    mine = await create(stub)
    request = pb.ValidateSessionRequest(token=mine.token, client=VICTIM)
    async with named_callers(app) as named:
        read = messages_read()
        for round_ in range(2):
            for count, who in enumerate(("shop", "bank"), 1):
                answer = await named.ValidateSession(request, metadata=(("who", who),))
                assert answer.verdict == pb.VERDICT_VALID
                assert messages_read() == read + (2 if round_ else count)


# The class alone


async def test_it_answers_as_the_ordinary_path_did(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A question that was answered plainly VALID gets the same answer and session again; before that, none."""
    asking, mine = Asking(app), await create(stub)
    clock.advance(1)
    for passive in (False, True):
        request = pb.ValidateSessionRequest(token=mine.token, passive=passive)
        assert asking.again(request) is None
        first = await asking.ask(request)
        again = asking.again(request)
        assert again is not None
        assert (again.judgement, again.session, again.activity) == (PLAIN, first.session, first.activity)
        assert (again.activity is None) is passive


@pytest.mark.parametrize(
    ("asked", "asks"),
    [
        ("shop", "bank"),
        ("shop", ""),
        ("", "shop"),
        ("shop", "shop\0"),
        ("", "\0"),
        ("a" * 16, "a" * 17),
        ("a" * 17, "a" * 18),
        ("spiffe://example.org/shop", "spiffe://example.org/bank"),
    ],
)
async def test_no_caller_is_answered_what_another_one_asked(app: App, stub: AsyncStub, asked: str, asks: str) -> None:
    """A question that one caller has asked is unknown for any other caller, whatever their names are."""
    asking, mine = Asking(app), await create(stub)
    request = pb.ValidateSessionRequest(token=mine.token)
    await asking.ask(request, asked)
    assert asking.again(request, asks) is None
    assert asking.again(request, asked) is not None


async def test_a_caller_is_its_name(app: App, stub: AsyncStub) -> None:
    """The same caller from another connection, with other metadata, is the same caller."""
    asking, mine = Asking(app), await create(stub)
    request = pb.ValidateSessionRequest(token=mine.token)
    await asking.ask(request)
    elsewhere = Caller("shop", "ipv4:192.0.2.1:9", (("trace", "2"),))
    assert asking.fast.answer(elsewhere, request.SerializeToString()) is not None


async def test_other_bytes_are_another_question(app: App, stub: AsyncStub) -> None:
    """A question that differs in any field is not known, nor is the same question in another serialization."""
    asking, mine = Asking(app), await create(stub)
    request = pb.ValidateSessionRequest(token=mine.token)
    await asking.ask(request)
    for other in (
        pb.ValidateSessionRequest(token=mine.token, passive=True),
        pb.ValidateSessionRequest(token=mine.token, application="default"),
        pb.ValidateSessionRequest(token=mine.token, client=VICTIM),
    ):
        assert asking.again(other) is None
    raw = request.SerializeToString()
    assert asking.fast.answer(Caller("shop"), raw + raw) is None


@pytest.mark.parametrize("fields", [{"with_csrf": True}, {"data": DataRequest()}])
async def test_what_asks_for_more_is_not_remembered(app: App, stub: AsyncStub, fields: dict[str, Any]) -> None:
    """An answer that contained more than the verdict is not cached."""
    asking, mine = Asking(app), await create(stub)
    request = pb.ValidateSessionRequest(token=mine.token)
    assert (await asking.ask(request, **fields)).verdict is Verdict.VALID
    assert asking.again(request) is None


async def test_a_refusal_is_not_remembered(app: App, stub: AsyncStub) -> None:
    """A denial is not cached."""
    asking, mine = Asking(app), await create(stub)
    request = pb.ValidateSessionRequest(token=mine.token)
    rolled = await roll(stub, mine.token)
    assert (await asking.ask(request)).verdict is Verdict.SUPERSEDED
    assert asking.again(request) is None
    assert (await asking.ask(pb.ValidateSessionRequest(token=rolled.token))).verdict is Verdict.VALID


async def test_what_changes_a_session_ends_it(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """After a roll, a revocation or a deadline, a cached question is left to the ordinary path."""
    asking = Asking(app)
    rolled, revoked, idle = [await create(stub) for _ in range(3)]
    requests = [pb.ValidateSessionRequest(token=one.token, passive=True) for one in (rolled, revoked, idle)]
    for request in requests:
        await asking.ask(request)
        assert asking.again(request) is not None
    await roll(stub, rolled.token)
    await stub.RevokeSession(pb.RevokeSessionRequest(session=pb.SessionReference(token=revoked.token)))
    assert [asking.again(request) is None for request in requests] == [True, True, False]
    clock.advance(HOUR)
    assert asking.again(requests[2]) is None


async def test_activity_that_lags_is_left_to_the_ordinary_path(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """If activity must be written, the fast path does not answer, except a passive question."""
    asking, mine = Asking(app), await create(stub)
    active, passive = [pb.ValidateSessionRequest(token=mine.token, passive=passive) for passive in (False, True)]
    for request in (active, passive):
        await asking.ask(request)
    clock.advance(60 * SECOND - 1)
    assert asking.again(active) is not None
    clock.advance(1)
    assert (asking.again(active), asking.again(passive) is None) == (None, False)


async def test_what_is_remembered_is_bounded(app: App, stub: AsyncStub) -> None:
    """Beyond the capacity, the question that was used longest ago is dropped, and takes the ordinary path."""
    asking = Asking(app, capacity=2)
    requests = [pb.ValidateSessionRequest(token=(await create(stub)).token) for _ in range(3)]
    for request in requests:
        await asking.ask(request)
    assert [asking.again(request) is None for request in requests] == [True, False, False]


async def test_a_locked_source_is_left_to_the_ordinary_path(tmp_path: Path, clock: ManualClock) -> None:
    """A cached question from a source that has been locked since is denied, if the policy says so."""
    rules = policy(guessing=GuessLimits(alarm_after=1, lock_after=1, deny_valid=True))
    async with authority(tmp_path, clock, rules) as (_, stub):
        mine = await create(stub)
        for _ in range(2):
            assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
        await validate(stub, "x")
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_LOCKED
