"""A login's answer arrives after `roll_tolerance`, and the browser has sent its old token meanwhile.

The server sees an old token, and then the first use of the new one. If one client did both it is one browser whose
answer was late. If two did, one of them has a token that it should not have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Millis
from sessiond.eventlog import history
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
    validate,
)
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

LATE = 30 * SECOND
SILENT = pb.ClientContext()
NO_AGENT = pb.ClientContext(ip_address=VICTIM.ip_address)
ROAMED = pb.ClientContext(ip_address="198.51.100.7", user_agent=VICTIM.user_agent)


async def late_login(stub: AsyncStub, clock: ManualClock, meanwhile: Sequence[pb.ClientContext]) -> tuple[str, str]:
    """Log in, and let these clients send the old token before the answer arrives; the old token and the new one."""
    guest = await create(stub, "")
    answer = await login(stub, guest.token)
    clock.advance(LATE)
    for client in meanwhile:
        denied = await validate(stub, guest.token, client)
        assert (denied.verdict, signal_types(denied)) == (pb.VERDICT_REPLAYED, [])
    return guest.token, answer.token


@pytest.mark.parametrize("requests", [1, 3])
async def test_a_late_answer_ends_nothing(tmp_path: Path, clock: ManualClock, requests: int) -> None:
    """Under owasp-low the same client's first use of the new token is one alert, and the session goes on."""
    async with authority(tmp_path, clock) as (_, stub):
        old, new = await late_login(stub, clock, [VICTIM] * requests)
        first = await validate(stub, new)
        assert (first.verdict, signal_types(first)) == (pb.VERDICT_VALID, ["TOKEN_COPY"])
        clock.advance(5 * MINUTE)
        later = await validate(stub, new)
        assert (later.verdict, signal_types(later)) == (pb.VERDICT_VALID, [])
        events = await story_of(stub, old, new)
        assert kinds(events).count("OLD_TOKEN_PRESENTED") == 1
        assert [alarm.reaction for alarm in hijacks(events)] == [pb.REACTION_ALERT]


async def test_the_token_that_was_rolled_away_stays_a_copy(tmp_path: Path, clock: ManualClock) -> None:
    """The old token is denied after that too; from elsewhere it is a theft, as ever."""
    async with authority(tmp_path, clock) as (_, stub):
        old, new = await late_login(stub, clock, [VICTIM])
        await validate(stub, new)
        clock.advance(MINUTE)
        again = await validate(stub, old)
        assert (again.verdict, signal_types(again)) == (pb.VERDICT_REPLAYED, ["TOKEN_COPY"])
        thief = await validate(stub, old, ATTACKER)
        assert (thief.verdict, signal_types(thief)) == (pb.VERDICT_REPLAYED, ["TOKEN_REPLAY"])
        assert (await validate(stub, new)).verdict == pb.VERDICT_REVOKED


async def test_owasp_high_ends_the_session(tmp_path: Path, clock: ManualClock) -> None:
    """Under owasp-high a copy ends the session, whoever has it."""
    async with authority(tmp_path, clock, policy("owasp-high")) as (_, stub):
        _, new = await late_login(stub, clock, [VICTIM])
        first = await validate(stub, new)
        assert (first.verdict, signal_types(first)) == (pb.VERDICT_REVOKED, ["TOKEN_COPY"])


@pytest.mark.parametrize(
    "meanwhile",
    [[ATTACKER], [SILENT], [NO_AGENT], [ROAMED], [VICTIM, ATTACKER], [ATTACKER, VICTIM], [VICTIM, SILENT]],
    ids=["attacker", "silent", "no agent", "another network", "both", "both, thief first", "one is silent"],
)
async def test_an_old_token_from_elsewhere_is_a_theft(
    tmp_path: Path, clock: ManualClock, meanwhile: list[pb.ClientContext]
) -> None:
    """If anybody but the client that uses the new token sent the old one, the session ends; each is recorded once."""
    async with authority(tmp_path, clock) as (_, stub):
        old, new = await late_login(stub, clock, meanwhile * 2)
        first = await validate(stub, new)
        assert (first.verdict, signal_types(first)) == (pb.VERDICT_REVOKED, ["TOKEN_REPLAY"])
        events = await story_of(stub, old, new)
        assert kinds(events).count("OLD_TOKEN_PRESENTED") == len(meanwhile)


@pytest.mark.parametrize("reaction", [Reaction.ALERT, Reaction.IGNORE])
async def test_once_it_is_settled_the_owner_may_roam(tmp_path: Path, clock: ManualClock, reaction: Reaction) -> None:
    """The first use of the new token settles it, also if copies are ignored: the owner's next network is no theft."""
    rules = policy(reactions={SignalType.TOKEN_COPY: reaction})
    async with authority(tmp_path, clock, rules) as (_, stub):
        _, new = await late_login(stub, clock, [VICTIM])
        for client in (VICTIM, VICTIM, ROAMED, ROAMED):
            assert (await validate(stub, new, client)).verdict == pb.VERDICT_VALID
            clock.advance(20 * MINUTE)


async def test_a_copy_that_was_reported_before_is_settled_too(tmp_path: Path, clock: ManualClock) -> None:
    """A report within the fold window does not keep the mark: the owner's next network is no theft."""
    rules = policy(lost_answer_tolerance=Millis(40 * SECOND))
    async with authority(tmp_path, clock, rules) as (_, stub):
        old, new = await late_login(stub, clock, [VICTIM])
        clock.advance(11 * SECOND)
        assert signal_types(await validate(stub, old)) == ["TOKEN_COPY"]
        assert (await validate(stub, new)).verdict == pb.VERDICT_VALID
        clock.advance(MINUTE)
        assert (await validate(stub, new, ROAMED)).verdict == pb.VERDICT_VALID


