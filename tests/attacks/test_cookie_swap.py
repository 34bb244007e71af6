"""Cookie swap: cookies of two users are put together."""

from __future__ import annotations

from pathlib import Path

from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import authority, create, hijacks, kinds, policy, signal_types, story_of, unmet_kinds, validate
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub


async def swapped(stub: AsyncStub) -> tuple[pb.CreateSessionResponse, pb.CreateSessionResponse, str]:
    """Sessions of two users, and the companion token of the second."""
    ada, bob = await create(stub, "ada"), await create(stub, "bob")
    request = pb.IssueCompanionTokenRequest(token=bob.token, purpose="payment")
    return ada, bob, (await stub.IssueCompanionToken(request)).companion_token


def needing(companion: str) -> dict[str, object]:
    return {"companion": {"purpose": "payment", "companion_token": companion}}


async def test_cookies_of_two_users_together(tmp_path: Path, clock: ManualClock) -> None:
    """One user's companion with another's session token revokes the session, and the companion's owner goes on."""
    async with authority(tmp_path, clock) as (_, stub):
        ada, bob, companion = await swapped(stub)
        answer = await validate(stub, ada.token, requirements=needing(companion))
        assert (answer.verdict, answer.HasField("session")) == (pb.VERDICT_REVOKED, False)
        assert signal_types(answer) == ["COMPANION_MISMATCH"]
        events = await story_of(stub, ada.token, bob.token, companion)
        assert kinds(events) == ["SESSION_CREATED", "SESSION_CREATED", "HIJACK_SUSPECTED", "SESSION_REVOKED"]
        assert (events[2].subject, events[2].reaction) == ("ada", pb.REACTION_REVOKE_SESSION)
        (signal,) = events[2].signals
        assert signal.expected == ada.session.session_id
        assert bob.session.session_id in signal.seen
        assert (await validate(stub, ada.token)).verdict == pb.VERDICT_REVOKED
        own = await validate(stub, bob.token, requirements=needing(companion))
        assert own.verdict == pb.VERDICT_VALID


async def test_under_alert_the_swap_is_denied_and_told_once(tmp_path: Path, clock: ManualClock) -> None:
    """Under `alert` the swapped pair never suffices, is told once, and the session lives."""
    rules = policy(reactions={SignalType.COMPANION_MISMATCH: Reaction.ALERT})
    async with authority(tmp_path, clock, rules) as (_, stub):
        ada, _bob, companion = await swapped(stub)
        for _ in range(10):
            answer = await validate(stub, ada.token, requirements=needing(companion))
            assert (answer.verdict, unmet_kinds(answer)) == (pb.VERDICT_INSUFFICIENT, ["COMPANION_TOKEN"])
        (alarm,) = hijacks(await story_of(stub, companion))
        assert alarm.reaction == pb.REACTION_ALERT
        assert (await validate(stub, ada.token)).verdict == pb.VERDICT_VALID


async def test_a_companion_that_nobody_asked_for_proves_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """A companion token is no session token: alone it is never valid."""
    async with authority(tmp_path, clock) as (_, stub):
        _ada, _bob, companion = await swapped(stub)
        assert (await validate(stub, companion)).verdict == pb.VERDICT_MALFORMED


async def test_a_companion_from_another_application(tmp_path: Path, clock: ManualClock) -> None:
    """A companion token of another application's session is not enough, and no signal: hosts share cookies."""
    async with authority(tmp_path, clock, extra={"shop": policy()}) as (_, stub):
        mine, other = await create(stub, "ada"), await create(stub, "bob", application="shop")
        request = pb.IssueCompanionTokenRequest(application="shop", token=other.token, purpose="payment")
        companion = (await stub.IssueCompanionToken(request)).companion_token
        answer = await validate(stub, mine.token, requirements=needing(companion))
        assert (answer.verdict, signal_types(answer)) == (pb.VERDICT_INSUFFICIENT, [])
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID


async def test_a_companion_left_over_from_the_users_last_session(tmp_path: Path, clock: ManualClock) -> None:
    """A companion cookie from an earlier session of the same user, ended or not, is not enough, and no signal."""
    async with authority(tmp_path, clock) as (_, stub):
        before, mine = await create(stub, "ada"), await create(stub, "ada")
        request = pb.IssueCompanionTokenRequest(token=before.token, purpose="payment")
        companion = (await stub.IssueCompanionToken(request)).companion_token
        for _ in range(2):
            answer = await validate(stub, mine.token, requirements=needing(companion))
            assert (answer.verdict, signal_types(answer)) == (pb.VERDICT_INSUFFICIENT, [])
            await stub.RevokeSession(pb.RevokeSessionRequest(session=pb.SessionReference(token=before.token)))
