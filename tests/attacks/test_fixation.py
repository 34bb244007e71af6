"""Fixation: the attacker plants a token of his own before the victim logs in."""

from __future__ import annotations

from pathlib import Path

import grpc

from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    SECOND,
    VICTIM,
    authority,
    create,
    hijacks,
    kinds,
    login,
    policy,
    signal_types,
    story_of,
    validate,
)
from tests.rpc.refusals import refusal_of
from tests.support.clock import ManualClock


async def test_a_planted_token_is_worthless_after_the_login(tmp_path: Path, clock: ManualClock) -> None:
    """Login kills the planted token at once; presented after the tolerance it raises the alarm and ends the session."""
    async with authority(tmp_path, clock) as (_, stub):
        planted = await create(stub, "", client=ATTACKER)
        assert (await validate(stub, planted.token, ATTACKER)).verdict == pb.VERDICT_VALID
        own = await login(stub, planted.token)
        assert own.verdict == pb.VERDICT_VALID
        assert own.session.session_id == planted.session.session_id
        assert own.token != planted.token
        assert own.csrf_token != planted.csrf_token

        at_once = await validate(stub, planted.token, ATTACKER)
        assert (at_once.verdict, at_once.HasField("session")) == (pb.VERDICT_SUPERSEDED, False)
        assert (at_once.renewed_token, at_once.csrf_token, list(at_once.signals)) == ("", "", [])
        clock.advance(20 * SECOND - 1)
        assert (await validate(stub, planted.token, ATTACKER)).verdict == pb.VERDICT_SUPERSEDED
        assert not hijacks(await story_of(stub))
        assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID

        clock.advance(1)
        later = await validate(stub, planted.token, ATTACKER)
        assert (later.verdict, later.HasField("session")) == (pb.VERDICT_REPLAYED, False)
        assert later.next_step == pb.NEXT_STEP_DISCARD_TOKEN
        events = await story_of(stub, planted.token, own.token)
        assert kinds(events) == [
            "SESSION_CREATED",
            "SESSION_AUTHENTICATED",
            "SESSION_ROLLED",
            "HIJACK_SUSPECTED",
            "SESSION_REVOKED",
        ]
        alarm = events[3]
        assert signal_types(alarm) == ["TOKEN_REPLAY"]
        assert (alarm.subject, alarm.reaction) == ("ada", pb.REACTION_REVOKE_SESSION)
        assert alarm.client.ip_address == ATTACKER.ip_address
        assert (await validate(stub, own.token)).verdict == pb.VERDICT_REVOKED


async def test_a_planted_token_cannot_be_used_for_a_change(tmp_path: Path, clock: ManualClock) -> None:
    """No change that a token names goes through with the planted one after the login."""
    async with authority(tmp_path, clock) as (_, stub):
        planted = await create(stub, "", client=ATTACKER, data={"cart": b"1"})
        own = await login(stub, planted.token)
        named = pb.SessionReference(token=planted.token)
        verdicts = [
            (await login(stub, planted.token, "mallory", ATTACKER)).verdict,
            (await stub.RollSession(pb.RollSessionRequest(token=planted.token))).verdict,
            (await stub.RefreshSession(pb.RefreshSessionRequest(token=planted.token))).verdict,
            (await stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=named, set={"cart": b"9"}))).verdict,
            (await stub.GetSessionData(pb.GetSessionDataRequest(session=named))).verdict,
            (await stub.GetSession(pb.GetSessionRequest(session=named))).verdict,
            (await stub.IssueCompanionToken(pb.IssueCompanionTokenRequest(token=planted.token, purpose="p"))).verdict,
            (await stub.RevokeSession(pb.RevokeSessionRequest(session=named))).verdict,
            (await stub.ReportSignal(pb.ReportSignalRequest(session=named))).verdict,
        ]
        assert verdicts == [pb.VERDICT_SUPERSEDED] * len(verdicts)
        assert kinds(await story_of(stub)) == ["SESSION_CREATED", "SESSION_AUTHENTICATED", "SESSION_ROLLED"]
        data = await stub.GetSessionData(pb.GetSessionDataRequest(session=pb.SessionReference(token=own.token)))
        assert dict(data.data) == {"cart": b"1"}


async def test_under_alert_the_victim_keeps_the_session(tmp_path: Path, clock: ManualClock) -> None:
    """Where the policy only alerts, the planted token is denied and told, and the victim goes on undisturbed."""
    rules = policy(reactions={SignalType.TOKEN_REPLAY: Reaction.ALERT})
    async with authority(tmp_path, clock, rules) as (_, stub):
        planted = await create(stub, "", client=ATTACKER)
        own = await login(stub, planted.token, client=VICTIM)
        clock.advance(20 * SECOND)
        assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID
        assert (await validate(stub, planted.token, ATTACKER)).verdict == pb.VERDICT_REPLAYED
        (alarm,) = hijacks(await story_of(stub, planted.token, own.token))
        assert alarm.reaction == pb.REACTION_ALERT
        assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID


async def test_the_attacker_logs_in_on_the_victims_session(tmp_path: Path, clock: ManualClock) -> None:
    """The other way round: a session that belongs to the victim is bound to no other subject, and stays as it is."""
    async with authority(tmp_path, clock) as (_, stub):
        own = await create(stub)
        refused = await refusal_of(login(stub, own.token, "mallory", ATTACKER))
        assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
        answer = await validate(stub, own.token)
        assert (answer.verdict, answer.session.subject) == (pb.VERDICT_VALID, "ada")
        assert kinds(await story_of(stub, own.token)) == ["SESSION_CREATED"]
