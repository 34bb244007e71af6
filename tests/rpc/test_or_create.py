"""`or_create`: a login succeeds whatever token the client presents, also at the session limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import permutations
from pathlib import Path

import grpc
import pytest

from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.policy import CookieRules, LimitRule
from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    MINUTE,
    authority,
    create,
    fresh_id,
    kinds,
    loose,
    policy,
    roll,
    story_of,
    validate,
)
from tests.rpc.jar import Jar
from tests.rpc.logins import CART, check_one_login, click, guest_of, ids, live, request_ids
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

LOCK = GuessLimits(alarm_after=1, lock_after=1, deny_valid=True)


@pytest.fixture
async def stub(tmp_path: Path, clock: ManualClock) -> AsyncIterator[AsyncStub]:
    """Return an authority whose guests have another cookie name, with two applications."""
    rules = policy(cookie=CookieRules(anonymous_name="visitor"))
    async with authority(tmp_path, clock, rules, extra={"shop": policy()}) as (_, stub):
        yield stub


# Dead tokens, and tokens of other subjects


@ids
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@pytest.mark.parametrize("dead", ["idle", "login page", "revoked", "rolled", "shop"])
async def test_a_dead_token_presented_twice(
    stub: AsyncStub, clock: ManualClock, dead: str, at_once: bool, ids: str
) -> None:
    """A token that was dead before the login opens one new session without its data, however often it is presented."""
    verdict = pb.VERDICT_UNKNOWN
    match dead:
        case "idle":
            guest, verdict = await guest_of(stub), pb.VERDICT_EXPIRED_IDLE
            clock.advance(30 * MINUTE)
        case "login page":
            guest, verdict = await create(stub, "", data=CART, login_page=True), pb.VERDICT_EXPIRED_ABSOLUTE
            clock.advance(10 * MINUTE)
        case "revoked":
            guest, verdict = await guest_of(stub), pb.VERDICT_REVOKED
            await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": guest.token}))
        case "rolled":  # and its session ended later
            guest, verdict = await create(stub, data=CART), pb.VERDICT_REVOKED
            rolled = await roll(stub, guest.token)
            await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": rolled.token}))
        case _:
            guest = await create(stub, "", data=CART, application="shop")
    assert (await click(stub, guest.token)).verdict == verdict
    assert await live(stub) == []
    clicks = [click(stub, guest.token, or_create=True, request_id=one) for one in request_ids(ids)]
    answers = list(await asyncio.gather(*clicks)) if at_once else [await one for one in clicks]
    assert answers[0] == answers[1]
    assert (answers[0].created, answers[0].presented_verdict) == (True, verdict)
    session = await check_one_login(stub, guest.cookies, answers, data={})
    assert session.session_id not in (guest.session.session_id, "")
    theirs = await session_of(stub, guest.session.session_id, guest.session.application)
    assert (theirs.state == pb.SESSION_STATE_ACTIVE) == (dead == "shop")


@ids
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
async def test_a_session_of_somebody_else(stub: AsyncStub, at_once: bool, ids: str) -> None:
    """A login over another subject's session ends that session, and opens a new one without its cart."""
    before = await create(stub, "bob", data=CART)
    elsewhere = await create(stub, "bob")
    clicks = [click(stub, before.token, or_create=True, request_id=one) for one in request_ids(ids)]
    answers = list(await asyncio.gather(*clicks)) if at_once else [await one for one in clicks]
    assert (answers[0].created, answers[0].presented_verdict) == (True, pb.VERDICT_VALID)
    gone = await session_of(stub, before.session.session_id)
    assert (gone.state, gone.ending.cause.kind) == (pb.SESSION_STATE_REVOKED, pb.CAUSE_KIND_REQUEST)
    assert (await validate(stub, elsewhere.token)).verdict == pb.VERDICT_VALID
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": elsewhere.token}))
    assert answers[0] == answers[1]
    await check_one_login(stub, before.cookies, answers, data={})
    told = kinds(await story_of(stub, before.token, answers[0].token))
    assert told == ["SESSION_CREATED"] * 3 + ["SESSION_REVOKED"] * 2


