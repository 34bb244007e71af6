"""Validation: what memory and store know together, and what another application or a dropped history shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sessiond.domain.policy import Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Millis
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    HOUR,
    MINUTE,
    SECOND,
    VICTIM,
    authority,
    create,
    hijacks,
    kinds,
    login,
    loose,
    millis,
    policy,
    roll,
    signal_types,
    story_of,
    unmet_kinds,
    validate,
)
from tests.rpc.refusals import revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

DAY = 24 * HOUR
REMEMBERING = policy(
    idle_timeout=HOUR, remember_idle_timeout=7 * DAY, remember_absolute_timeout=30 * DAY, renewal_timeout=None
)
PASSWORD = {"level": 1, "methods": ["pwd"]}
KEY = {"level": 2, "methods": ["pwd", "hwk"]}
STRONG = {"min_level": 2}


# What is seen of the level


async def test_a_passive_look_at_a_fallen_level(tmp_path: Path, clock: ManualClock) -> None:
    """However often a remembered session is looked at passively, from the idle timeout on it shows the lower level."""
    async with authority(tmp_path, clock, REMEMBERING) as (_, stub):
        mine = await create(stub, persistent=True, authentication=KEY)
        for wait, level in ((HOUR - 1, 2), (1, 1), (DAY, 1)):
            clock.advance(wait)
            for _ in range(3):
                seen = await validate(stub, mine.token, passive=True)
                assert (seen.verdict, seen.session.authentication.level) == (pb.VERDICT_VALID, level)
        assert (await session_of(stub, mine.session.session_id)).authentication.level == 1
        assert kinds(await story_of(stub, mine.token)) == ["SESSION_CREATED"]


async def test_a_passive_look_after_an_elevation(tmp_path: Path, clock: ManualClock) -> None:
    """However often a session is looked at passively, from the elevation's end on it shows its own level."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub, authentication=PASSWORD)
        raised = await login(stub, mine.token, authentication=KEY, elevate=True)
        for wait, level in ((15 * MINUTE - 1, 2), (1, 1), (MINUTE, 1)):
            clock.advance(wait)
            for _ in range(3):
                seen = await validate(stub, raised.token, passive=True)
                assert (seen.verdict, seen.session.authentication.level) == (pb.VERDICT_VALID, level)


async def test_activity_that_only_memory_has_keeps_the_level(tmp_path: Path, clock: ManualClock) -> None:
    """Whether a request that needs a level is activity is judged on the latest activity, not on what was stored."""
    async with authority(tmp_path, clock, REMEMBERING) as (_, stub):
        mine = await create(stub, persistent=True, authentication=KEY)
        clock.advance(59 * SECOND)  # less than the granularity: the store is not told
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
        clock.advance(HOUR - 59 * SECOND)  # the level would have fallen by now, as far as the store knows
        strong = await validate(stub, mine.token, requirements=STRONG)
        assert (strong.verdict, strong.session.authentication.level) == (pb.VERDICT_VALID, 2)
        assert millis(strong.session.last_active_time) == clock.now()
        clock.advance(HOUR - 1)
        assert (await validate(stub, mine.token, requirements=STRONG)).verdict == pb.VERDICT_VALID


