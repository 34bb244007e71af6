"""Theft: somebody else presents the victim's current token, from another client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    MINUTE,
    SECOND,
    VICTIM,
    authority,
    create,
    hijacks,
    kinds,
    login,
    policy,
    roll,
    signal_types,
    story_of,
    unmet_kinds,
    validate,
)
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

HIGH = policy("owasp-high")
UPDATED = pb.ClientContext(
    ip_address="192.0.2.77", user_agent=VICTIM.user_agent.replace("128.0", "131.0").replace("10.0;", "11.0;")
)
"""The victim after an update of its browser and of its system, at another address of the same network."""


def bound(certificate: bytes = b"", device: str = "", address: str = VICTIM.ip_address) -> pb.ClientContext:
    """The victim's browser with a certificate or a device of its own."""
    return pb.ClientContext(
        ip_address=address, user_agent=VICTIM.user_agent, certificate_thumbprint=certificate, device_id=device
    )


async def test_a_stolen_token_needs_the_password(tmp_path: Path, clock: ManualClock) -> None:
    """Under owasp-high the thief's browser is asked to authenticate, and the honest client never notices."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        stolen = await validate(stub, mine.token, ATTACKER)
        assert (stolen.verdict, stolen.next_step) == (pb.VERDICT_INSUFFICIENT, pb.NEXT_STEP_STEP_UP)
        assert unmet_kinds(stolen) == ["REAUTHENTICATION"]
        assert stolen.unmet[0].remedy
        assert signal_types(stolen) == ["USER_AGENT_CHANGE", "IP_CHANGE"]
        honest = await validate(stub, mine.token)
        assert (honest.verdict, honest.next_step) == (pb.VERDICT_VALID, pb.NEXT_STEP_PROCEED)
        assert not honest.unmet
        (alarm,) = hijacks(await story_of(stub, mine.token))
        assert (alarm.reaction, alarm.client) == (pb.REACTION_STEP_UP, ATTACKER)
        assert [(signal.expected, signal.seen) for signal in alarm.signals] == [
            ("Firefox on Windows", "Chrome on Linux"),
            ("192.0.2.0/24", "203.0.113.0/24"),
        ]


async def test_a_refused_thief_does_not_disturb(tmp_path: Path, clock: ManualClock) -> None:
    """However often a stranger is refused, the honest client goes on: who is refused takes no turns with it."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        for _ in range(10):
            assert (await validate(stub, mine.token, ATTACKER)).verdict == pb.VERDICT_INSUFFICIENT
            assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID


async def test_a_thief_is_no_activity(tmp_path: Path, clock: ManualClock) -> None:
    """Requests that are denied do not keep the session from going idle."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        for _ in range(4):
            clock.advance(MINUTE)
            assert (await validate(stub, mine.token, ATTACKER)).verdict == pb.VERDICT_INSUFFICIENT
        clock.advance(MINUTE)
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_EXPIRED_IDLE


async def test_authentication_from_the_new_client_heals(tmp_path: Path, clock: ManualClock) -> None:
    """The subject who authenticates from the new client goes on there; the old token is worth nothing."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        assert (await validate(stub, mine.token, ATTACKER)).verdict == pb.VERDICT_INSUFFICIENT
        healed = await login(stub, mine.token, client=ATTACKER)
        assert healed.verdict == pb.VERDICT_VALID
        assert (await validate(stub, healed.token, ATTACKER)).verdict == pb.VERDICT_VALID
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_SUPERSEDED
        assert kinds(await story_of(stub, mine.token, healed.token)) == [
            "SESSION_CREATED",
            "HIJACK_SUSPECTED",
            "SESSION_AUTHENTICATED",
            "SESSION_ROLLED",
        ]
        # Whoever comes with the new token from the client of before is the stranger now.
        stranger = await validate(stub, healed.token, VICTIM)
        assert unmet_kinds(stranger) == ["REAUTHENTICATION"]
        assert len(hijacks(await story_of(stub))) == 2


