"""A login gives its first answer again: what that is worth to a thief who knows the guest's token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    SECOND,
    authority,
    create,
    fresh_id,
    hijacks,
    login,
    loose,
    policy,
    signal_types,
    story_of,
    validate,
)
from tests.rpc.refusals import refusal_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

SUBJECT = "ada@shop.example"  # no text of base64url could be taken for it
PIN = {"pin": b"4711!"}
WAITS = [0, 1, 20 * SECOND - 1, 20 * SECOND, 60 * SECOND - 1, 60 * SECOND]
waits = pytest.mark.parametrize("wait", WAITS)


@pytest.fixture
async def stub(tmp_path: Path, clock: ManualClock) -> AsyncIterator[AsyncStub]:
    """A client of an authority."""
    async with authority(tmp_path, clock, policy(), extra={"shop": policy()}) as (_, stub):
        yield stub


async def victim_of(stub: AsyncStub, request_id: str = "") -> tuple[str, pb.AuthenticateSessionResponse]:
    """A token that the thief planted, and the victim's login with it, who has then put in something private."""
    planted = (await create(stub, "", client=ATTACKER)).token
    own = await login(stub, planted, SUBJECT, or_create=True, request_id=request_id)
    named = {"session_id": own.session.session_id}
    await stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set=PIN))
    return planted, own


def check_worthless(answer: Any, own: pb.AuthenticateSessionResponse) -> None:
    """Nothing of the victim's is in an answer: no token, no session, no data."""
    raw = answer.SerializeToString()
    secrets = (own.token, own.csrf_token, own.session.session_id, SUBJECT, "4711!")
    assert not [secret for secret in secrets if secret.encode() in raw]


@waits
@pytest.mark.parametrize("with_id", [False, True])
async def test_the_thief_repeats_the_login_as_himself(
    stub: AsyncStub, clock: ManualClock, wait: int, with_id: bool
) -> None:
    """With the planted token and credentials of his own the thief gets a session of his own, and nothing else."""
    planted, own = await victim_of(stub)
    clock.advance(wait)
    request_id = fresh_id() if with_id else ""
    answer = await login(stub, planted, "mallory", ATTACKER, or_create=True, request_id=request_id)
    assert (answer.verdict, answer.created, answer.session.subject) == (pb.VERDICT_VALID, True, "mallory")
    check_worthless(answer, own)
    assert (await validate(stub, answer.token, ATTACKER, data={})).data.values == {}
    denied = await login(stub, planted, "mallory", ATTACKER, authentication={"level": 2})
    assert denied.verdict in (pb.VERDICT_SUPERSEDED, pb.VERDICT_REPLAYED, pb.VERDICT_REVOKED)
    check_worthless(denied, own)


@pytest.mark.parametrize("victims_id", [False, True])
@pytest.mark.parametrize("used", [False, True])
@waits
async def test_the_thief_without_credentials(
    stub: AsyncStub, clock: ManualClock, wait: int, used: bool, victims_id: bool
) -> None:
    """With the planted token alone no call gives anything of the victim's, soon or late, nor changes it unnoticed."""
    planted, own = await victim_of(stub, fresh_id() if victims_id else "")
    if used:
        clock.advance(1)
        assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID
    clock.advance(max(0, wait - used))
    in_flight = wait < 20 * SECOND
    by_token = {"token": planted}
    validation = {"token": planted, "client": ATTACKER, "data": {}, "with_csrf_token": True}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("ValidateSession", validation),
        ("ValidateSession", {**validation, "passive": True}),
        ("ValidateSessions", {"requests": [validation, validation]}),
        ("RollSession", {"token": planted}),
        ("RefreshSession", {"token": planted}),
        ("GetSession", {"session": by_token}),
        ("GetSessionData", {"session": by_token}),
        ("UpdateSessionData", {"session": by_token, "set": {"a": b"1"}, "data": {}}),
        ("IssueCompanionToken", {"token": planted, "purpose": "pay"}),
        ("ReportSignal", {"session": by_token, "reason": "odd"}),
        ("RevokeSession", {"session": by_token}),
        ("RevokeSession", {"session": by_token, "open_anonymous": True}),
    ]
    denials = [pb.VERDICT_SUPERSEDED] if in_flight else [pb.VERDICT_REPLAYED, pb.VERDICT_REVOKED]
    for name, fields in requests:
        for request_id in ("", fresh_id()):
            request = getattr(loose, name + "Request")(**fields)
            if "request_id" in request.DESCRIPTOR.fields_by_name:
                request.request_id = request_id
            answer = await getattr(stub, name)(request)
            for one in getattr(answer, "responses", [answer]):
                assert one.verdict in denials, name
                check_worthless(one, own)
    page = await validate(stub, own.token, data={})
    if in_flight:
        assert (page.verdict, dict(page.data.values)) == (pb.VERDICT_VALID, PIN)
    else:  # the alarm: see test_fixation
        assert page.verdict == pb.VERDICT_REVOKED
        assert len(hijacks(await story_of(stub, planted, own.token))) == 1


