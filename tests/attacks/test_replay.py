"""Replay: a token that the chain has left behind is presented again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sessiond.authority.results import AnswerSpec
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Caller
from sessiond.domain.login import Login
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import ClientContext
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    HOUR,
    MINUTE,
    SECOND,
    authority,
    create,
    hijacks,
    kinds,
    login,
    policy,
    roll,
    signal_types,
    story_of,
    validate,
)
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

ALERT = policy(reactions={SignalType.TOKEN_REPLAY: Reaction.ALERT})


async def renewed_away(stub: AsyncStub, clock: ManualClock) -> tuple[str, str]:
    """A token that was stolen, and the one that the honest client has after a renewal."""
    stolen = (await create(stub)).token
    for _ in range(3):
        clock.advance(20 * MINUTE)
        answer = await validate(stub, stolen)
    assert answer.next_step == pb.NEXT_STEP_REPLACE_TOKEN
    used = await validate(stub, answer.renewed_token)
    assert (used.verdict, used.session.generation) == (pb.VERDICT_VALID, 1)
    return stolen, answer.renewed_token


async def rolled_away(stub: AsyncStub, clock: ManualClock) -> tuple[str, str]:
    """A token that was stolen, and the one that the honest client has after a roll, and has used."""
    stolen = (await create(stub)).token
    own = (await roll(stub, stolen)).token
    clock.advance(1)
    assert (await validate(stub, own)).verdict == pb.VERDICT_VALID
    return stolen, own


async def test_a_renewed_token_comes_back(tmp_path: Path, clock: ManualClock) -> None:
    """A token from before a renewal counts in the overlap; at its end it raises the alarm and ends the session."""
    async with authority(tmp_path, clock) as (_, stub):
        stolen, own = await renewed_away(stub, clock)
        clock.advance(MINUTE - 1)
        healed = await validate(stub, stolen)
        assert (healed.verdict, healed.renewed_token) == (pb.VERDICT_VALID, own)
        clock.advance(1)
        replayed = await validate(stub, stolen, ATTACKER)
        assert (replayed.verdict, replayed.renewed_token) == (pb.VERDICT_REPLAYED, "")
        assert signal_types(replayed) == ["TOKEN_REPLAY"]
        events = await story_of(stub, stolen, own)
        assert kinds(events) == ["SESSION_CREATED", "SESSION_RENEWED", "HIJACK_SUSPECTED", "SESSION_REVOKED"]
        (signal,) = events[2].signals
        assert (signal.expected, signal.seen) == ("generation 1", "generation 0")
        assert events[2].reaction == pb.REACTION_REVOKE_SESSION
        assert (events[3].cause.kind, events[3].cause.actor) == (pb.CAUSE_KIND_SIGNAL, "authority")
        assert (await validate(stub, own)).verdict == pb.VERDICT_REVOKED
        assert (await validate(stub, stolen, ATTACKER)).verdict == pb.VERDICT_REVOKED
        assert len(await story_of(stub)) == len(events)


async def test_a_rolled_token_comes_back(tmp_path: Path, clock: ManualClock) -> None:
    """A token from before a roll is denied without alarm in the tolerance, and with it from its end on."""
    async with authority(tmp_path, clock) as (_, stub):
        stolen, own = await rolled_away(stub, clock)
        clock.advance(20 * SECOND - 2)
        assert (await validate(stub, stolen, ATTACKER)).verdict == pb.VERDICT_SUPERSEDED
        clock.advance(1)
        assert (await validate(stub, stolen, ATTACKER)).verdict == pb.VERDICT_REPLAYED
        events = await story_of(stub, stolen, own)
        assert kinds(events) == ["SESSION_CREATED", "SESSION_ROLLED", "HIJACK_SUSPECTED", "SESSION_REVOKED"]
        (signal,) = events[2].signals
        assert (signal.expected, signal.seen) == ("generation 1", "generation 0, rolled away")
        assert (await validate(stub, own)).verdict == pb.VERDICT_REVOKED


async def test_a_lost_answer_is_no_alarm(tmp_path: Path, clock: ManualClock) -> None:
    """Where nobody has used the new token, its answer may be lost: the old one is denied, but told of only later."""
    async with authority(tmp_path, clock) as (_, stub):
        old = (await create(stub)).token
        new = (await roll(stub, old)).token
        for wait in (20 * SECOND, 40 * SECOND - 1):
            clock.advance(wait)
            answer = await validate(stub, old)
            assert (answer.verdict, answer.next_step) == (pb.VERDICT_REPLAYED, pb.NEXT_STEP_KEEP_TOKEN)
            assert (answer.renewed_token, signal_types(answer)) == ("", [])
            for refused in (await login(stub, old), await stub.RollSession(pb.RollSessionRequest(token=old))):
                assert (refused.verdict, refused.token) == (pb.VERDICT_REPLAYED, "")
        told = ["SESSION_CREATED", "SESSION_ROLLED", "OLD_TOKEN_PRESENTED"]  # once, however often it comes back
        assert kinds(await story_of(stub, old, new)) == told
        clock.advance(1)
        assert signal_types(await validate(stub, old, ATTACKER)) == ["TOKEN_REPLAY"]
        assert kinds(await story_of(stub, old, new)) == [*told, "HIJACK_SUSPECTED", "SESSION_REVOKED"]


async def _by_validation(stub: AsyncStub, token: str) -> int:
    return (await validate(stub, token)).verdict


async def _by_roll(stub: AsyncStub, token: str) -> int:
    return (await stub.RollSession(pb.RollSessionRequest(token=token))).verdict


async def _by_login(stub: AsyncStub, token: str) -> int:
    return (await login(stub, token)).verdict


@pytest.mark.parametrize("comes_back", [_by_validation, _by_roll, _by_login])
async def test_a_thief_who_rolls_and_waits(
    tmp_path: Path, clock: ManualClock, comes_back: Callable[[AsyncStub, str], Awaitable[int]]
) -> None:
    """Where the old token came back and the new one is used after that, two hold it: the alarm, and the end."""
    async with authority(tmp_path, clock) as (_, stub):
        victims = (await create(stub)).token
        thiefs = (await roll(stub, victims)).token  # as the victim would: no other signal gives it away
        clock.advance(30 * SECOND)
        assert await comes_back(stub, victims) == pb.VERDICT_REPLAYED
        told = ["SESSION_CREATED", "SESSION_ROLLED", "OLD_TOKEN_PRESENTED"]
        assert kinds(await story_of(stub, victims, thiefs)) == told
        clock.advance(10 * MINUTE)
        used = await validate(stub, thiefs)
        assert (used.verdict, signal_types(used)) == (pb.VERDICT_REVOKED, ["TOKEN_REPLAY"])
        events = await story_of(stub, victims, thiefs)
        assert kinds(events) == [*told, "HIJACK_SUSPECTED", "SESSION_REVOKED"]
        (replay,) = events[3].signals
        assert (replay.expected, replay.seen) == ("generation 1", "generation 0, rolled away")


@pytest.mark.parametrize("change", ["roll", "refresh", "data", "batch", "passive"])
async def test_a_thief_who_rolls_and_uses_it_otherwise(tmp_path: Path, clock: ManualClock, change: str) -> None:
    """Whatever the new token is used for then, it changes nothing and gives nothing."""
    async with authority(tmp_path, clock) as (_, stub):
        victims = (await create(stub)).token
        thiefs = (await roll(stub, victims)).token
        clock.advance(30 * SECOND)
        await validate(stub, victims)
        asked = pb.ValidateSessionRequest(token=thiefs, passive=change == "passive")
        named = pb.SessionReference(token=thiefs)
        match change:
            case "roll":
                verdict = (await stub.RollSession(pb.RollSessionRequest(token=thiefs))).verdict
            case "refresh":
                verdict = (await stub.RefreshSession(pb.RefreshSessionRequest(token=thiefs))).verdict
            case "data":
                request = pb.UpdateSessionDataRequest(session=named, set={"a": b"1"})
                verdict = (await stub.UpdateSessionData(request)).verdict
            case "batch":
                answer = await stub.ValidateSessions(pb.ValidateSessionsRequest(requests=[asked]))
                verdict = answer.responses[0].verdict
            case _:
                verdict = (await stub.ValidateSession(asked)).verdict
        assert verdict == pb.VERDICT_REVOKED
        assert kinds(await story_of(stub))[2:] == ["OLD_TOKEN_PRESENTED", "HIJACK_SUSPECTED", "SESSION_REVOKED"]


async def test_an_old_token_that_came_back_survives_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """The second of two holders is an alarm even if the authority restarted between them."""
    async with authority(tmp_path, clock) as (_, stub):
        victims = (await create(stub)).token
        thiefs = (await roll(stub, victims)).token
        clock.advance(30 * SECOND)
        assert (await validate(stub, victims)).verdict == pb.VERDICT_REPLAYED
    async with authority(tmp_path, clock) as (_, stub):
        used = await validate(stub, thiefs)
        assert (used.verdict, signal_types(used)) == (pb.VERDICT_REVOKED, ["TOKEN_REPLAY"])


async def test_who_authenticates_on_it_is_the_subject(tmp_path: Path, clock: ManualClock) -> None:
    """The subject may go on with the new token by proving who it is, and is not suspected after that."""
    async with authority(tmp_path, clock) as (_, stub):
        old = (await create(stub)).token
        new = (await roll(stub, old)).token
        clock.advance(30 * SECOND)
        await validate(stub, old)
        own = await login(stub, new)
        assert (await validate(stub, own.token)).next_step == pb.NEXT_STEP_PROCEED
        assert not hijacks(await story_of(stub))


async def test_under_alert_two_holders_are_told_of_once(tmp_path: Path, clock: ManualClock) -> None:
    """Where the policy only alerts, the new token goes on, and a hundred uses of it are one alarm."""
    async with authority(tmp_path, clock, ALERT) as (_, stub):
        old = (await create(stub)).token
        new = (await roll(stub, old)).token
        clock.advance(30 * SECOND)
        await validate(stub, old)
        verdicts = {(await validate(stub, new)).verdict for _ in range(100)}
        assert verdicts == {pb.VERDICT_VALID}
        assert len(hijacks(await story_of(stub))) == 1


async def test_an_application_that_asks_for_a_companion_token(tmp_path: Path, clock: ManualClock) -> None:
    """A companion token that the application asks for with the login is no use of the new token by its client."""
    async with authority(tmp_path, clock) as (_, stub):
        old = (await create(stub)).token
        own = await login(stub, old)
        clock.advance(3)
        given = await stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=own.token, purpose="payment"))
        assert given.verdict == pb.VERDICT_VALID
        clock.advance(30 * SECOND)
        assert signal_types(await validate(stub, old)) == []


async def test_a_token_from_before_the_last_roll_has_no_tolerance(tmp_path: Path, clock: ManualClock) -> None:
    """Of two rolls in a row only the last one's token is a request in flight; the one before is a replay at once."""
    async with authority(tmp_path, clock, ALERT) as (_, stub):
        first, second = await rolled_away(stub, clock)
        third = (await roll(stub, second)).token
        assert (await validate(stub, second)).verdict == pb.VERDICT_SUPERSEDED
        assert (await validate(stub, first)).verdict == pb.VERDICT_REPLAYED
        assert len(hijacks(await story_of(stub, first, second, third))) == 1


