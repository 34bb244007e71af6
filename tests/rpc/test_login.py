"""A repeated login is one login: double clicks, lost responses, and which logins count as repeated for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.authority.results import AnswerSpec, ChangeResult, EncodedAnswer
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Caller
from sessiond.domain.login import Login
from sessiond.domain.policy import CookieRules
from sessiond.domain.values import Millis, SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    HOUR,
    MINUTE,
    SECOND,
    authority,
    create,
    fresh_id,
    hijacks,
    kinds,
    loose,
    policy,
    roll,
    signal_types,
    story_of,
    validate,
)
from tests.rpc.logins import CART, PASSWORD, check_one_login, click, guest_of, ids, live, request_ids
from tests.rpc.refusals import refusal_of, revision_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, sqlite_of

TOLERANCE = MINUTE
"""The default `lost_answer_tolerance`: how long a repeated login gets the first response."""
IN_FLIGHT = 20 * SECOND
"""The default `roll_tolerance`."""
LATE = IN_FLIGHT // 5
"""From then on a repeated login starts the tolerances again."""

or_create = pytest.mark.parametrize("or_create", [False, True], ids=["plain", "or_create"])


@pytest.fixture
async def served(tmp_path: Path, clock: ManualClock) -> AsyncIterator[tuple[App, AsyncStub]]:
    """Return an authority whose guests have another cookie name, with two applications."""
    async with authority(
        tmp_path, clock, policy(cookie=CookieRules(anonymous_name="visitor")), extra={"shop": policy()}
    ) as served:
        yield served


@pytest.fixture
def stub(served: tuple[App, AsyncStub]) -> AsyncStub:
    return served[1]


@pytest.fixture
def app(served: tuple[App, AsyncStub]) -> App:
    return served[0]


# Double clicks and lost responses


@or_create
@ids
async def test_two_clicks_at_once(stub: AsyncStub, ids: str, or_create: bool) -> None:
    """Two simultaneous logins with a guest's token bind the guest's session once, and both get the same response."""
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


@pytest.mark.parametrize("asks", [(False, True), (True, False)])
async def test_both_kinds_of_login_are_one(stub: AsyncStub, asks: tuple[bool, bool]) -> None:
    """A login with `or_create` counts as a repeat of one without it, and the reverse."""
    guest = await guest_of(stub)
    answers = await asyncio.gather(*(click(stub, guest.token, or_create=one) for one in asks))
    assert answers[0] == answers[1]
    await check_one_login(stub, guest.cookies, answers, data=CART)


@or_create
@ids
@pytest.mark.parametrize("wait", [0, 1, LATE - 1, LATE, IN_FLIGHT - 1, IN_FLIGHT, TOLERANCE - 1])
async def test_a_lost_answer(stub: AsyncStub, clock: ManualClock, ids: str, or_create: bool, wait: int) -> None:
    """A repeated login gets the first response until the exact end of the tolerance, and records it only if late."""
    guest = await guest_of(stub)
    first, second = request_ids(ids)
    lost = await click(stub, guest.token, or_create=or_create, request_id=first)
    before = await revision_of(stub)
    clock.advance(wait)
    again = await click(stub, guest.token, or_create=or_create, request_id=second)
    assert again == lost
    # A quick repeat changes nothing. A late one is recorded, because the tolerances start again with it.
    assert await revision_of(stub) == before + (wait >= LATE)
    for arriving in ([again], [lost, again]):
        session = await check_one_login(stub, guest.cookies, arriving, data=CART)
        assert session.session_id == guest.session.session_id
    assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID
    assert not hijacks(await story_of(stub, again.token))


@or_create
@ids
async def test_a_late_repeat_without_an_id(stub: AsyncStub, clock: ManualClock, ids: str, or_create: bool) -> None:
    """After the tolerance a login is a new one, unless its request id makes it a retry, for one day."""
    guest = await guest_of(stub)
    first, second = request_ids(ids)
    lost = await click(stub, guest.token, or_create=or_create, request_id=first)
    clock.advance(TOLERANCE)
    again = await click(stub, guest.token, or_create=or_create, request_id=second)
    if ids == "same":
        assert again == lost
        await check_one_login(stub, guest.cookies, [lost, again], data=CART)
    elif or_create:
        # A second copy of the token on the same device gets its own session; the first session is not affected.
        assert (again.created, again.presented_verdict) == (True, pb.VERDICT_REPLAYED)
        assert sorted(one.session_id for one in await live(stub)) == [
            guest.session.session_id,
            again.session.session_id,
        ]
        assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID
    else:
        assert (again.verdict, again.token) == (pb.VERDICT_REPLAYED, "")


@pytest.mark.parametrize("rolls", [10, 90])
@pytest.mark.parametrize("lost", [0, 30, 60])
async def test_the_longer_tolerance_counts(tmp_path: Path, clock: ManualClock, rolls: int, lost: int) -> None:
    """The first response is repeated within the longer of the two tolerances, and not after it."""
    rules = policy(roll_tolerance=Millis(rolls * SECOND), lost_answer_tolerance=Millis(lost * SECOND))
    async with authority(tmp_path, clock, rules) as (_, stub):
        guest = await guest_of(stub)
        first = await click(stub, guest.token)
        clock.advance(max(rolls, lost) * SECOND - 1)
        assert await click(stub, guest.token) == first
        clock.advance(1)
        # That repeat was late, so the guest's token may be in flight again. The first response is over all the same.
        denied = await click(stub, guest.token)
        assert (denied.verdict, denied.token) == (pb.VERDICT_SUPERSEDED, "")
        clock.advance(rolls * SECOND - 1)
        denied = await click(stub, guest.token)
        assert (denied.verdict, denied.token) == (pb.VERDICT_REPLAYED, "")


async def test_without_tolerance_nothing_is_repeated(tmp_path: Path, clock: ManualClock) -> None:
    """Without tolerances a policy repeats no response, not even within the same millisecond."""
    rules = policy(roll_tolerance=Millis(0), lost_answer_tolerance=Millis(0))
    async with authority(tmp_path, clock, rules) as (_, stub):
        guest = await guest_of(stub)
        assert (await click(stub, guest.token)).verdict == pb.VERDICT_VALID
        assert (await click(stub, guest.token)).verdict == pb.VERDICT_REPLAYED


@or_create
async def test_a_second_click_with_an_id_of_its_own_can_be_repeated(
    stub: AsyncStub, clock: ManualClock, or_create: bool
) -> None:
    """The response to the second click is repeated under its own request id for a day, as for any other call."""
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
    """A page requested with the old token between a lost response and the retry does not affect the retry."""
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


@or_create
@ids
@pytest.mark.parametrize("used", [False, True], ids=["not used yet", "used"])
async def test_a_page_in_flight_beside_a_late_repeat(
    stub: AsyncStub, clock: ManualClock, ids: str, or_create: bool, used: bool
) -> None:
    """A page that was sent just before the response to a late repeat arrived is no alarm, also if the new token came
    first; after `roll_tolerance` from the repeat it is one, as after any roll.
    """
    guest = await guest_of(stub)
    first, second = request_ids(ids)
    lost = await click(stub, guest.token, or_create=or_create, request_id=first)
    clock.advance(30 * SECOND)
    again = await click(stub, guest.token, or_create=or_create, request_id=second)
    assert again == lost
    if used:
        clock.advance(1)
        assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID
    clock.advance(IN_FLIGHT - 1 - used)
    page = await validate(stub, guest.token)
    assert (page.verdict, page.next_step) == (pb.VERDICT_SUPERSEDED, pb.NEXT_STEP_KEEP_TOKEN)
    page = await validate(stub, again.token)
    assert (page.verdict, list(page.signals)) == (pb.VERDICT_VALID, [])
    assert kinds(await story_of(stub, guest.token, again.token))[3:] == ["SESSION_REFRESHED"]
    clock.advance(1)
    page = await validate(stub, guest.token)
    assert (page.verdict, signal_types(page)) == (pb.VERDICT_REPLAYED, ["TOKEN_COPY"])
    assert len(hijacks(await story_of(stub, guest.token, again.token))) == 1


async def test_late_repeats_keep_no_response_longer(stub: AsyncStub, clock: ManualClock) -> None:
    """Each late repeat starts the tolerances again, but the first response ends as long after the first login as ever,
    so nobody can go on like that.
    """
    guest = await guest_of(stub)
    lost = await click(stub, guest.token)
    repeats = TOLERANCE // LATE - 1
    for _ in range(repeats):
        clock.advance(LATE)
        assert await click(stub, guest.token) == lost
    told = kinds(await story_of(stub, guest.token, lost.token))
    assert told[3:] == ["SESSION_REFRESHED"] * repeats
    clock.advance(LATE)
    assert (await click(stub, guest.token)).verdict == pb.VERDICT_SUPERSEDED
    clock.advance(IN_FLIGHT - LATE)
    assert (await validate(stub, guest.token)).verdict == pb.VERDICT_REPLAYED


async def test_without_a_tolerance_for_requests_in_flight_nothing_starts_again(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Under a policy without `roll_tolerance` a repeated login gets the first response, and records nothing."""
    async with authority(tmp_path, clock, policy(roll_tolerance=Millis(0))) as (_, stub):
        guest = await guest_of(stub)
        lost = await click(stub, guest.token)
        before = await revision_of(stub)
        for wait in (0, 30 * SECOND):
            clock.advance(wait)
            assert await click(stub, guest.token) == lost
        assert await revision_of(stub) == before