async def test_the_thief_takes_the_renewed_token(tmp_path: Path, clock: ManualClock) -> None:
    """A renewal is no way around a step-up: from the stranger the successor does not suffice either."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        assert (await validate(stub, mine.token, ATTACKER)).verdict == pb.VERDICT_INSUFFICIENT
        for _ in range(4):
            clock.advance(4 * MINUTE)
            honest = await validate(stub, mine.token)
        assert honest.next_step == pb.NEXT_STEP_REPLACE_TOKEN
        first_use = await validate(stub, honest.renewed_token, ATTACKER)
        assert (first_use.verdict, unmet_kinds(first_use)) == (pb.VERDICT_INSUFFICIENT, ["REAUTHENTICATION"])
        again = await validate(stub, honest.renewed_token, ATTACKER)
        assert again.verdict == pb.VERDICT_INSUFFICIENT
        assert (await validate(stub, honest.renewed_token)).verdict == pb.VERDICT_VALID


async def test_a_strangers_denied_use_renews_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """A successor that is first presented by a stranger is denied, and does not become the current token by it."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        for _ in range(4):
            clock.advance(4 * MINUTE)
            honest = await validate(stub, mine.token)
        stolen = await validate(stub, honest.renewed_token, ATTACKER)
        assert stolen.verdict == pb.VERDICT_INSUFFICIENT
        assert "SESSION_RENEWED" not in kinds(await story_of(stub, mine.token))
        # Else the honest client, whose answer was lost, would be taken for a thief when the overlap is over.
        clock.advance(2 * MINUTE)
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID


async def test_a_stranger_is_not_given_the_renewed_token(tmp_path: Path, clock: ManualClock) -> None:
    """Who must authenticate first gets no successor: it would outlive the token that was stolen."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        for _ in range(4):
            clock.advance(4 * MINUTE)
            assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
        stolen = await validate(stub, mine.token, ATTACKER)
        assert stolen.verdict == pb.VERDICT_INSUFFICIENT
        assert not stolen.renewed_token
        assert not stolen.cookies.set_cookie


async def test_a_stranger_rolls_the_stolen_token(tmp_path: Path, clock: ManualClock) -> None:
    """A stranger that must authenticate cannot have the session rolled to itself instead."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        taken = await stub.RollSession(pb.RollSessionRequest(token=mine.token, client=ATTACKER, reason="password"))
        assert (taken.verdict, taken.token) == (pb.VERDICT_INSUFFICIENT, "")
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID


async def test_under_owasp_low_the_thief_is_told_of(tmp_path: Path, clock: ManualClock) -> None:
    """Under owasp-low another browser is an alarm and nothing else, once for the whole window."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub)
        for _ in range(100):
            answer = await validate(stub, mine.token, ATTACKER)
            assert answer.verdict == pb.VERDICT_VALID
            assert signal_types(answer) == ["USER_AGENT_CHANGE", "IP_CHANGE"]
        (alarm,) = hijacks(await story_of(stub, mine.token))
        assert alarm.reaction == pb.REACTION_ALERT


async def test_every_answer_bears_its_signals(tmp_path: Path, clock: ManualClock) -> None:
    """What is told once as an event stands in every answer, also in one whose activity was due to be written."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub)
        for _ in range(5):
            answer = await validate(stub, mine.token, ATTACKER)
            assert "USER_AGENT_CHANGE" in signal_types(answer)
            clock.advance(MINUTE)
        assert len(hijacks(await story_of(stub))) == 1


async def test_another_address_alone_is_nothing_under_owasp_low(tmp_path: Path, clock: ManualClock) -> None:
    """Another address alone is neither told nor denied under owasp-low: phones do that; under owasp-high it is told."""
    elsewhere = pb.ClientContext(ip_address=ATTACKER.ip_address, user_agent=VICTIM.user_agent)
    async with authority(tmp_path / "low", clock) as (_, stub):
        mine = await create(stub)
        answer = await validate(stub, mine.token, elsewhere)
        assert (answer.verdict, list(answer.signals)) == (pb.VERDICT_VALID, [])
        assert kinds(await story_of(stub)) == ["SESSION_CREATED"]
    async with authority(tmp_path / "high", clock, HIGH) as (_, stub):
        mine = await create(stub)
        assert (await validate(stub, mine.token, elsewhere)).verdict == pb.VERDICT_VALID
        (alarm,) = hijacks(await story_of(stub))
        assert (signal_types(alarm), alarm.reaction) == (["IP_CHANGE"], pb.REACTION_ALERT)