async def test_a_request_that_lacks_something_is_no_activity(tmp_path: Path, clock: ManualClock) -> None:
    """A request that is denied for want of a level keeps no session alive."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub, authentication=PASSWORD)
        for _ in range(3):
            clock.advance(10 * MINUTE - 1)
            denied = await validate(stub, mine.token, requirements=STRONG)
            assert (denied.verdict, unmet_kinds(denied)) == (pb.VERDICT_INSUFFICIENT, ["LEVEL"])
        clock.advance(3)
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_EXPIRED_IDLE


# Tokens of nobody's session


async def verdicts(stub: AsyncStub, token: str, application: str = "") -> set[str]:
    """What every call that takes a token makes of it; each is asked twice."""
    named = {"token": token}
    application_ = {"application": application}
    found: list[int] = []
    for _ in range(2):
        answers: Sequence[object] = [
            await stub.ValidateSession(loose.ValidateSessionRequest(**application_, token=token, client=VICTIM)),
            await stub.AuthenticateSession(
                loose.AuthenticateSessionRequest(**application_, token=token, subject="ada", client=ATTACKER)
            ),
            await stub.RollSession(loose.RollSessionRequest(**application_, token=token, client=ATTACKER)),
            await stub.RefreshSession(loose.RefreshSessionRequest(**application_, token=token, client=ATTACKER)),
            await stub.UpdateSessionData(
                loose.UpdateSessionDataRequest(**application_, session=named, set={"a": b"1"})
            ),
            await stub.ReportSignal(loose.ReportSignalRequest(**application_, session=named, reason="odd")),
            await stub.RevokeSession(loose.RevokeSessionRequest(**application_, session=named)),
            await stub.IssueCompanionToken(
                loose.IssueCompanionTokenRequest(**application_, token=token, purpose="pay")
            ),
            await stub.GetSession(loose.GetSessionRequest(**application_, session=named)),
            await stub.GetSessionData(loose.GetSessionDataRequest(**application_, session=named)),
        ]
        for answer in answers:
            assert not getattr(answer, "signals", None)
            found.append(answer.verdict)  # type: ignore[attr-defined]
    return {pb.Verdict.Name(verdict) for verdict in found}  # type: ignore[arg-type]


async def replayed(stub: AsyncStub, clock: ManualClock) -> tuple[str, str]:
    """A token that is a replay by now, and the one that the honest client has."""
    stolen = (await create(stub)).token
    own = (await roll(stub, stolen)).token
    clock.advance(2 * MINUTE)
    assert (await validate(stub, own)).verdict == pb.VERDICT_VALID
    return stolen, own


async def test_a_replay_at_another_application(tmp_path: Path, clock: ManualClock) -> None:
    """A replayed token is UNKNOWN to every call for another application, each time, and harms no session by it."""
    async with authority(tmp_path, clock, extra={"shop": policy()}) as (_, stub):
        stolen, own = await replayed(stub, clock)
        before = await revision_of(stub)
        assert await verdicts(stub, stolen, "shop") == {"VERDICT_UNKNOWN"}
        assert await revision_of(stub) == before
        assert (await validate(stub, own)).verdict == pb.VERDICT_VALID
        # The control: at its own application it is a replay, and ends the session.
        thief = pb.ClientContext(ip_address="198.51.100.66", user_agent="curl/8.9")
        assert (await validate(stub, stolen, client=thief)).verdict == pb.VERDICT_REPLAYED
        assert (await validate(stub, own)).verdict == pb.VERDICT_REVOKED


async def reported(stub: AsyncStub, clock: ManualClock) -> str:
    """A token that is a replay, as was reported a moment ago."""
    stolen, _ = await replayed(stub, clock)
    assert (await validate(stub, stolen)).verdict == pb.VERDICT_REPLAYED
    return stolen


async def held(stub: AsyncStub, clock: ManualClock) -> str:
    """The current token of a session whose subject must authenticate again."""
    mine = await create(stub)
    named = {"session_id": mine.session.session_id}
    await stub.ReportSignal(loose.ReportSignalRequest(session=named, reason="odd"))
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_INSUFFICIENT
    return mine.token


async def superseded(stub: AsyncStub, clock: ManualClock) -> str:
    """A token that was rolled away a moment ago."""
    mine = await create(stub)
    await roll(stub, mine.token)
    return mine.token


async def current(stub: AsyncStub, clock: ManualClock) -> str:
    """A token that is VALID."""
    mine = await create(stub)
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
    return mine.token


async def ended(stub: AsyncStub, clock: ManualClock) -> str:
    """A token of a revoked session."""
    mine = await create(stub)
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": mine.token}))
    return mine.token


@pytest.mark.parametrize("state", [reported, held, superseded, current, ended])
@pytest.mark.parametrize("reaction", [Reaction.ALERT, Reaction.IGNORE])
async def test_any_token_at_another_application(
    tmp_path: Path, clock: ManualClock, state: Callable[[AsyncStub, ManualClock], Awaitable[str]], reaction: Reaction
) -> None:
    """Whatever a token is worth at its own application, at another one it is UNKNOWN and says nothing else."""
    rules = policy(reactions={SignalType.TOKEN_REPLAY: reaction, SignalType.REPORTED: Reaction.STEP_UP})
    async with authority(tmp_path, clock, rules, extra={"shop": rules}) as (_, stub):
        token = await state(stub, clock)
        before = await revision_of(stub)
        assert await verdicts(stub, token, "shop") == {"VERDICT_UNKNOWN"}
        assert await revision_of(stub) == before


async def test_a_lost_answer_at_another_application(tmp_path: Path, clock: ManualClock) -> None:
    """A token whose successor was never used leaves no trace when it is presented to another application."""
    async with authority(tmp_path, clock, extra={"shop": policy()}) as (_, stub):
        lost = (await create(stub)).token
        await roll(stub, lost)
        clock.advance(30 * SECOND)
        before = await revision_of(stub)
        assert await verdicts(stub, lost, "shop") == {"VERDICT_UNKNOWN"}
        assert await revision_of(stub) == before
        assert (await validate(stub, lost)).verdict == pb.VERDICT_REPLAYED
        assert kinds(await story_of(stub, lost))[-1] == "OLD_TOKEN_PRESENTED"


KEEPS_NOTHING = policy(retention=Millis(MINUTE))


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_token_whose_history_was_dropped(tmp_path: Path, clock: ManualClock, restarted: bool) -> None:
    """Tokens of a pruned session, current or replayed, are UNKNOWN to every call, each time, and record nothing."""
    async with authority(tmp_path, clock, KEEPS_NOTHING) as (app, stub):
        stolen, own = await replayed(stub, clock)
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": own}))
        clock.advance(MINUTE)
        app._sweeping.cancel()
        assert await app.sweeper.prune() == 1
        if not restarted:
            assert await unknown(stub, stolen, own)
    if restarted:
        async with authority(tmp_path, clock, KEEPS_NOTHING) as (_, stub):
            assert await unknown(stub, stolen, own)


async def unknown(stub: AsyncStub, *tokens: str) -> bool:
    """Whether these are UNKNOWN to every call, and nothing comes of asking."""
    before = await revision_of(stub)
    found = [await verdicts(stub, token) for token in tokens]
    return found == [{"VERDICT_UNKNOWN"}] * len(tokens) and await revision_of(stub) == before


# Companions of nobody's session


async def companion_of(stub: AsyncStub, token: str) -> dict[str, object]:
    """What a payment needs, with a companion token of that session."""
    request = pb.IssueCompanionTokenRequest(token=token, purpose="payment", client=VICTIM)
    issued = (await stub.IssueCompanionToken(request)).companion_token
    return {"companion": {"purpose": "payment", "companion_token": issued}}


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_companion_whose_session_was_dropped(tmp_path: Path, clock: ManualClock, restarted: bool) -> None:
    """A companion token of a pruned session is not good enough, and is no signal and no error."""
    async with authority(tmp_path, clock, KEEPS_NOTHING) as (app, stub):
        ada, bob = await create(stub, "ada"), await create(stub, "bob")
        payment = await companion_of(stub, bob.token)
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": bob.token}))
        clock.advance(MINUTE)
        app._sweeping.cancel()
        assert await app.sweeper.prune() == 1
        if not restarted:
            assert await is_lacking(stub, ada.token, payment)
    if restarted:
        async with authority(tmp_path, clock, KEEPS_NOTHING) as (_, stub):
            assert await is_lacking(stub, ada.token, payment)


async def is_lacking(stub: AsyncStub, token: str, payment: dict[str, object]) -> bool:
    """Whether the pair lacks a companion, each time it is asked, and nothing comes of asking."""
    before = await revision_of(stub)
    answers = [await validate(stub, token, requirements=payment) for _ in range(2)]
    found = [(answer.verdict, unmet_kinds(answer), signal_types(answer)) for answer in answers]
    assert found == [(pb.VERDICT_INSUFFICIENT, ["COMPANION_TOKEN"], [])] * 2
    return (await validate(stub, token)).verdict == pb.VERDICT_VALID and await revision_of(stub) == before


async def test_a_companion_beside_a_dropped_session(tmp_path: Path, clock: ManualClock) -> None:
    """A token of a pruned session is UNKNOWN also beside somebody else's good companion token."""
    async with authority(tmp_path, clock, KEEPS_NOTHING) as (app, stub):
        ada, bob = await create(stub, "ada"), await create(stub, "bob")
        payment = await companion_of(stub, bob.token)
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": ada.token}))
        clock.advance(MINUTE)
        app._sweeping.cancel()
        assert await app.sweeper.prune() == 1
        answer = await validate(stub, ada.token, requirements=payment)
        assert (answer.verdict, signal_types(answer)) == (pb.VERDICT_UNKNOWN, [])
        assert not hijacks(await story_of(stub))