async def test_an_old_token_is_news_again_after_the_repeated_login(stub: AsyncStub, clock: ManualClock) -> None:
    """A repeated login clears suspicions about its own client only; afterwards the old token is judged as before."""
    guest = await guest_of(stub)
    await click(stub, guest.token)
    clock.advance(20 * SECOND)
    await validate(stub, guest.token)
    again = await click(stub, guest.token)
    clock.advance(20 * SECOND)
    assert (await validate(stub, guest.token, ATTACKER)).verdict == pb.VERDICT_REPLAYED
    assert (await validate(stub, again.token)).verdict == pb.VERDICT_REVOKED
    told = kinds(await story_of(stub, again.token))
    assert told[3:] == [
        "OLD_TOKEN_PRESENTED",
        "SESSION_REFRESHED",
        "OLD_TOKEN_PRESENTED",
        "HIJACK_SUSPECTED",
        "SESSION_REVOKED",
    ]


# Which logins are the same, and for how long


async def test_logins_of_others_in_between(stub: AsyncStub, clock: ManualClock) -> None:
    """If several people use one guest's token, each of them gets the first response to their own login."""
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
    # Only the first login has rolled the guest's token, so only its tolerances start again.
    assert await revision_of(stub) == before + 1


async def logged_in(app: App, token: str, subject: str = "ada") -> str:
    """Log in through the authority itself, so that several logins can be put into one group. Return the token."""
    authority = app.authority
    call = authority.call("default", Caller("test"), None)

    def encode(changed: ChangeResult) -> bytes:
        assert changed.token is not None
        return changed.token.reveal().encode()

    answer = await authority.logins.authenticate(call, Token(token), Login(subject), AnswerSpec(encode), or_create=True)
    assert isinstance(answer, EncodedAnswer)
    return answer.message.decode()