async def test_a_browser_update_is_no_theft(tmp_path: Path, clock: ManualClock) -> None:
    """Even under owasp-high a new version of browser and system in the same network is neither told nor denied."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        answer = await validate(stub, mine.token, UPDATED)
        assert (answer.verdict, list(answer.signals)) == (pb.VERDICT_VALID, [])
        assert kinds(await story_of(stub)) == ["SESSION_CREATED"]


async def test_the_whole_subject_is_protected(tmp_path: Path, clock: ManualClock) -> None:
    """Under `revoke-subject` one stolen token ends all of the subject's sessions, and no one else's."""
    rules = policy(reactions={SignalType.USER_AGENT_CHANGE: Reaction.REVOKE_SUBJECT})
    async with authority(tmp_path, clock, rules) as (_, stub):
        laptop, phone, bob = [(await create(stub, subject)).token for subject in ("ada", "ada", "bob")]
        assert (await validate(stub, laptop, ATTACKER)).verdict == pb.VERDICT_REVOKED
        verdicts = [(await validate(stub, token)).verdict for token in (laptop, phone, bob)]
        assert verdicts == [pb.VERDICT_REVOKED, pb.VERDICT_REVOKED, pb.VERDICT_VALID]
        assert kinds(await story_of(stub, laptop, phone))[3:] == [
            "HIJACK_SUSPECTED",
            "SESSION_REVOKED",
            "SESSION_REVOKED",
        ]


@pytest.mark.parametrize(
    "presented", [bound(b"\x02" * 32), bound()], ids=["another certificate", "no certificate at all"]
)
async def test_a_token_bound_to_a_certificate(tmp_path: Path, clock: ManualClock, presented: pb.ClientContext) -> None:
    """A token bound to a client certificate ends its session when it comes with another one, or without."""
    async with authority(tmp_path, clock) as (_, stub):
        own = bound(b"\x01" * 32)
        mine = await create(stub, client=own)
        assert (await validate(stub, mine.token, own)).verdict == pb.VERDICT_VALID
        stolen = await validate(stub, mine.token, presented)
        assert stolen.verdict == pb.VERDICT_REVOKED
        events = await story_of(stub, mine.token)
        assert kinds(events) == ["SESSION_CREATED", "HIJACK_SUSPECTED", "SESSION_REVOKED"]
        assert signal_types(events[1]) == ["CERTIFICATE_MISMATCH"]
        assert (await validate(stub, mine.token, own)).verdict == pb.VERDICT_REVOKED


@pytest.mark.parametrize("presented", [bound(device="other"), bound()], ids=["another device", "no device at all"])
async def test_a_token_bound_to_a_device(tmp_path: Path, clock: ManualClock, presented: pb.ClientContext) -> None:
    """A token bound to a device does not suffice from another one, nor from one that leaves the device out."""
    async with authority(tmp_path, clock) as (_, stub):
        own = bound(device="ada's laptop")
        mine = await create(stub, client=own)
        stolen = await validate(stub, mine.token, presented)
        assert (stolen.verdict, unmet_kinds(stolen)) == (pb.VERDICT_INSUFFICIENT, ["REAUTHENTICATION"])
        (alarm,) = hijacks(await story_of(stub, mine.token))
        assert (signal_types(alarm), alarm.reaction) == (["DEVICE_MISMATCH"], pb.REACTION_STEP_UP)
        assert (await validate(stub, mine.token, own)).verdict == pb.VERDICT_VALID


DOORSTEP = 8  # turns between two networks that are one phone no more, within ten windows


async def interleave(
    stub: AsyncStub, clock: ManualClock, pause: int, thief: pb.ClientContext, uses: int
) -> list[pb.ValidateSessionResponse]:
    """Victim and thief use one token by turns."""
    mine = await create(stub)
    answers = []
    for number in range(uses):
        answers.append(await validate(stub, mine.token, thief if number % 2 else VICTIM))
        clock.advance(pause)
    return answers


LOOKALIKE = pb.ClientContext(ip_address=ATTACKER.ip_address, user_agent=VICTIM.user_agent)


async def test_two_browsers_by_turns(tmp_path: Path, clock: ManualClock) -> None:
    """Two browsers that take three turns within the window are told as `concurrent_use`, once."""
    async with authority(tmp_path, clock) as (_, stub):
        answers = await interleave(stub, clock, SECOND, ATTACKER, 4)
        assert ["CONCURRENT_USE" in signal_types(answer) for answer in answers] == [False, False, False, True]
        told = [signal_types(event) for event in hijacks(await story_of(stub))]
        assert [kinds.count("CONCURRENT_USE") for kinds in told] == [0, 1]


async def test_two_lookalikes_by_turns(tmp_path: Path, clock: ManualClock) -> None:
    """Two clients told apart by their networks alone are told as `concurrent_use` at the eighth turn, and stopped."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        answers = await interleave(stub, clock, SECOND, LOOKALIKE, DOORSTEP + 1)
        assert [answer.verdict for answer in answers] == [pb.VERDICT_VALID] * DOORSTEP + [pb.VERDICT_INSUFFICIENT]
        assert unmet_kinds(answers[-1]) == ["REAUTHENTICATION"]
        alarm = hijacks(await story_of(stub))[-1]
        assert (signal_types(alarm)[-1], alarm.reaction) == ("CONCURRENT_USE", pb.REACTION_STEP_UP)


async def test_two_networks_over_a_day_are_one_phone(tmp_path: Path, clock: ManualClock) -> None:
    """The same turns, each two minutes apart, are a phone on its way and no `concurrent_use`."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        answers = await interleave(stub, clock, 2 * MINUTE, LOOKALIKE, DOORSTEP)
        assert [answer.verdict for answer in answers[:7]] == [pb.VERDICT_VALID] * 7
        assert {kind for event in hijacks(await story_of(stub)) for kind in signal_types(event)} == {"IP_CHANGE"}


async def test_a_step_up_holds_until_the_subject_has_authenticated(tmp_path: Path, clock: ManualClock) -> None:
    """After `concurrent_use` neither client goes on, nor after a restart, before the subject authenticates again."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        for number in range(DOORSTEP):
            answer = await validate(stub, mine.token, VICTIM if number % 2 else LOOKALIKE)
        assert answer.verdict == pb.VERDICT_INSUFFICIENT
        for client in (LOOKALIKE, VICTIM):
            denied = await validate(stub, mine.token, client)
            assert (denied.verdict, unmet_kinds(denied)) == (pb.VERDICT_INSUFFICIENT, ["REAUTHENTICATION"])
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_INSUFFICIENT
        again = await login(stub, mine.token)
        assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID


async def test_a_reported_suspicion_steps_up(tmp_path: Path, clock: ManualClock) -> None:
    """An application's own suspicion, under `step-up`, makes the token insufficient until the subject authenticates."""
    rules = policy(reactions={SignalType.REPORTED: Reaction.STEP_UP})
    async with authority(tmp_path, clock, rules) as (_, stub):
        mine = await create(stub)
        named = pb.SessionReference(session_id=mine.session.session_id)
        report = await stub.ReportSignal(pb.ReportSignalRequest(session=named, reason="odd transfers"))
        assert report.reaction == pb.REACTION_STEP_UP
        answer = await validate(stub, mine.token)
        assert (answer.verdict, unmet_kinds(answer)) == (pb.VERDICT_INSUFFICIENT, ["REAUTHENTICATION"])
        again = await login(stub, mine.token)
        assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID


async def test_a_reported_suspicion_ends_the_session(tmp_path: Path, clock: ManualClock) -> None:
    """Under owasp-high an application's own suspicion revokes the session, with its words as evidence."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        named = pb.SessionReference(session_id=mine.session.session_id)
        report = await stub.ReportSignal(pb.ReportSignalRequest(session=named, reason="odd transfers"))
        assert (report.verdict, report.reaction) == (pb.VERDICT_VALID, pb.REACTION_REVOKE_SESSION)
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_REVOKED
        events = await story_of(stub, mine.token)
        assert kinds(events) == ["SESSION_CREATED", "HIJACK_SUSPECTED", "SESSION_REVOKED"]
        assert [(signal.type, signal.seen) for signal in events[1].signals] == [
            (pb.SIGNAL_TYPE_REPORTED, "odd transfers")
        ]


async def test_a_crowd_of_thieves_is_one_alarm(tmp_path: Path, clock: ManualClock) -> None:
    """A hundred simultaneous uses from as many strange clients are all denied, and told once."""
    async with authority(tmp_path, clock, HIGH) as (_, stub):
        mine = await create(stub)
        crowd = [pb.ClientContext(ip_address=f"203.0.113.{n}", user_agent=f"bot{n}/1.0") for n in range(100)]
        answers = await asyncio.gather(*(validate(stub, mine.token, client) for client in crowd))
        assert {answer.verdict for answer in answers} == {pb.VERDICT_INSUFFICIENT}
        alarms = hijacks(await story_of(stub, mine.token))
        told = [kind for alarm in alarms for kind in signal_types(alarm)]
        assert told.count("CONCURRENT_USE") <= 1
        assert len(alarms) <= 2
        assert (await validate(stub, (await roll(stub, mine.token)).token)).verdict == pb.VERDICT_VALID


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        (pb.ClientContext(certificate_thumbprint=b"\x01" * 32), pb.VERDICT_REVOKED),
        (pb.ClientContext(device_id="ada's laptop"), pb.VERDICT_INSUFFICIENT),
    ],
    ids=["certificate", "device"],
)
async def test_a_binding_is_missed_where_nothing_else_is_told(
    tmp_path: Path, clock: ManualClock, own: pb.ClientContext, verdict: pb.Verdict.ValueType
) -> None:
    """A client of which nothing at all was seen does not hold the binding, also after the same question went well."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub, client=own)
        for _ in range(2):
            assert (await validate(stub, mine.token, own)).verdict == pb.VERDICT_VALID
        named = pb.SessionReference(token=mine.token)  # a call that tells of no client compares none
        assert (await stub.GetSession(pb.GetSessionRequest(session=named))).verdict == pb.VERDICT_VALID
        assert (await validate(stub, mine.token, pb.ClientContext())).verdict == verdict