@pytest.mark.parametrize("used", [False, True], ids=["not used yet", "used"])
async def test_a_late_repeat_helps_no_thief_with_the_old_token(stub: AsyncStub, clock: ManualClock, used: bool) -> None:
    """After the victim's late repeat the planted token is denied, and after `roll_tolerance` the second of the two
    holders is the alarm that ends the session, as after any roll.
    """
    planted, own = await victim_of(stub)
    clock.advance(30 * SECOND)
    assert (await login(stub, planted, SUBJECT, or_create=True)).token == own.token
    clock.advance(1)
    if used:
        assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID
    clock.advance(20 * SECOND - 2)
    thief = await validate(stub, planted, ATTACKER, data={})
    assert thief.verdict == pb.VERDICT_SUPERSEDED
    check_worthless(thief, own)
    clock.advance(1)
    thief = await validate(stub, planted, ATTACKER, data={})
    assert (thief.verdict, signal_types(thief)) == (pb.VERDICT_REPLAYED, ["TOKEN_REPLAY"] if used else [])
    check_worthless(thief, own)
    assert (await validate(stub, own.token)).verdict == pb.VERDICT_REVOKED
    assert len(hijacks(await story_of(stub, planted, own.token))) == 1


async def test_a_late_repeat_helps_no_thief_with_the_new_token(stub: AsyncStub, clock: ManualClock) -> None:
    """A thief who intercepted the first answer has the new token as before: beside it the old one is an alarm again
    once `roll_tolerance` has passed since the repeat.
    """
    guest = (await create(stub, "")).token
    stolen = (await login(stub, guest, SUBJECT)).token
    clock.advance(1)
    assert (await validate(stub, stolen, ATTACKER)).verdict == pb.VERDICT_VALID
    clock.advance(30 * SECOND)
    assert (await login(stub, guest, SUBJECT)).token == stolen
    assert (await validate(stub, guest)).verdict == pb.VERDICT_SUPERSEDED
    clock.advance(1)
    assert (await validate(stub, stolen, ATTACKER)).verdict == pb.VERDICT_VALID
    clock.advance(20 * SECOND - 1)
    page = await validate(stub, guest)
    assert (page.verdict, signal_types(page)) == (pb.VERDICT_REPLAYED, ["TOKEN_REPLAY"])
    assert (await validate(stub, stolen, ATTACKER)).verdict == pb.VERDICT_REVOKED


async def test_the_first_answer_needs_the_victims_subject(stub: AsyncStub, clock: ManualClock) -> None:
    """Each part of a login counts: application, subject, level and methods, or it is not the victim's login."""
    planted = (await create(stub, "", client=ATTACKER)).token
    own = await login(stub, planted, authentication={"level": 2, "methods": ["pwd", "otp"]}, or_create=True)
    others: list[dict[str, Any]] = [
        {"subject": "mallory", "authentication": {"level": 2, "methods": ["pwd", "otp"]}},
        {"subject": "ad", "authentication": {"level": 2, "methods": ["apwd", "otp"]}},
        {"authentication": {"level": 1, "methods": ["pwd", "otp"]}},
        {"authentication": {"level": 2, "methods": ["pwdotp"]}},
        {"application": "shop", "authentication": {"level": 2, "methods": ["pwd", "otp"]}},
    ]
    for other in others:
        answer = await login(stub, planted, client=ATTACKER, or_create=True, **other)
        assert answer.created
        assert answer.token != own.token
        assert answer.session.session_id != own.session.session_id


async def test_a_thief_who_logs_in_first_gets_no_victim(stub: AsyncStub, clock: ManualClock) -> None:
    """The thief binds the guest's session to himself: the victim's login then opens a session of its own."""
    guest = await create(stub, "", data={"cart": b"3 apples"})
    thief = await login(stub, guest.token, "mallory", ATTACKER)
    assert (await login(stub, guest.token)).verdict == pb.VERDICT_SUPERSEDED
    own = await login(stub, guest.token, or_create=True)
    assert (own.created, own.session.subject) == (True, "ada")
    assert own.session.session_id != thief.session.session_id
    assert (await login(stub, guest.token, "mallory", ATTACKER)).token == thief.token
    page = await validate(stub, own.token, data={})
    assert (page.session.subject, dict(page.data.values)) == ("ada", {})


async def test_the_victims_session_is_not_ended_by_the_planted_token(stub: AsyncStub, clock: ManualClock) -> None:
    """The planted token does not prove the victim's session, so another subject's login with it does not end that."""
    planted, own = await victim_of(stub)
    await login(stub, planted, "mallory", ATTACKER, or_create=True)
    assert (await session_of(stub, own.session.session_id)).state == pb.SESSION_STATE_ACTIVE
    clock.advance(1)
    assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID


async def test_a_stolen_request_id_opens_nothing(stub: AsyncStub) -> None:
    """Also with the victim's request id a login as somebody else is refused by name, and tells nothing."""
    request_id = fresh_id()
    planted, own = await victim_of(stub, request_id)
    refused = await refusal_of(login(stub, planted, "mallory", ATTACKER, or_create=True, request_id=request_id))
    assert refused.fields == ["request_id"]
    assert own.token not in refused.message
    forged = await login(stub, "A" * 70, "mallory", ATTACKER, request_id=request_id)
    assert (forged.verdict, forged.token) == (pb.VERDICT_FORGED, "")


async def test_events_tell_no_token_of_a_repeated_login(stub: AsyncStub) -> None:
    """The first answer, given again, leaves no trace of a token in the log."""
    planted, own = await victim_of(stub)
    assert (await login(stub, planted, SUBJECT)).token == own.token
    assert await story_of(stub, planted, own.token)