@pytest.mark.parametrize("away", [renewed_away, rolled_away], ids=["renewed", "rolled"])
async def test_a_hundred_replays_are_one_alarm(tmp_path: Path, clock: ManualClock, away: object) -> None:
    """Under `alert` a hundred replays within the window are one event, each is denied, and the owner goes on."""
    assert callable(away)
    async with authority(tmp_path, clock, ALERT) as (_, stub):
        stolen, own = await away(stub, clock)
        clock.advance(MINUTE)
        answers = await asyncio.gather(*(validate(stub, stolen, ATTACKER) for _ in range(100)))
        assert {answer.verdict for answer in answers} == {pb.VERDICT_REPLAYED}
        (alarm,) = hijacks(await story_of(stub, stolen, own))
        assert (alarm.reaction, alarm.subject) == (pb.REACTION_ALERT, "ada")
        assert (await validate(stub, own)).verdict == pb.VERDICT_VALID
        history = await stub.ListActivity(pb.ListActivityRequest(subject="ada"))
        assert kinds(history.events).count("HIJACK_SUSPECTED") == 1


async def test_replays_are_told_again_after_the_window(tmp_path: Path, clock: ManualClock) -> None:
    """Folding ends with its window: the next replay is another event."""
    rules = policy(reactions={SignalType.TOKEN_REPLAY: Reaction.ALERT}, idle_timeout=2 * HOUR)
    async with authority(tmp_path, clock, rules) as (_, stub):
        stolen, _own = await rolled_away(stub, clock)
        clock.advance(MINUTE)
        await validate(stub, stolen)
        clock.advance(HOUR - 1)
        await validate(stub, stolen)
        assert len(hijacks(await story_of(stub))) == 1
        clock.advance(1)
        await validate(stub, stolen)
        assert len(hijacks(await story_of(stub))) == 2


