"""A login always works: made twice, with its answer lost, and whatever token the client presents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.authority.results import Changed, Kept, Reply
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Caller
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.login import Login
from sessiond.domain.policy import CookieRules, LimitRule
from sessiond.domain.values import Millis, SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    HOUR,
    MINUTE,
    SECOND,
    authority,
    create,
    fresh_id,
    hijacks,
    kinds,
    login,
    loose,
    policy,
    roll,
    story_of,
    validate,
)
from tests.rpc.jar import Jar
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

CART = {"cart": b"3 apples"}
PASSWORD = {"level": 1, "methods": ["pwd"]}
TOLERANCE = MINUTE
"""The default policy's `lost_answer_tolerance`: for how long a repeated login gets the first answer."""
TWO_NAMES = CookieRules(anonymous_name="visitor")
LOCK = GuessLimits(alarm_after=1, lock_after=1, deny_valid=True)

or_create = pytest.mark.parametrize("or_create", [False, True], ids=["plain", "or_create"])
ids = pytest.mark.parametrize("ids", ["none", "same", "own", "first", "second"])


@pytest.fixture
async def served(tmp_path: Path, clock: ManualClock) -> AsyncIterator[tuple[App, AsyncStub]]:
    """An authority whose guests have a cookie of another name, with a second application beside the default one."""
    async with authority(tmp_path, clock, policy(cookie=TWO_NAMES), extra={"shop": policy()}) as served:
        yield served


@pytest.fixture
def stub(served: tuple[App, AsyncStub]) -> AsyncStub:
    return served[1]


@pytest.fixture
def app(served: tuple[App, AsyncStub]) -> App:
    return served[0]


def request_ids(ids: str) -> tuple[str, str]:
    """The request ids of two clicks."""
    one, other = fresh_id(), fresh_id()
    return {"none": ("", ""), "same": (one, one), "own": (one, other), "first": (one, ""), "second": ("", other)}[ids]


async def guest_of(stub: AsyncStub) -> pb.CreateSessionResponse:
    """A guest with something in the cart."""
    return await create(stub, "", data=CART)


async def click(stub: AsyncStub, token: str, subject: str = "ada", **fields: Any) -> pb.AuthenticateSessionResponse:
    """One click on "log in"."""
    return await login(stub, token, subject, **{"authentication": PASSWORD, **fields})


async def live(stub: AsyncStub, **conditions: Any) -> list[pb.Session]:
    """The live sessions."""
    return list((await stub.ListSessions(loose.ListSessionsRequest(filter=conditions))).sessions)


async def check_one_login(
    stub: AsyncStub,
    before: pb.CookieDirectives,
    answers: Sequence[pb.AuthenticateSessionResponse],
    *,
    data: dict[str, bytes],
) -> pb.Session:
    """In whatever order the answers arrive: one live session, the data in it, and the user logged in. The session."""
    assert {answer.verdict for answer in answers} == {pb.VERDICT_VALID}
    (session,) = await live(stub)
    assert session.subject == "ada"
    for order in permutations(answers):
        token = Jar(before).take(answer.cookies for answer in order).token
        page = await validate(stub, token, passive=True, data={}, with_csrf_token=True)
        assert (page.verdict, page.session.session_id) == (pb.VERDICT_VALID, session.session_id)
        assert dict(page.data.values) == data
        assert page.csrf_token == order[-1].csrf_token
    return session


# Two clicks, and lost answers


@or_create
@ids
async def test_two_clicks_at_once(stub: AsyncStub, ids: str, or_create: bool) -> None:
    """Two simultaneous logins with a guest's token bind the guest's session once, and both are told of it."""
    guest = await guest_of(stub)
    answers = await asyncio.gather(
        *(click(stub, guest.token, or_create=or_create, request_id=one) for one in request_ids(ids))
    )
    session = await check_one_login(stub, guest.cookies, answers, data=CART)
    assert session.session_id == guest.session.session_id
    assert answers[0] == answers[1]
    assert not answers[0].created
    told = kinds(await story_of(stub, guest.token, answers[0].token))
    assert told == ["SESSION_CREATED", "SESSION_AUTHENTICATED", "SESSION_ROLLED"]