async def test_a_held_session_of_somebody_else(tmp_path: Path, clock: ManualClock) -> None:
    """A login also ends another subject's session that needs authentication, and reports it as INSUFFICIENT."""
    async with authority(tmp_path, clock, policy(reactions={SignalType.REPORTED: Reaction.STEP_UP})) as (_, stub):
        bob = await create(stub, "bob", data=CART)
        named = {"session_id": bob.session.session_id}
        await stub.ReportSignal(loose.ReportSignalRequest(session=named, reason="odd"))
        answer = await click(stub, bob.token, or_create=True)
        assert (answer.verdict, answer.created) == (pb.VERDICT_VALID, True)
        assert answer.presented_verdict == pb.VERDICT_INSUFFICIENT
        assert (await session_of(stub, bob.session.session_id)).state == pb.SESSION_STATE_REVOKED
        assert [session.subject for session in await live(stub)] == ["ada"]


@pytest.mark.parametrize("token", ["", "x", "A" * 70], ids=["none", "malformed", "forged"])
async def test_no_token_at_all(stub: AsyncStub, token: str) -> None:
    """Two logins without an issued token count as two devices, unless they have one request id; both succeed."""
    verdict = pb.VERDICT_FORGED if len(token) == 70 else pb.VERDICT_MALFORMED
    denied = await click(stub, token)
    assert (denied.verdict, denied.token) == (verdict, "")
    one = fresh_id()
    same = await asyncio.gather(*(click(stub, token, or_create=True, request_id=one) for _ in range(2)))
    assert same[0] == same[1]
    assert (same[0].created, same[0].presented_verdict) == (True, verdict)
    await check_one_login(stub, pb.CookieDirectives(), same, data={})
    answers = await asyncio.gather(*(click(stub, token, or_create=True) for _ in range(2)))
    assert len(await live(stub, subject="ada")) == 3
    for order in permutations(answers):
        final = Jar().take(answer.cookies for answer in order).token
        assert (await validate(stub, final)).session.subject == "ada"


@pytest.mark.parametrize("token", ["none", "forged", "guest", "dead", "theirs"])
async def test_a_locked_source_is_denied(tmp_path: Path, clock: ManualClock, token: str) -> None:
    """LOCKED stays LOCKED whatever token comes with the login: nothing is opened, bound or ended."""
    source = pb.ClientContext(ip_address="203.0.113.66")
    async with authority(tmp_path, clock, policy(guessing=LOCK)) as (_, stub):
        dead = await create(stub)
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": dead.token}))
        tokens = {
            "none": "",
            "forged": "A" * 70,
            "guest": (await guest_of(stub)).token,
            "dead": dead.token,
            "theirs": (await create(stub, "bob")).token,
        }
        await validate(stub, "x", source)
        assert len((await stub.ListSourceLocks(pb.ListSourceLocksRequest())).source_locks) == 1
        before = await revision_of(stub)
        for request_id in ("", fresh_id()):
            denied = await click(stub, tokens[token], or_create=True, client=source, request_id=request_id)
            assert (denied.verdict, denied.token, denied.created) == (pb.VERDICT_LOCKED, "", False)
            assert not denied.HasField("cookies")
        assert await revision_of(stub) == before
        assert (await click(stub, tokens[token], or_create=True)).verdict == pb.VERDICT_VALID


# The limit of concurrent sessions


async def presented(stub: AsyncStub, kind: str) -> pb.CreateSessionResponse:
    """Return a session whose token is presented with a login: a guest's, a dead one, or another subject's."""
    session = await create(stub, "bob" if kind == "theirs" else "", data=CART)
    if kind == "dead":
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": session.token}))
    return session


kind = pytest.mark.parametrize("kind", ["guest", "dead", "theirs"])


