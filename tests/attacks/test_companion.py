"""Companion tokens: the second key of a sensitive page, tried where and when it must not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    MINUTE,
    VICTIM,
    authority,
    create,
    hijacks,
    kinds,
    millis,
    policy,
    roll,
    story_of,
    unmet_kinds,
    validate,
)
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub


async def issue(stub: AsyncStub, token: str, purpose: str = "payment", seconds: int = 0) -> str:
    request = pb.IssueCompanionTokenRequest(token=token, purpose=purpose, client=VICTIM)
    if seconds:
        request.time_to_live.CopyFrom(Duration(seconds=seconds))
    answer = await stub.IssueCompanionToken(request)
    assert answer.verdict == pb.VERDICT_VALID
    return answer.companion_token


async def pay(stub: AsyncStub, token: str, companion: str) -> pb.ValidateSessionResponse:
    needed = {"companion": {"purpose": "payment", "companion_token": companion}}
    return await validate(stub, token, requirements=needed)


async def denied(stub: AsyncStub, token: str, companion: str) -> bool:
    """Whether the pair does not suffice, and for want of a companion token."""
    answer = await pay(stub, token, companion)
    return answer.verdict == pb.VERDICT_INSUFFICIENT and unmet_kinds(answer) == ["COMPANION_TOKEN"]


async def test_the_right_companion(stub: AsyncStub) -> None:
    """A companion token of the session and the purpose suffices, and writes no event."""
    mine = await create(stub)
    companion = await issue(stub, mine.token)
    assert (await pay(stub, mine.token, companion)).verdict == pb.VERDICT_VALID
    assert kinds(await story_of(stub, mine.token, companion)) == ["SESSION_CREATED"]


@pytest.mark.parametrize("presented", ["", "x", "A" * 96], ids=["none", "short", "made up"])
async def test_a_stolen_session_token_alone(stub: AsyncStub, presented: str) -> None:
    """Without a companion token, or with one that was made up, the page stays shut, and the session lives."""
    mine = await create(stub)
    assert await denied(stub, mine.token, presented)
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
    assert not hijacks(await story_of(stub))


async def test_a_companion_of_another_purpose(stub: AsyncStub) -> None:
    """A companion token for one page opens no other."""
    mine = await create(stub)
    assert await denied(stub, mine.token, await issue(stub, mine.token, "address-book"))


async def test_a_session_token_in_the_companions_place(stub: AsyncStub) -> None:
    """A session token is no companion token."""
    mine = await create(stub)
    assert await denied(stub, mine.token, mine.token)


async def test_a_companion_at_its_deadline(stub: AsyncStub, clock: ManualClock) -> None:
    """A companion token suffices one millisecond before its deadline, and not at it."""
    mine = await create(stub)
    companion = await issue(stub, mine.token, seconds=60)
    clock.advance(MINUTE - 1)
    assert (await pay(stub, mine.token, companion)).verdict == pb.VERDICT_VALID
    clock.advance(1)
    assert await denied(stub, mine.token, companion)


async def test_a_companion_from_before_a_roll(stub: AsyncStub) -> None:
    """A roll makes companion tokens worthless, and a stale one is no theft."""
    mine = await create(stub)
    companion = await issue(stub, mine.token)
    rolled = await roll(stub, mine.token)
    assert await denied(stub, rolled.token, companion)
    assert not hijacks(await story_of(stub))
    assert (await pay(stub, rolled.token, await issue(stub, rolled.token))).verdict == pb.VERDICT_VALID


async def test_a_companion_outlives_a_renewal_but_not_the_session(stub: AsyncStub, clock: ManualClock) -> None:
    """A renewal keeps companion tokens good; the session's end does not."""
    mine = await create(stub)
    for _ in range(3):
        clock.advance(20 * MINUTE)
        renewal = await validate(stub, mine.token)
    companion = await issue(stub, mine.token)
    assert (await pay(stub, renewal.renewed_token, companion)).verdict == pb.VERDICT_VALID
    await stub.RevokeSession(pb.RevokeSessionRequest(session=pb.SessionReference(token=renewal.renewed_token)))
    assert (await pay(stub, renewal.renewed_token, companion)).verdict == pb.VERDICT_REVOKED


async def test_a_stranger_is_given_no_companion(tmp_path: Path, clock: ManualClock) -> None:
    """Under owasp-high a thief's browser gets no companion token for the stolen session token."""
    async with authority(tmp_path, clock, policy("owasp-high")) as (_, stub):
        mine = await create(stub)
        request = pb.IssueCompanionTokenRequest(token=mine.token, purpose="payment", client=ATTACKER)
        refused = await stub.IssueCompanionToken(request)
        assert (refused.verdict, refused.companion_token) == (pb.VERDICT_INSUFFICIENT, "")
        assert not refused.cookies.set_cookie
        assert len(hijacks(await story_of(stub, mine.token))) == 1


async def test_the_answer_tells_when_it_ends(stub: AsyncStub, clock: ManualClock) -> None:
    """Without a wish a companion token is good as long as the policy lets it, and the answer says until when."""
    mine = await create(stub)
    answer = await stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=mine.token, purpose="payment"))
    assert millis(answer.expire_time) == clock.now() + 10 * MINUTE
    clock.advance(10 * MINUTE)
    assert await denied(stub, mine.token, answer.companion_token)