async def test_a_login_whose_caller_hung_up_before_it_began(tmp_path: Path, clock: ManualClock) -> None:
    """A login that nobody waits for any more before it is carried out changes nothing, and folding goes on."""
    async with authority(tmp_path, clock, ALERT) as (app, stub):
        stolen, own = await rolled_away(stub, clock)
        clock.advance(MINUTE)
        await validate(stub, stolen)
        call = app.authority.call("default", Caller("test"), ClientContext())
        login_of_ada = app.authority.logins.authenticate(
            call, Token(own), Login("ada", 1, ("pwd",)), AnswerSpec(lambda changed: b"")
        )
        calling = asyncio.create_task(login_of_ada)
        await asyncio.sleep(0)  # by now the login is with the journal
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await create(stub, "bob")  # its commit would come after the login's
        await validate(stub, stolen)
        told = [kind for kind in kinds(await story_of(stub, stolen, own)) if kind != "SESSION_CREATED"]
        assert told == ["SESSION_ROLLED", "HIJACK_SUSPECTED"]
        assert (await validate(stub, own)).verdict == pb.VERDICT_VALID


async def test_a_replay_through_a_change_is_the_same_alarm(tmp_path: Path, clock: ManualClock) -> None:
    """An old token handed in for a change changes nothing, and is folded with the replays by validation."""
    async with authority(tmp_path, clock, ALERT) as (_, stub):
        stolen, own = await rolled_away(stub, clock)
        clock.advance(MINUTE)
        named = pb.SessionReference(token=stolen)
        verdicts = [
            (await login(stub, stolen, client=ATTACKER)).verdict,
            (await stub.RollSession(pb.RollSessionRequest(token=stolen))).verdict,
            (await stub.RefreshSession(pb.RefreshSessionRequest(token=stolen))).verdict,
            (await stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=named, set={"a": b"1"}))).verdict,
            (await stub.GetSessionData(pb.GetSessionDataRequest(session=named))).verdict,
            (await stub.RevokeSession(pb.RevokeSessionRequest(session=named))).verdict,
            (await stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=stolen, purpose="p"))).verdict,
            (await validate(stub, stolen, ATTACKER)).verdict,
        ]
        assert verdicts == [pb.VERDICT_REPLAYED] * len(verdicts)
        assert kinds(await story_of(stub, stolen, own)) == ["SESSION_CREATED", "SESSION_ROLLED", "HIJACK_SUSPECTED"]
        assert (await validate(stub, own)).verdict == pb.VERDICT_VALID


