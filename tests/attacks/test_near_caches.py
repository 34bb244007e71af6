"""The stories of the attacks again, with a near cache in front of every validation: none of them succeeds by it."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.domain.policy import PRESETS
from sessiond.domain.signals import Reaction, SignalType
from sessiond_client.near_cache import NearCache
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks import (
    story,
    test_binding,
    test_companion,
    test_cookie_swap,
    test_copies,
    test_csrf,
    test_fixation,
    test_late_logins,
    test_logout_race,
    test_quiet_thief,
    test_replay,
    test_theft,
)
from tests.attacks.near import near_stub_for
from tests.support import server as support
from tests.support.clock import ManualClock

RETOLD = (
    *(test_replay, test_theft, test_logout_race, test_companion, test_csrf, test_cookie_swap, test_fixation),
    *(test_binding, test_copies, test_late_logins, test_quiet_thief),
)
LATER = {
    "test_two_lookalikes_by_turns",
    "test_a_step_up_holds_until_the_subject_has_authenticated",
    "test_the_owner_comes_again_and_again",
    "test_the_policy_can_end_it",
}
"""Stories of `concurrent_use`, whose evidence is how often each client comes. Through a near cache each client of a
session comes once in the granularity of activity, so the signal comes later; how much is tested below."""

for _module in RETOLD:
    for _name, _story in list(vars(_module).items()):
        if _name.startswith("test_") and isinstance(_story, types.FunctionType) and _name not in LATER:
            _topic = _module.__name__.rpartition(".test_")[2]
            globals()[f"test_{_topic}__{_name.removeprefix('test_')}"] = _story


@pytest.fixture
async def stub(app: App, clock: ManualClock) -> AsyncIterator[Any]:
    """The stub of the stories that use the fixture."""
    async with near_stub_for(app.address, clock) as stub:
        yield stub


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub of the stories that start their own authority."""
    clocks: dict[str, Any] = {}
    serving = support.serving

    @asynccontextmanager
    async def noting(config: Any, clock: Any = None) -> AsyncIterator[App]:
        async with serving(config, clock) as app:
            clocks[app.address] = clock
            yield app

    monkeypatch.setattr(story, "serving", noting)
    monkeypatch.setattr(story, "stub_for", lambda address: near_stub_for(address, clocks[address]))


# What comes later


def granularity(preset: str) -> int:
    """How long an answer that counts as activity may be reused, in milliseconds."""
    return PRESETS[preset].touch_granularity


async def test_every_repeated_question_of_a_story_is_answered_from_memory(app: App, clock: ManualClock) -> None:
    """The stories above do ask the cache: what repeats itself within the granularity comes from memory."""
    async with near_stub_for(app.address, clock) as stub:
        mine = await story.create(stub)
        for _ in range(10):
            clock.advance(story.SECOND)
            assert (await story.validate(stub, mine.token)).verdict == pb.VERDICT_VALID
        assert stub.hits == 9


@pytest.mark.parametrize("preset", ["owasp-high", "owasp-low"])
async def test_two_lookalikes_by_turns_later(tmp_path: Path, clock: ManualClock, preset: str) -> None:
    """Two clients that take turns every second are told and stopped after four granularities, not eight seconds."""
    rules = story.policy(preset, {SignalType.CONCURRENT_USE: Reaction.STEP_UP, SignalType.IP_CHANGE: Reaction.ALERT})
    turns = 0
    async with story.authority(tmp_path, clock, rules) as (_, stub):
        mine = await story.create(stub)
        while True:
            client = story.VICTIM if turns % 2 else test_theft.LOOKALIKE
            answer = await story.validate(stub, mine.token, client)
            if answer.verdict != pb.VERDICT_VALID:
                break
            turns += 1
            clock.advance(story.SECOND)
            assert turns * story.SECOND <= 5 * granularity(preset)
        assert turns > test_theft.DOORSTEP
        assert story.unmet_kinds(answer) == ["REAUTHENTICATION"]
        for client in (test_theft.LOOKALIKE, story.VICTIM):  # nothing that is still kept lets either of them in
            denied = await story.validate(stub, mine.token, client)
            assert (denied.verdict, story.unmet_kinds(denied)) == (pb.VERDICT_INSUFFICIENT, ["REAUTHENTICATION"])
        alarm = story.hijacks(await story.story_of(stub))[-1]
        assert (story.signal_types(alarm)[-1], alarm.reaction) == ("CONCURRENT_USE", pb.REACTION_STEP_UP)


@pytest.mark.parametrize("ends", [False, True], ids=["alert", "revoke"])
async def test_the_owner_comes_again_and_again_later(tmp_path: Path, clock: ManualClock, ends: bool) -> None:
    """The thief who rolled first is told at his next use that reaches the authority, within the granularity."""
    reaction = Reaction.REVOKE_SESSION if ends else Reaction.ALERT
    rules = story.policy(reactions={SignalType.CONCURRENT_USE: reaction})
    async with story.authority(tmp_path, clock, rules) as (_, stub):
        owner, thief = await test_quiet_thief.stolen(stub, clock)
        used_at = clock.now()
        await test_quiet_thief.come_back(stub, clock, owner, 3, 2 * story.SECOND)
        assert (await story.validate(stub, thief)).verdict == pb.VERDICT_VALID  # from memory
        clock.advance(used_at + granularity("owasp-low") - clock.now())
        used = await story.validate(stub, thief)
        assert used.verdict == (pb.VERDICT_REVOKED if ends else pb.VERDICT_VALID)
        alarm = story.hijacks(await story.story_of(stub, owner, thief))[-1]
        assert story.signal_types(alarm) == ["CONCURRENT_USE"]


async def test_a_theft_within_the_granularity_is_told_at_once(tmp_path: Path, clock: ManualClock) -> None:
    """However busy the victim's cache is, the thief's first use from elsewhere is told, and stopped, at once."""
    async with story.authority(tmp_path, clock, story.policy("owasp-high")) as (_, stub):
        mine = await story.create(stub)
        for _ in range(5):
            clock.advance(story.SECOND)
            assert (await story.validate(stub, mine.token)).verdict == pb.VERDICT_VALID
        stolen = await story.validate(stub, mine.token, story.ATTACKER)
        assert (stolen.verdict, story.unmet_kinds(stolen)) == (pb.VERDICT_INSUFFICIENT, ["REAUTHENTICATION"])
        assert (await story.validate(stub, mine.token)).verdict == pb.VERDICT_VALID
        assert len(story.hijacks(await story.story_of(stub, mine.token))) == 1


async def test_the_protections_are_what_stops_them(
    app: App, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the cache's attention to events a logged-out session goes on: this is what the stories would report."""
    monkeypatch.setattr(NearCache, "apply", lambda self, change: None)
    async with near_stub_for(app.address, clock) as stub:
        mine = await story.create(stub)
        await story.validate(stub, mine.token)
        await test_logout_race.revoke(stub, mine.session.session_id)
        assert (await story.validate(stub, mine.token)).verdict == pb.VERDICT_VALID