async def test_an_old_token_from_two_clients_at_once_is_a_theft(tmp_path: Path, clock: ManualClock) -> None:
    """Both are recorded, also if one transaction decides both."""
    async with authority(tmp_path, clock) as (_, stub):
        old, new = await late_login(stub, clock, [])
        await asyncio.gather(*(validate(stub, old, client) for client in (VICTIM, ATTACKER) * 5))
        assert kinds(await story_of(stub, old, new)).count("OLD_TOKEN_PRESENTED") == 2
        assert (await validate(stub, new)).verdict == pb.VERDICT_REVOKED


async def test_a_thief_who_rolled_is_out_when_the_owner_comes_back(tmp_path: Path, clock: ManualClock) -> None:
    """The owner's old token and the thief's new one come from two clients: the session ends."""
    async with authority(tmp_path, clock) as (_, stub):
        owner = await create(stub)
        thief = await roll(stub, owner.token, ATTACKER)
        clock.advance(LATE)
        assert (await validate(stub, owner.token)).verdict == pb.VERDICT_REPLAYED
        assert (await validate(stub, thief.token, ATTACKER)).verdict == pb.VERDICT_REVOKED


@pytest.mark.parametrize(
    ("learned", "outcome"),
    [(10_000, (pb.VERDICT_VALID, ["TOKEN_COPY"])), (1, (pb.VERDICT_REVOKED, ["TOKEN_REPLAY"]))],
)
async def test_after_a_restart(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, learned: int, outcome: tuple[int, list[str]]
) -> None:
    """A restarted server learns from the log who sent the old token; if that is too far back, it is a theft."""
    monkeypatch.setattr(history, "_MOST", learned)
    async with authority(tmp_path, clock) as (_, stub):
        old, new = await late_login(stub, clock, [VICTIM])
    async with authority(tmp_path, clock) as (_, stub):
        assert (await validate(stub, old)).verdict == pb.VERDICT_REPLAYED
        first = await validate(stub, new)
        assert (first.verdict, signal_types(first)) == outcome


async def test_a_crowd_with_the_old_token_writes_little(tmp_path: Path, clock: ManualClock) -> None:
    """Forty clients with the old token leave five events at most, and the new token's use is a theft."""
    async with authority(tmp_path, clock) as (_, stub):
        crowd = [pb.ClientContext(ip_address=f"192.0.2.{n}", user_agent=VICTIM.user_agent) for n in range(1, 41)]
        old, new = await late_login(stub, clock, [])
        await asyncio.gather(*(validate(stub, old, client) for client in crowd))
        for client in crowd:
            assert (await validate(stub, old, client)).verdict == pb.VERDICT_REPLAYED
        assert kinds(await story_of(stub, old, new)).count("OLD_TOKEN_PRESENTED") <= 5
        first = await validate(stub, new)
        assert (first.verdict, signal_types(first)) == (pb.VERDICT_REVOKED, ["TOKEN_REPLAY"])


@pytest.mark.parametrize("reaction", [Reaction.ALERT, Reaction.IGNORE, Reaction.STEP_UP])
async def test_one_client_with_both_tokens_writes_little(
    tmp_path: Path, clock: ManualClock, reaction: Reaction
) -> None:
    """However often it presents the one and the other in turn, it is recorded once, and reported once."""
    rules = policy(reactions={SignalType.TOKEN_COPY: reaction})
    async with authority(tmp_path, clock, rules) as (_, stub):
        old, new = await late_login(stub, clock, [])
        for _ in range(5):
            await validate(stub, old)
            await validate(stub, new, passive=True)
        settled = "SESSION_REFRESHED" if reaction is Reaction.IGNORE else "HIJACK_SUSPECTED"
        assert kinds(await story_of(stub, old, new))[3:] == ["OLD_TOKEN_PRESENTED", settled]


async def test_a_thief_beside_the_owner_in_one_transaction(tmp_path: Path, clock: ManualClock) -> None:
    """The owner's late login is a theft if a thief presents the old token at the very moment of the new one's use."""
    async with authority(tmp_path, clock) as (_, stub):
        old, new = await late_login(stub, clock, [VICTIM])
        _, used = await asyncio.gather(validate(stub, old, ATTACKER), validate(stub, new))
        assert (used.verdict, signal_types(used)) == (pb.VERDICT_REVOKED, ["TOKEN_REPLAY"])


async def test_a_login_on_the_new_token_is_no_refresh(tmp_path: Path, clock: ManualClock) -> None:
    """Who authenticates again settles everything by that; nothing is recorded beside it."""
    async with authority(tmp_path, clock) as (_, stub):
        old, new = await late_login(stub, clock, [VICTIM])
        again = await login(stub, new)
        assert again.verdict == pb.VERDICT_VALID
        told = ["OLD_TOKEN_PRESENTED", "SESSION_AUTHENTICATED", "SESSION_ROLLED"]
        assert kinds(await story_of(stub, old, new))[3:] == told


async def test_a_bound_session_is_the_devices(tmp_path: Path, clock: ManualClock) -> None:
    """An old token that comes without the device that the session is bound to is a theft, also from the same place."""
    bound = pb.ClientContext(ip_address=VICTIM.ip_address, user_agent=VICTIM.user_agent, device_id="a device")
    async with authority(tmp_path, clock) as (_, stub):
        guest = await create(stub, "", client=bound)
        new = (await login(stub, guest.token, client=bound)).token
        clock.advance(LATE)
        assert (await validate(stub, guest.token, VICTIM)).verdict == pb.VERDICT_REPLAYED
        used = await validate(stub, new, bound)
        assert (used.verdict, signal_types(used)) == (pb.VERDICT_REVOKED, ["TOKEN_REPLAY"])