async def test_a_replay_may_end_all_of_the_subject(tmp_path: Path, clock: ManualClock) -> None:
    """Under `revoke-subject` a replay ends every session of the subject, and no one else's."""
    rules = policy(reactions={SignalType.TOKEN_REPLAY: Reaction.REVOKE_SUBJECT})
    async with authority(tmp_path, clock, rules) as (_, stub):
        stolen, own = await rolled_away(stub, clock)
        phone, bob = await create(stub), await create(stub, "bob")
        clock.advance(MINUTE)
        assert (await validate(stub, stolen, ATTACKER)).verdict == pb.VERDICT_REPLAYED
        verdicts = [(await validate(stub, token)).verdict for token in (own, phone.token, bob.token)]
        assert verdicts == [pb.VERDICT_REVOKED, pb.VERDICT_REVOKED, pb.VERDICT_VALID]
        events = await story_of(stub, stolen, own)
        assert kinds(events)[4:] == ["HIJACK_SUSPECTED", "SESSION_REVOKED", "SESSION_REVOKED"]
        assert events[4].reaction == pb.REACTION_REVOKE_SUBJECT


async def test_a_replay_may_ask_for_a_step_up(tmp_path: Path, clock: ManualClock) -> None:
    """Under `step-up` a replay leaves nobody a token that suffices, and authentication gives one again."""
    rules = policy(reactions={SignalType.TOKEN_REPLAY: Reaction.STEP_UP})
    async with authority(tmp_path, clock, rules) as (_, stub):
        stolen, own = await rolled_away(stub, clock)
        clock.advance(MINUTE)
        assert (await validate(stub, stolen, ATTACKER)).verdict == pb.VERDICT_REPLAYED
        denied = await validate(stub, own)
        assert (denied.verdict, denied.next_step) == (pb.VERDICT_INSUFFICIENT, pb.NEXT_STEP_STEP_UP)
        again = await login(stub, own)
        assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID
