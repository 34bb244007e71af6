"""A thief who rolls first: the owner is denied without alarm while requests may be in flight, and yet it is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond.domain.signals import Reaction, SignalType
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    SECOND,
    authority,
    create,
    hijacks,
    login,
    policy,
    roll,
    signal_types,
    story_of,
    validate,
)
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub


async def stolen(stub: AsyncStub, clock: ManualClock) -> tuple[str, str]:
    """The owner's token, and the thief's, who has rolled it and used the new one. Addresses are as one's own."""
    owner = (await create(stub)).token
    clock.advance(SECOND)
    thief = (await roll(stub, owner)).token
    clock.advance(1)
    assert (await validate(stub, thief)).verdict == pb.VERDICT_VALID
    return owner, thief


async def come_back(stub: AsyncStub, clock: ManualClock, token: str, times: int, apart: int) -> None:
    """The owner comes so often, and is denied as a request in flight is."""
    for _ in range(times):
        clock.advance(apart)
        denied = await validate(stub, token)
        assert (denied.verdict, list(denied.signals)) == (pb.VERDICT_SUPERSEDED, [])


@pytest.mark.parametrize("times", [3, 6])
async def test_the_owner_comes_again_and_again(tmp_path: Path, clock: ManualClock, times: int) -> None:
    """The next use of the thief's token is told as concurrent use, once."""
    async with authority(tmp_path, clock) as (_, stub):
        owner, thief = await stolen(stub, clock)
        await come_back(stub, clock, owner, times, 2 * SECOND)
        assert not hijacks(await story_of(stub))
        used = await validate(stub, thief)
        assert (used.verdict, signal_types(used)) == (pb.VERDICT_VALID, ["CONCURRENT_USE"])
        await validate(stub, thief)
        (alarm,) = hijacks(await story_of(stub, owner, thief))
        assert signal_types(alarm) == ["CONCURRENT_USE"]


async def test_the_policy_can_end_it(tmp_path: Path, clock: ManualClock) -> None:
    """A policy that revokes for concurrent use ends the thief's session so."""
    async with authority(tmp_path, clock, policy(reactions={SignalType.CONCURRENT_USE: Reaction.REVOKE_SESSION})) as (
        _,
        stub,
    ):
        owner, thief = await stolen(stub, clock)
        await come_back(stub, clock, owner, 3, 2 * SECOND)
        assert (await validate(stub, thief)).verdict == pb.VERDICT_REVOKED


@pytest.mark.parametrize(("times", "apart"), [(2, 2 * SECOND), (12, 50)], ids=["twice", "one burst"])
async def test_requests_in_flight_are_no_sign(tmp_path: Path, clock: ManualClock, times: int, apart: int) -> None:
    """A page's many requests that were under way at the roll, and one or two stragglers, raise nothing."""
    async with authority(tmp_path, clock) as (_, stub):
        old, new = await stolen(stub, clock)
        await come_back(stub, clock, old, times, apart)
        assert not signal_types(await validate(stub, new))
        assert not hijacks(await story_of(stub))


async def test_a_new_token_that_is_not_used_is_no_sign(tmp_path: Path, clock: ManualClock) -> None:
    """As long as nobody has used the new token its answer may be lost: the old one's uses are no sign of a second."""
    async with authority(tmp_path, clock) as (_, stub):
        old = (await create(stub)).token
        new = (await roll(stub, old)).token
        await come_back(stub, clock, old, 6, 2 * SECOND)
        assert not signal_types(await validate(stub, new))


async def test_who_authenticates_begins_anew(tmp_path: Path, clock: ManualClock) -> None:
    """After the subject has authenticated with the new token nothing is left of it."""
    async with authority(tmp_path, clock) as (_, stub):
        owner, thief = await stolen(stub, clock)
        await come_back(stub, clock, owner, 6, 2 * SECOND)
        again = await login(stub, thief, client=ATTACKER)
        assert not signal_types(await validate(stub, again.token, ATTACKER))