@kind
async def test_a_limit_that_rejects(tmp_path: Path, clock: ManualClock, kind: str) -> None:
    """Two logins over the limit are both refused, and change nothing; below the limit they are one login."""
    async with authority(tmp_path, clock, policy(max_sessions=1, on_limit=LimitRule.REJECT)) as (_, stub):
        elsewhere = await create(stub)
        shown = await presented(stub, kind)
        for _ in range(2):
            answers = await asyncio.gather(*(click(stub, shown.token, or_create=True) for _ in range(2)))
            for refused in answers:
                assert (refused.verdict, refused.limit.max_sessions) == (pb.VERDICT_VALID, 1)
                assert (refused.token, refused.created, refused.HasField("session")) == ("", False, False)
                assert not refused.HasField("cookies")
        if kind != "dead":
            assert (await session_of(stub, shown.session.session_id)).subject == shown.session.subject
            assert dict((await validate(stub, shown.token, data={})).data.values) == CART
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": elsewhere.token}))
        answers = await asyncio.gather(*(click(stub, shown.token, or_create=True) for _ in range(2)))
        await check_one_login(stub, shown.cookies, answers, data=CART if kind == "guest" else {})


@kind
@pytest.mark.parametrize("rule", [LimitRule.EVICT_OLDEST, LimitRule.EVICT_LEAST_RECENT])
async def test_a_limit_that_evicts(tmp_path: Path, clock: ManualClock, kind: str, rule: LimitRule) -> None:
    """Two logins at the limit evict one session, and both responses name it; the second evicts nothing more."""
    async with authority(tmp_path, clock, policy(max_sessions=1, on_limit=rule)) as (_, stub):
        elsewhere = await create(stub)
        shown = await presented(stub, kind)
        answers = await asyncio.gather(*(click(stub, shown.token, or_create=True) for _ in range(2)))
        assert [list(answer.evicted_session_ids) for answer in answers] == [[elsewhere.session.session_id]] * 2
        assert answers[0] == answers[1]
        assert (await validate(stub, elsewhere.token)).verdict == pb.VERDICT_REVOKED
        await check_one_login(stub, shown.cookies, answers, data=CART if kind == "guest" else {})


@kind
@pytest.mark.parametrize("tabs", ["one ticket", "two tickets"])
async def test_a_limit_that_asks(tmp_path: Path, clock: ManualClock, kind: str, tabs: str) -> None:
    """The choice, made twice or in two tabs, is applied once; the login, repeated late, is still the same."""
    async with authority(tmp_path, clock, policy(max_sessions=1, on_limit=LimitRule.ASK)) as (_, stub):
        elsewhere = await create(stub)
        shown = await presented(stub, kind)
        asked = [await click(stub, shown.token, or_create=True) for _ in range(2)]
        assert asked[0].limit.ticket != asked[1].limit.ticket
        tickets = [asked[0].limit.ticket, asked[0 if tabs == "one ticket" else 1].limit.ticket]
        evict = [elsewhere.session.session_id]
        answers = await asyncio.gather(
            *(click(stub, shown.token, or_create=True, ticket=one, evict_session_ids=evict) for one in tickets)
        )
        assert answers[0] == answers[1]
        assert list(answers[0].evicted_session_ids) == evict
        assert await click(stub, shown.token, or_create=True) == answers[0]
        await check_one_login(stub, shown.cookies, answers, data=CART if kind == "guest" else {})


async def test_a_login_of_somebody_else_without_or_create(stub: AsyncStub) -> None:
    """Without `or_create` another subject's session is FAILED_PRECONDITION each time, and nothing changes."""
    bob = await create(stub, "bob", data=CART)
    before = await revision_of(stub)
    for request_id in ("", fresh_id()):
        refused = await refusal_of(click(stub, bob.token, request_id=request_id))
        assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    assert await revision_of(stub) == before
    assert dict((await validate(stub, bob.token, data={})).data.values) == CART