async def ended(app: App, session_id: str) -> None:
    """Revoke through the authority itself."""
    call = app.authority.call("default", Caller("test"), None)
    await app.authority.sessions.revoke(call, SessionId.parse(session_id), AnswerSpec(lambda _: b""))


async def test_the_newest_first_answer_counts_within_a_group(app: App, stub: AsyncStub) -> None:
    """In one group of login, logout, login, login, the last login repeats the one before it and not the first."""
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
    """Two clicks of each of two people on one guest's page, in one group, open one session for each of them."""
    guest = await guest_of(stub)
    one, other, again, anew = await asyncio.gather(
        *(logged_in(app, guest.token, subject) for subject in ("ada", "bob", "ada", "bob"))
    )
    assert (again, anew) == (one, other)
    assert sorted(session.subject for session in await live(stub)) == ["ada", "bob"]


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "bob"},
        {"authentication": {"level": 2, "methods": ["pwd"]}},
        {"authentication": {"level": 1, "methods": ["pwd", "otp"]}},
        {"authentication": {}},
    ],
    ids=["subject", "level", "methods", "unranked"],
)
async def test_another_login_is_not_the_first(stub: AsyncStub, clock: ManualClock, other: dict[str, Any]) -> None:
    """Another subject, level or method is not a repeat: the old token is SUPERSEDED, and the first response stays."""
    guest = await guest_of(stub)
    first = await click(stub, guest.token)
    before = await revision_of(stub)
    denied = await click(stub, guest.token, **other)
    assert (denied.verdict, denied.token, denied.HasField("session")) == (pb.VERDICT_SUPERSEDED, "", False)
    assert await revision_of(stub) == before
    fresh = await click(stub, guest.token, or_create=True, **other)
    assert (fresh.created, fresh.presented_verdict) == (True, pb.VERDICT_SUPERSEDED)
    assert fresh.session.session_id != first.session.session_id
    assert (await validate(stub, fresh.token, data={})).data.values == {}
    assert (await validate(stub, first.token, data={})).data.values == CART
    assert await click(stub, guest.token) == first


