"""CSRF: another site has the victim's browser send a request, with its cookie but without the page's secret."""

from __future__ import annotations

import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import MINUTE, create, kinds, login, roll, story_of, unmet_kinds, validate
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub


def with_csrf(text: str) -> dict[str, object]:
    return {"csrf": {"csrf_token": text}}


@pytest.mark.parametrize("presented", ["", "x", "é" * 43, "A" * 43], ids=["none", "short", "not ASCII", "made up"])
async def test_a_forged_request(stub: AsyncStub, presented: str) -> None:
    """A request without the session's CSRF token is denied, told as no theft, and the session goes on."""
    mine = await create(stub)
    answer = await validate(stub, mine.token, requirements=with_csrf(presented))
    assert (answer.verdict, unmet_kinds(answer)) == (pb.VERDICT_INSUFFICIENT, ["CSRF_TOKEN"])
    assert answer.next_step == pb.NEXT_STEP_KEEP_TOKEN
    assert answer.unmet[0].remedy
    assert answer.csrf_token == ""
    good = await validate(stub, mine.token, requirements=with_csrf(mine.csrf_token))
    assert (good.verdict, good.next_step) == (pb.VERDICT_VALID, pb.NEXT_STEP_PROCEED)
    assert kinds(await story_of(stub, mine.token, mine.csrf_token)) == ["SESSION_CREATED"]


async def test_the_attackers_own_csrf_token(stub: AsyncStub) -> None:
    """A CSRF token of the attacker's own session is worth nothing in the victim's, of the same subject or another."""
    mine = await create(stub)
    for subject in ("mallory", "ada"):
        theirs = await create(stub, subject)
        assert theirs.csrf_token != mine.csrf_token
        answer = await validate(stub, mine.token, requirements=with_csrf(theirs.csrf_token))
        assert (answer.verdict, unmet_kinds(answer)) == (pb.VERDICT_INSUFFICIENT, ["CSRF_TOKEN"])


async def test_a_csrf_token_from_before_the_login(stub: AsyncStub) -> None:
    """Login and roll make another CSRF token; the ones from before fail at once, the newest passes."""
    guest = await create(stub, "")
    own = await login(stub, guest.token)
    rolled = await roll(stub, own.token)
    assert len({guest.csrf_token, own.csrf_token, rolled.csrf_token}) == 3
    for old in (guest.csrf_token, own.csrf_token):
        answer = await validate(stub, rolled.token, requirements=with_csrf(old))
        assert (answer.verdict, unmet_kinds(answer)) == (pb.VERDICT_INSUFFICIENT, ["CSRF_TOKEN"])
    answer = await validate(stub, rolled.token, requirements=with_csrf(rolled.csrf_token), with_csrf_token=True)
    assert (answer.verdict, answer.csrf_token) == (pb.VERDICT_VALID, rolled.csrf_token)


async def test_a_csrf_token_outlives_a_renewal(stub: AsyncStub, clock: ManualClock) -> None:
    """A page that is open while the token is renewed can still be sent."""
    mine = await create(stub)
    for _ in range(3):
        clock.advance(20 * MINUTE)
        renewal = await validate(stub, mine.token)
    answer = await validate(stub, renewal.renewed_token, requirements=with_csrf(mine.csrf_token))
    assert (answer.verdict, answer.session.generation) == (pb.VERDICT_VALID, 1)


async def test_forged_requests_are_no_activity(stub: AsyncStub, clock: ManualClock) -> None:
    """Another site cannot keep a session from going idle; requests with the CSRF token do."""
    victim, busy = await create(stub), await create(stub, "bob")
    for _ in range(3):
        clock.advance(10 * MINUTE - 1)
        denied = await validate(stub, victim.token, requirements=with_csrf(""))
        assert denied.verdict == pb.VERDICT_INSUFFICIENT
        assert denied.session.last_active_time == victim.session.last_active_time
        good = await validate(stub, busy.token, requirements=with_csrf(busy.csrf_token))
        assert good.verdict == pb.VERDICT_VALID
    clock.advance(3)
    assert (await validate(stub, victim.token)).verdict == pb.VERDICT_EXPIRED_IDLE
    assert (await validate(stub, busy.token)).verdict == pb.VERDICT_VALID