@or_create
@ids
@pytest.mark.parametrize("wait", [0, 1, 20 * SECOND - 1, 20 * SECOND, TOLERANCE - 1])
async def test_a_lost_answer(stub: AsyncStub, clock: ManualClock, ids: str, or_create: bool, wait: int) -> None:
    """The login that is made again gets the first answer to the millisecond of the tolerance, and changes nothing."""
    guest = await guest_of(stub)
    first, second = request_ids(ids)
    lost = await click(stub, guest.token, or_create=or_create, request_id=first)
    before = await revision_of(stub)
    clock.advance(wait)
    again = await click(stub, guest.token, or_create=or_create, request_id=second)
    assert again == lost
    assert await revision_of(stub) == before
    for arriving in ([again], [lost, again]):
        session = await check_one_login(stub, guest.cookies, arriving, data=CART)
        assert session.session_id == guest.session.session_id
    assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID
    assert not hijacks(await story_of(stub, again.token))


@or_create
@ids
async def test_a_late_repeat_without_an_id(stub: AsyncStub, clock: ManualClock, ids: str, or_create: bool) -> None:
    """At the end of the tolerance a login is another one, unless its id makes it the same for a day."""
    guest = await guest_of(stub)
    first, second = request_ids(ids)
    lost = await click(stub, guest.token, or_create=or_create, request_id=first)
    clock.advance(TOLERANCE)
    again = await click(stub, guest.token, or_create=or_create, request_id=second)
    if ids == "same":
        assert again == lost
        await check_one_login(stub, guest.cookies, [lost, again], data=CART)
    elif or_create:
        assert (again.created, again.presented_verdict) == (True, pb.VERDICT_REPLAYED)
        session = await check_one_login(stub, guest.cookies, [again], data={})
        assert session.session_id != guest.session.session_id
    else:
        assert (again.verdict, again.token) == (pb.VERDICT_REPLAYED, "")


@pytest.mark.parametrize("rolls", [10, 90])
@pytest.mark.parametrize("lost", [0, 30, 60])
async def test_the_longer_tolerance_counts(tmp_path: Path, clock: ManualClock, rolls: int, lost: int) -> None:
    """The first answer is given again within the longer of the two tolerances, and from its end on no more."""
    rules = policy(roll_tolerance=Millis(rolls * SECOND), lost_answer_tolerance=Millis(lost * SECOND))
    async with authority(tmp_path, clock, rules) as (_, stub):
        guest = await guest_of(stub)
        first = await click(stub, guest.token)
        clock.advance(max(rolls, lost) * SECOND - 1)
        assert await click(stub, guest.token) == first
        clock.advance(1)
        denied = await click(stub, guest.token)
        assert (denied.verdict, denied.token) == (pb.VERDICT_REPLAYED, "")


async def test_without_tolerance_nothing_is_repeated(tmp_path: Path, clock: ManualClock) -> None:
    """A policy without tolerances has no first answer to give again, not even within the same millisecond."""
    rules = policy(roll_tolerance=Millis(0), lost_answer_tolerance=Millis(0))
    async with authority(tmp_path, clock, rules) as (_, stub):
        guest = await guest_of(stub)
        assert (await click(stub, guest.token)).verdict == pb.VERDICT_VALID
        assert (await click(stub, guest.token)).verdict == pb.VERDICT_REPLAYED


@or_create
async def test_a_second_click_with_an_id_of_its_own_can_be_repeated(
    stub: AsyncStub, clock: ManualClock, or_create: bool
) -> None:
    """What the second click was answered is the answer to its own id for a day, as for every call that gave a token."""
    guest = await guest_of(stub)
    second = fresh_id()
    first = await click(stub, guest.token, or_create=or_create, request_id=fresh_id())
    assert await click(stub, guest.token, or_create=or_create, request_id=second) == first
    clock.advance(10 * MINUTE)
    assert await click(stub, guest.token, or_create=or_create, request_id=second) == first
    assert not hijacks(await story_of(stub, first.token))