async def test_a_remembered_login_is_not_the_first(tmp_path: Path, clock: ManualClock) -> None:
    """A login with "remember me" is not a repeat of one without, whose cookie the browser would not keep."""
    remembers = policy(remember_idle_timeout=Millis(9 * HOUR), remember_absolute_timeout=Millis(90 * HOUR))
    async with authority(tmp_path, clock, remembers) as (_, stub):
        guest = await guest_of(stub)
        await click(stub, guest.token)
        assert (await click(stub, guest.token, persistent=True)).verdict == pb.VERDICT_SUPERSEDED


@pytest.mark.parametrize("after", ["logout", "admin", "roll", "login", "elevation"])
async def test_after_another_change_the_first_answer_is_over(stub: AsyncStub, after: str) -> None:
    """A first response whose token is no longer valid is not repeated; with `or_create` the login succeeds."""
    guest = await guest_of(stub)
    first = await click(stub, guest.token)
    named = {"token": first.token} if after == "logout" else {"session_id": first.session.session_id}
    match after:
        case "logout" | "admin":
            await stub.RevokeSession(loose.RevokeSessionRequest(session=named))
        case "roll":
            await roll(stub, first.token)
        case _:
            await click(stub, first.token, elevate=after == "elevation")
    # Two rolls later, the guest's token is a copy if this client presents it, and a theft if another one does.
    revoked = after in ("logout", "admin")
    verdict = pb.VERDICT_REVOKED if revoked else pb.VERDICT_REPLAYED
    denied = await click(stub, guest.token)
    assert (denied.verdict, denied.token) == (verdict, "")
    fresh = await click(stub, guest.token, or_create=True)
    assert (fresh.verdict, fresh.created) == (pb.VERDICT_VALID, True)
    assert fresh.token != first.token
    assert (await validate(stub, fresh.token)).verdict == pb.VERDICT_VALID
    others = [] if revoked else [first.session.session_id]
    assert {session.session_id for session in await live(stub)} == {fresh.session.session_id, *others}


async def test_after_a_renewal_the_first_answer_is_over(tmp_path: Path, clock: ManualClock) -> None:
    """A first response whose token was renewed, and whose successor is in use, is not repeated."""
    rules = policy(renewal_timeout=Millis(5 * SECOND), renewal_overlap=Millis(SECOND))
    async with authority(tmp_path, clock, rules) as (_, stub):
        guest = await guest_of(stub)
        first = await click(stub, guest.token)
        clock.advance(5 * SECOND)
        renewed = (await validate(stub, first.token)).renewed_token
        assert await click(stub, guest.token) == first
        await validate(stub, renewed)
        assert (await click(stub, guest.token)).verdict == pb.VERDICT_SUPERSEDED