# A policy that has become stricter


def reacting(reaction: Reaction) -> Policy:
    """A policy that reacts so to clients that take turns, and to nothing else of a client."""
    ignored = dict.fromkeys((SignalType.USER_AGENT_CHANGE, SignalType.COUNTRY_CHANGE), Reaction.IGNORE)
    return policy(reactions={**ignored, SignalType.CONCURRENT_USE: reaction})


async def take_turns(stub: AsyncStub, clock: ManualClock, token: str) -> pb.ValidateSessionResponse:
    """Victim and attacker use the token by turns until that shows; the answer in which it does."""
    for number in range(6):
        clock.advance(SECOND)
        answer = await validate(stub, token, VICTIM if number % 2 else ATTACKER)
        if "CONCURRENT_USE" in signal_types(answer):
            return answer
    raise AssertionError("nobody noticed")


@pytest.mark.parametrize("before", [Reaction.ALERT, Reaction.IGNORE])
async def test_a_step_up_after_an_alert(tmp_path: Path, clock: ManualClock, before: Reaction) -> None:
    """Told of under `alert`, the same suspicion under `step-up` holds the session for all clients, and says so."""
    async with authority(tmp_path, clock, reacting(before)) as (app, stub):
        mine = await create(stub)
        if before is Reaction.ALERT:
            assert (await take_turns(stub, clock, mine.token)).verdict == pb.VERDICT_VALID
        told = [Reaction.ALERT] if before is Reaction.ALERT else []
        await app.authority.change_policies({"default": reacting(Reaction.STEP_UP)}, {})
        assert (await take_turns(stub, clock, mine.token)).verdict == pb.VERDICT_INSUFFICIENT
        for client in (VICTIM, ATTACKER, VICTIM):
            held = await validate(stub, mine.token, client)
            assert (held.verdict, unmet_kinds(held)) == (pb.VERDICT_INSUFFICIENT, ["REAUTHENTICATION"])
        alarms = hijacks(await story_of(stub, mine.token))
        reactions = [pb.Reaction.Name(alarm.reaction) for alarm in alarms]
        assert reactions == [*(f"REACTION_{one.name}" for one in told), "REACTION_STEP_UP"]
    # What was told is what is stored: another start finds the session held as well.
    async with authority(tmp_path, clock, reacting(Reaction.STEP_UP)) as (_, stub):
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_INSUFFICIENT
        again = await login(stub, mine.token)
        assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID


async def test_a_revocation_after_an_alert(tmp_path: Path, clock: ManualClock) -> None:
    """Told of under `alert`, the same suspicion under `revoke-session` ends the session within the window."""
    async with authority(tmp_path, clock, reacting(Reaction.ALERT)) as (app, stub):
        mine = await create(stub)
        await take_turns(stub, clock, mine.token)
        await app.authority.change_policies({"default": reacting(Reaction.REVOKE_SESSION)}, {})
        assert (await take_turns(stub, clock, mine.token)).verdict == pb.VERDICT_REVOKED
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_REVOKED
        assert kinds(await story_of(stub, mine.token))[-2:] == ["HIJACK_SUSPECTED", "SESSION_REVOKED"]


async def test_an_alert_within_its_window(tmp_path: Path, clock: ManualClock) -> None:
    """The control: under `alert` alone the same suspicion is told once within its window, and again after it."""
    rules = replace(reacting(Reaction.ALERT), fold_window=Millis(10 * MINUTE))
    async with authority(tmp_path, clock, rules) as (_, stub):
        mine = await create(stub)
        for count in (1, 1):
            await take_turns(stub, clock, mine.token)
            assert len(hijacks(await story_of(stub))) == count
        clock.advance(10 * MINUTE)
        await take_turns(stub, clock, mine.token)
        assert len(hijacks(await story_of(stub))) == 2


# Who was seen last

PHONE = pb.ClientContext(ip_address="198.51.100.7", user_agent=VICTIM.user_agent)


@pytest.mark.parametrize("wait", [SECOND, MINUTE], ids=["from memory", "written"])
async def test_a_call_without_a_client_keeps_who_was_seen_last(tmp_path: Path, clock: ManualClock, wait: int) -> None:
    """Activity of a call that tells of no client leaves the client that was seen last, also after a restart."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub)
        clock.advance(59 * SECOND)
        assert (await validate(stub, mine.token, PHONE)).verdict == pb.VERDICT_VALID
        clock.advance(wait)
        quiet = await stub.ValidateSession(pb.ValidateSessionRequest(token=mine.token))
        assert quiet.verdict == pb.VERDICT_VALID
        assert (await session_of(stub, mine.session.session_id)).last_client == PHONE
    async with authority(tmp_path, clock) as (_, stub):
        assert (await session_of(stub, mine.session.session_id)).last_client == PHONE