@or_create
@ids
@pytest.mark.parametrize("wait", [20 * SECOND, TOLERANCE - 1])
async def test_a_page_between_the_lost_answer_and_the_next_try(
    stub: AsyncStub, clock: ManualClock, ids: str, or_create: bool, wait: int
) -> None:
    """A page asked for with the old token between a lost answer and the next try does not spoil what is given then."""
    guest = await guest_of(stub)
    first, second = request_ids(ids)
    lost = await click(stub, guest.token, or_create=or_create, request_id=first)
    clock.advance(wait)
    page = await validate(stub, guest.token)
    assert (page.verdict, list(page.signals)) == (pb.VERDICT_REPLAYED, [])
    again = await click(stub, guest.token, or_create=or_create, request_id=second)
    assert again.token == lost.token
    assert (await validate(stub, guest.token)).verdict == pb.VERDICT_SUPERSEDED  # a request in flight
    clock.advance(1)
    assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID
    assert not hijacks(await story_of(stub, again.token))
    await check_one_login(stub, guest.cookies, [again], data=CART)


async def test_an_old_token_is_news_again_after_the_repeated_login(stub: AsyncStub, clock: ManualClock) -> None:
    """The repeated login clears its client, and nobody else: the old token from then on is judged as before."""
    guest = await guest_of(stub)
    await click(stub, guest.token)
    clock.advance(20 * SECOND)
    await validate(stub, guest.token)
    again = await click(stub, guest.token)
    clock.advance(20 * SECOND)
    assert (await validate(stub, guest.token)).verdict == pb.VERDICT_REPLAYED
    assert (await validate(stub, again.token)).verdict == pb.VERDICT_REVOKED
    told = kinds(await story_of(stub, again.token))
    assert told[3:] == [
        "OLD_TOKEN_PRESENTED",
        "SESSION_REFRESHED",
        "OLD_TOKEN_PRESENTED",
        "HIJACK_SUSPECTED",
        "SESSION_REVOKED",
    ]


# What is the same login, and for how long


async def test_logins_of_others_in_between(stub: AsyncStub, clock: ManualClock) -> None:
    """One guest's token, several people: each login has its own first answer, whoever logged in meanwhile."""
    guest = await guest_of(stub)
    logins: list[dict[str, Any]] = [
        {"subject": "ada"},
        {"subject": "bob"},
        {"subject": "ada", "authentication": {"level": 2, "methods": ["pwd", "otp"]}},
        {"subject": "ada", "application": "shop"},
    ]
    first = [await click(stub, guest.token, or_create=True, **one) for one in logins]
    assert len({answer.token for answer in first}) == len(logins)
    clock.advance(TOLERANCE - 1)
    before = await revision_of(stub)
    assert [await click(stub, guest.token, or_create=True, **one) for one in logins] == first
    assert await revision_of(stub) == before


async def logged_in(app: App, token: str, subject: str = "ada") -> str:
    """A login by way of the authority itself, so that several can be put into one group; the token that it gives."""
    authority = app.authority
    call = authority.call("default", Caller("test"), None)

    def encode(changed: Changed) -> bytes:
        assert changed.token is not None
        return changed.token.reveal().encode()

    answer = await authority.logins.authenticate(call, Token(token), Login(subject), Reply(encode), or_create=True)
    assert isinstance(answer, Kept)
    return answer.message.decode()


async def ended(app: App, session_id: str) -> None:
    """A revocation, likewise."""
    call = app.authority.call("default", Caller("test"), None)
    await app.authority.sessions.revoke(call, SessionId.parse(session_id), Reply(lambda _: b""))


async def test_the_newest_first_answer_counts_within_a_group(app: App, stub: AsyncStub) -> None:
    """Login, logout, login, login, all committed together: the last login repeats the one before it, not the first."""
    guest = await guest_of(stub)
    first, _, second, third = await asyncio.gather(
        logged_in(app, guest.token),
        ended(app, guest.session.session_id),
        logged_in(app, guest.token),
        logged_in(app, guest.token),
    )
    assert first != second
    assert third == second
    (session,) = await live(stub)
    assert (await validate(stub, second)).session.session_id == session.session_id


async def test_people_in_one_group(app: App, stub: AsyncStub) -> None:
    """Two clicks each of two people on one guest's page, all committed together, are one session for each of them."""
    guest = await guest_of(stub)
    one, other, again, anew = await asyncio.gather(
        *(logged_in(app, guest.token, subject) for subject in ("ada", "bob", "ada", "bob"))
    )
    assert (again, anew) == (one, other)
    assert sorted(session.subject for session in await live(stub)) == ["ada", "bob"]
