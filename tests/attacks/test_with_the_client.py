"""An application that follows what the typed client tells it, under attack: it needs no rule of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond_client import (
    AsyncClient,
    ClientContext,
    EventType,
    NextStep,
    Reaction,
    RequirementKind,
    SessiondError,
    SignalType,
    Token,
    Verdict,
)
from tests.attacks.story import ATTACKER as ATTACKER_MESSAGE
from tests.attacks.story import SECOND, authority, policy
from tests.attacks.story import VICTIM as VICTIM_MESSAGE
from tests.support.clock import ManualClock

VICTIM = ClientContext(ip_address=VICTIM_MESSAGE.ip_address, user_agent=VICTIM_MESSAGE.user_agent)
ATTACKER = ClientContext(ip_address=ATTACKER_MESSAGE.ip_address, user_agent=ATTACKER_MESSAGE.user_agent)


async def test_fixation_through_the_client(tmp_path: Path, clock: ManualClock) -> None:
    """The planted token is no session after the login, and its return is an event with evidence and reaction."""
    async with authority(tmp_path, clock) as (app, _), AsyncClient(app.address) as client:
        planted = await client.create(client=ATTACKER)
        own = await client.authenticate(planted.token, "ada", client=VICTIM)
        assert own.token is not None
        assert not (await client.validate(planted.token, client=ATTACKER)).valid
        clock.advance(20 * SECOND)
        assert (await client.validate(own.token, client=VICTIM)).valid
        back = await client.validate(planted.token, client=ATTACKER)
        assert (back.verdict, back.next_step) == (Verdict.REPLAYED, NextStep.DISCARD_TOKEN)
        history = [event async for event in client.activity("ada")]
        assert [event.type for event in history[:2]] == [EventType.SESSION_REVOKED, EventType.HIJACK_SUSPECTED]
        alarm = history[1]
        assert [signal.type for signal in alarm.signals] == [SignalType.TOKEN_REPLAY]
        assert alarm.reaction is Reaction.REVOKE_SESSION
        assert own.token.reveal() not in repr(history)


async def test_theft_through_the_client(tmp_path: Path, clock: ManualClock) -> None:
    """The stolen token asks the thief for the password, and the victim for nothing."""
    async with authority(tmp_path, clock, policy("owasp-high")) as (app, _), AsyncClient(app.address) as client:
        mine = await client.create(subject="ada", client=VICTIM)
        stolen = await client.validate(mine.token, client=ATTACKER)
        assert not stolen.valid
        assert stolen.next_step is NextStep.STEP_UP
        assert [one.kind for one in stolen.unmet] == [RequirementKind.REAUTHENTICATION]
        assert (await client.validate(mine.token, client=VICTIM)).valid


async def test_no_answer_is_a_denial(tmp_path: Path, clock: ManualClock) -> None:
    """Without an authority the client raises; there is nothing that an application could take for a session."""
    async with authority(tmp_path, clock) as (app, _):
        address = app.address
    async with AsyncClient(address, timeout=1.0) as client:
        with pytest.raises(SessiondError):
            await client.validate(Token("A" * 70))
