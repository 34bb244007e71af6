"""The clock is stepped, back and forward an hour: by an operator, a broken time server, or whoever got at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    HOUR,
    MINUTE,
    authority,
    create,
    hijacks,
    kinds,
    login,
    millis,
    policy,
    roll,
    story_of,
    validate,
)
from tests.rpc.refusals import session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub


async def test_stepped_back(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """An hour back no session ends or is suspected, and activity never moves backwards, in answers or in the record."""
    mine = await create(stub)
    clock.advance(10 * MINUTE)
    before = await validate(stub, mine.token)
    assert before.verdict == pb.VERDICT_VALID
    clock.advance(-HOUR)
    for _ in range(3):
        answer = await validate(stub, mine.token)
        assert (answer.verdict, answer.renewed_token, list(answer.signals)) == (pb.VERDICT_VALID, "", [])
        assert answer.session.last_active_time == before.session.last_active_time
        assert answer.session.idle_expire_time == before.session.idle_expire_time
    await app.sweeper.sweep()
    await app.sweeper.save_activity(everything=True)
    shown = await session_of(stub, mine.session.session_id)
    assert shown.last_active_time == before.session.last_active_time
    assert kinds(await story_of(stub)) == ["SESSION_CREATED"]


async def test_stepped_back_does_not_prolong(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """Deadlines stand where they were set: idle at its own wall time, the absolute one whatever was used meanwhile."""
    mine = await create(stub)
    deadline, absolute = millis(mine.session.idle_expire_time), millis(mine.session.absolute_expire_time)
    clock.advance(-HOUR)
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_VALID
    assert (await stub.RefreshSession(pb.RefreshSessionRequest(token=mine.token))).verdict == pb.VERDICT_VALID
    shown = await session_of(stub, mine.session.session_id)
    assert (millis(shown.idle_expire_time), millis(shown.absolute_expire_time)) == (deadline, absolute)
    clock.advance(HOUR + 30 * MINUTE)
    assert clock.now() == deadline
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_EXPIRED_IDLE


async def test_stepped_back_revives_nothing(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """What has ended, by logout or by a deadline, stays ended when the clock goes back to before its end."""
    revoked, expired = await create(stub), await create(stub, "bob")
    named = pb.SessionReference(token=revoked.token)
    await stub.RevokeSession(pb.RevokeSessionRequest(session=named, reason="logout"))
    clock.advance(30 * MINUTE)
    assert (await validate(stub, expired.token)).verdict == pb.VERDICT_EXPIRED_IDLE
    await app.sweeper.sweep()
    clock.advance(-HOUR)
    verdicts = [(await validate(stub, one.token)).verdict for one in (revoked, expired)]
    assert verdicts == [pb.VERDICT_REVOKED, pb.VERDICT_EXPIRED_IDLE]
    assert (await login(stub, expired.token, "bob")).verdict == pb.VERDICT_EXPIRED_IDLE
    assert kinds(await story_of(stub)) == ["SESSION_CREATED", "SESSION_CREATED", "SESSION_REVOKED", "SESSION_EXPIRED"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda stub, mine: validate(stub, mine.token),
        lambda stub, mine: stub.RollSession(pb.RollSessionRequest(token=mine.token)),
        lambda stub, mine: stub.RefreshSession(pb.RefreshSessionRequest(token=mine.token)),
        lambda stub, mine: login(stub, mine.token),
        lambda stub, mine: stub.UpdateSessionData(
            pb.UpdateSessionDataRequest(
                session=pb.SessionReference(session_id=mine.session.session_id), set={"a": b"1"}
            )
        ),
    ],
    ids=["validation", "roll", "refresh", "login", "data by id"],
)
async def test_what_was_called_expired_stays_so(app: App, stub: AsyncStub, clock: ManualClock, ask: Any) -> None:
    """A session that any answer called expired is not valid again when the clock goes back before a sweep."""
    app._sweeping.cancel()
    mine = await create(stub)
    clock.advance(30 * MINUTE)
    assert (await ask(stub, mine)).verdict == pb.VERDICT_EXPIRED_IDLE
    clock.advance(-HOUR)
    assert (await validate(stub, mine.token)).verdict == pb.VERDICT_EXPIRED_IDLE
    assert kinds(await story_of(stub)) == ["SESSION_CREATED", "SESSION_EXPIRED"]


async def test_stepped_forward(tmp_path: Path, clock: ManualClock) -> None:
    """An hour forward ends exactly what wall time says, at its deadline, without alarm; and renews the others once."""
    rules = policy(idle_timeout=2 * HOUR)
    async with authority(tmp_path, clock, rules, extra={"strict": policy()}) as (app, stub):
        long, short = await create(stub), await create(stub, application="strict")
        clock.advance(HOUR)
        renewal = await validate(stub, long.token)
        assert (renewal.verdict, renewal.next_step) == (pb.VERDICT_VALID, pb.NEXT_STEP_REPLACE_TOKEN)
        used = await validate(stub, renewal.renewed_token)
        assert (used.verdict, used.session.generation, used.renewed_token) == (pb.VERDICT_VALID, 1, "")
        answer = await validate(stub, short.token, application="strict")
        assert answer.verdict == pb.VERDICT_EXPIRED_IDLE
        await app.sweeper.sweep()
        ended = await session_of(stub, short.session.session_id, "strict")
        assert ended.ending.end_time == short.session.idle_expire_time
        clock.advance(-HOUR)
        assert (await validate(stub, renewal.renewed_token)).renewed_token == ""
        assert (await validate(stub, long.token)).renewed_token == renewal.renewed_token  # still in the overlap
        assert kinds(await story_of(stub)) == [
            "SESSION_CREATED",
            "SESSION_CREATED",
            "SESSION_RENEWED",
            "SESSION_EXPIRED",
        ]


async def test_a_roll_and_a_step_back(tmp_path: Path, clock: ManualClock) -> None:
    """A token that was rolled away is denied whichever way the clock goes, and going back raises no alarm."""
    async with authority(tmp_path, clock) as (_, stub):
        mine = await create(stub)
        rolled = await roll(stub, mine.token)
        clock.advance(-HOUR)
        assert (await validate(stub, mine.token)).verdict == pb.VERDICT_SUPERSEDED
        assert (await validate(stub, rolled.token)).verdict == pb.VERDICT_VALID
        again = await roll(stub, rolled.token)
        assert (await validate(stub, rolled.token)).verdict == pb.VERDICT_SUPERSEDED
        assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID
        assert not hijacks(await story_of(stub))


async def test_suspicions_are_folded_across_a_step(tmp_path: Path, clock: ManualClock) -> None:
    """A step makes no flood of alarms: of a hundred replays around it at most two are told."""
    rules = policy(reactions={SignalType.TOKEN_REPLAY: Reaction.ALERT})
    async with authority(tmp_path, clock, rules) as (_, stub):
        mine = await create(stub)
        own = await roll(stub, mine.token)
        clock.advance(MINUTE)
        assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID
        for n in range(100):
            if n == 50:
                clock.advance(-30_000)
            assert (await validate(stub, mine.token)).verdict == pb.VERDICT_REPLAYED
        assert len(hijacks(await story_of(stub))) == 2


async def test_sessions_of_both_times_live_side_by_side(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """Sessions opened after a step back are as good as those from before, and end by their own deadlines."""
    early = await create(stub)
    clock.advance(-HOUR)
    late = await create(stub, "bob")
    assert [(await validate(stub, one.token)).verdict for one in (early, late)] == [pb.VERDICT_VALID] * 2
    clock.advance(30 * MINUTE)
    await app.sweeper.sweep()
    assert (await validate(stub, late.token)).verdict == pb.VERDICT_EXPIRED_IDLE
    assert (await validate(stub, early.token)).verdict == pb.VERDICT_VALID
    events = await story_of(stub)
    assert kinds(events) == ["SESSION_CREATED", "SESSION_CREATED", "SESSION_EXPIRED"]