@or_create
@pytest.mark.parametrize("order", ["old first", "new first"])
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
async def test_a_guest_renewed_meanwhile(
    stub: AsyncStub, clock: ManualClock, order: str, or_create: bool, at_once: bool
) -> None:
    """A guest's token and its successor are the same guest: a click with each of them is one login."""
    guest = await guest_of(stub)
    for _ in range(3):
        clock.advance(20 * MINUTE)
        page = await validate(stub, guest.token)
    assert page.next_step == pb.NEXT_STEP_REPLACE_TOKEN
    tokens = [guest.token, page.renewed_token][:: 1 if order == "old first" else -1]
    if at_once:
        answers = list(await asyncio.gather(*(click(stub, token, or_create=or_create) for token in tokens)))
    else:
        answers = [await click(stub, token, or_create=or_create) for token in tokens]
    assert answers[0] == answers[1]
    session = await check_one_login(stub, guest.cookies, answers, data=CART)
    assert session.session_id == guest.session.session_id


async def test_the_kept_row_goes(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A login leaves one sealed row, which is deleted after the tolerance and not before."""

    async def rows() -> int:
        await app.sweeper.forget_answers()
        return int((await sqlite_of(app)._db.all("SELECT count(*) FROM answers"))[0][0])

    guest = await guest_of(stub)
    assert await rows() == 0
    await click(stub, guest.token)
    await click(stub, guest.token)
    assert await rows() == 1
    clock.advance(TOLERANCE - 1)
    assert await rows() == 1
    clock.advance(1)
    assert await rows() == 0


async def test_a_denied_login_keeps_nothing(app: App, stub: AsyncStub) -> None:
    """A denied login leaves no row, with or without a request id."""
    for token in ("", "x", "A" * 70, (await create(stub, "", application="shop")).token):
        for request_id in ("", fresh_id()):
            denied = await click(stub, token, request_id=request_id)
            assert (denied.verdict != pb.VERDICT_VALID, denied.token) == (True, "")
    assert (await sqlite_of(app)._db.all("SELECT count(*) FROM answers"))[0][0] == 0


# Elevation


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
@ids
async def test_an_elevation_twice(stub: AsyncStub, at_once: bool, ids: str) -> None:
    """Two clicks on "confirm" elevate once: both get the same token with the new level."""
    own = await create(stub, data=CART, authentication=PASSWORD)
    strong = {"level": 2, "methods": ["pwd", "otp"]}
    clicks = [click(stub, own.token, elevate=True, authentication=strong, request_id=one) for one in request_ids(ids)]
    answers = list(await asyncio.gather(*clicks)) if at_once else [await one for one in clicks]
    assert answers[0] == answers[1]
    await check_one_login(stub, own.cookies, answers, data=CART)
    page = await validate(stub, answers[0].token, requirements={"min_level": 2})
    assert page.verdict == pb.VERDICT_VALID
    assert kinds(await story_of(stub)) == ["SESSION_CREATED", "SESSION_AUTHENTICATED", "SESSION_ROLLED"]


async def test_an_elevation_is_not_a_login(stub: AsyncStub) -> None:
    """A login with the token that an elevation has just replaced does not count as a repeat of the elevation."""
    own = await create(stub, authentication=PASSWORD)
    elevated = await click(stub, own.token, elevate=True)
    assert elevated.verdict == pb.VERDICT_VALID
    assert (await click(stub, own.token)).verdict == pb.VERDICT_SUPERSEDED


@pytest.mark.parametrize("token", ["none", "own"])
async def test_an_elevation_opens_nothing(stub: AsyncStub, token: str) -> None:
    """`or_create` together with `elevate` is INVALID_ARGUMENT with the field's name, and changes nothing."""
    own = await create(stub)
    before = await revision_of(stub)
    refused = await refusal_of(click(stub, own.token if token == "own" else "", elevate=True, or_create=True))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["or_create"])
    assert await revision_of(stub) == before
