"""Guessing: tokens that nobody ever issued, from one address, from many, and from behind an honest neighbour."""

from __future__ import annotations

import asyncio
import sys
from base64 import urlsafe_b64encode
from dataclasses import replace
from os import urandom
from pathlib import Path

import pytest

from sessiond.detection.guesses import GuessWatch
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.values import Instant
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import ATTACKER, MINUTE, authority, create, kinds, login, policy, roll, story_of, validate
from tests.rpc.refusals import refusal_of
from tests.support.clock import ManualClock
from tests.support.figures import report
from tests.support.server import AsyncStub
from tests.support.tokens import revision_in

LIMITS = GuessLimits(alarm_after=20, lock_after=100, flood_after=1_000)
SHUT = replace(LIMITS, deny_valid=True)
SOURCE = "203.0.113.66/32"
HERE = pb.ClientContext(ip_address="203.0.113.66")
ELSEWHERE = pb.ClientContext(ip_address="203.0.113.67")


def forged() -> str:
    """A token of the right form that nobody ever issued."""
    return urlsafe_b64encode(urandom(52)).rstrip(b"=").decode()


async def guess(stub: AsyncStub, times: int, client: pb.ClientContext = HERE) -> set[str]:
    """Present forged tokens, one call each; the verdicts."""
    answers = await asyncio.gather(*(validate(stub, forged(), client) for _ in range(times)))
    return {pb.Verdict.Name(answer.verdict) for answer in answers}


async def locks(stub: AsyncStub) -> list[str]:
    """The sources that are locked."""
    answer = await stub.ListSourceLocks(pb.ListSourceLocksRequest())
    return [lock.source for lock in answer.source_locks]


async def told(stub: AsyncStub) -> list[tuple[str, str]]:
    """Kind and source of the events about sources. What is told behind an answer is in the log after a commit."""
    await create(stub)
    return [(kind, e.source) for e in await story_of(stub) if "SESSION" not in (kind := kinds([e])[0])]


async def test_the_alarm_at_its_threshold(stub: AsyncStub) -> None:
    """Nineteen guesses from a source are nothing yet, the twentieth is the alarm, and there is one a window."""
    assert await guess(stub, 19) == {"VERDICT_FORGED"}
    assert await told(stub) == []
    await guess(stub, 1)
    assert await told(stub) == [("GUESSING_SUSPECTED", SOURCE)]
    await guess(stub, 50)
    assert len(await told(stub)) == 1


async def test_the_lock_at_its_threshold(stub: AsyncStub, clock: ManualClock) -> None:
    """Ninety-nine guesses lock nothing, the hundredth locks the source for its time, and tells it once."""
    await guess(stub, 99)
    assert await locks(stub) == []
    await guess(stub, 1)
    listed = await stub.ListSourceLocks(pb.ListSourceLocksRequest())
    (lock,) = listed.source_locks
    assert (lock.source, lock.application) == (SOURCE, "default")
    assert lock.lock_time.ToMilliseconds() == clock.now()
    assert lock.expire_time.ToMilliseconds() == clock.now() + 15 * MINUTE
    assert await guess(stub, 500) == {"VERDICT_FORGED"}
    assert await told(stub) == [("GUESSING_SUSPECTED", SOURCE), ("SOURCE_LOCKED", SOURCE)]


async def test_malformed_tokens_are_guesses_too(stub: AsyncStub) -> None:
    """Tokens that are not even of the form count, whatever call they come with."""
    named = pb.SessionReference(token="x")
    for _ in range(50):
        assert (await validate(stub, "x", HERE)).verdict == pb.VERDICT_MALFORMED
        refused = await stub.RevokeSession(pb.RevokeSessionRequest(session=named, client=HERE))
        assert refused.verdict == pb.VERDICT_MALFORMED
    assert await locks(stub) == [SOURCE]


async def test_one_customer_is_one_source(stub: AsyncStub) -> None:
    """A guesser who changes address within his IPv6 /64 is one source; an IPv4 neighbour is another."""
    for n in range(100):
        await validate(stub, forged(), pb.ClientContext(ip_address=f"2001:db8:0:7::{n:x}"))
        await validate(stub, forged(), pb.ClientContext(ip_address=f"198.51.100.{n}"))
    assert await locks(stub) == ["2001:db8:0:7::/64"]


async def test_the_window_passes(stub: AsyncStub, clock: ManualClock) -> None:
    """Guesses of two windows are not counted together: patience gets a guesser nineteen a minute, of 2^128."""
    for _ in range(3):
        await guess(stub, 19)
        clock.advance(MINUTE)
    assert await told(stub) == []


async def test_a_flood_from_everywhere(stub: AsyncStub) -> None:
    """A thousand guesses from as many sources are one alarm, for all of them together, and lock nobody."""
    sources = [pb.ClientContext(ip_address=f"198.18.{n >> 8}.{n & 255}") for n in range(1_100)]
    questions = [pb.ValidateSessionRequest(token=forged(), client=source) for source in sources]
    for start in (0, 550):
        batch = pb.ValidateSessionsRequest(requests=questions[start : start + 550])
        await stub.ValidateSessions(batch)
    assert await told(stub) == [("GUESSING_SUSPECTED", "*")]
    assert await locks(stub) == []


async def test_the_honest_neighbour(stub: AsyncStub) -> None:
    """A lock shuts out no valid token of the same address, no login, and no change."""
    mine = await create(stub, client=HERE)
    await guess(stub, 100)
    assert await locks(stub) == [SOURCE]
    assert (await validate(stub, mine.token, HERE)).verdict == pb.VERDICT_VALID
    guest = await create(stub, "", client=HERE)
    own = await login(stub, guest.token, "bob", HERE)
    assert (own.verdict, bool(own.token)) == (pb.VERDICT_VALID, True)
    assert (await roll(stub, mine.token, HERE)).token


async def test_a_lock_that_shuts_out(tmp_path: Path, clock: ManualClock) -> None:
    """Where the policy says so, valid tokens of a locked address are refused as LOCKED, and nobody else's."""
    async with authority(tmp_path, clock, policy(guessing=SHUT)) as (app, stub):
        mine = await create(stub, client=HERE)
        assert (await validate(stub, mine.token, HERE)).verdict == pb.VERDICT_VALID
        await guess(stub, 100)
        refused = await validate(stub, mine.token, HERE)
        assert (refused.verdict, refused.next_step) == (pb.VERDICT_LOCKED, pb.NEXT_STEP_KEEP_TOKEN)
        assert not refused.HasField("session")
        assert (await login(stub, mine.token, client=HERE)).verdict == pb.VERDICT_LOCKED
        assert (await stub.RollSession(pb.RollSessionRequest(token=mine.token, client=HERE))).verdict == (
            pb.VERDICT_LOCKED
        )
        # A guesser learns nothing from a lock: forged and valid tokens are answered alike.
        assert await guess(stub, 3) == {"VERDICT_LOCKED"}
        assert (await validate(stub, mine.token, ELSEWHERE)).verdict == pb.VERDICT_VALID
        clock.advance(15 * MINUTE - 1)
        assert (await validate(stub, mine.token, HERE)).verdict == pb.VERDICT_LOCKED
        clock.advance(1)
        assert (await validate(stub, mine.token, HERE)).verdict == pb.VERDICT_VALID
        await app.authority.parts.gate.release_due()
        assert (await told(stub))[-1] == ("SOURCE_UNLOCKED", SOURCE)


async def test_a_lock_ends_by_itself(tmp_path: Path, clock: ManualClock) -> None:
    """A lock holds up to its last millisecond, then the source is let go and that is told; guessing begins anew."""
    async with authority(tmp_path, clock) as (app, stub):
        await guess(stub, 100)
        clock.advance(15 * MINUTE - 1)
        assert await app.authority.parts.gate.release_due() == 0
        assert await locks(stub) == [SOURCE]
        clock.advance(1)
        assert await locks(stub) == []
        await app.authority.parts.gate.release_due()
        assert (await told(stub))[-1] == ("SOURCE_UNLOCKED", SOURCE)
        await guess(stub, 100)
        assert await locks(stub) == [SOURCE]


async def test_the_sweeper_lets_go(stub: AsyncStub, clock: ManualClock) -> None:
    """Nobody has to ask: within its interval the sweeper tells that a lock's time is over."""
    await guess(stub, 100)
    clock.advance(15 * MINUTE)
    for _ in range(50):
        if ("SOURCE_UNLOCKED", SOURCE) in await told(stub):
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the sweeper did not let go of the source")


async def test_an_operator_clears_a_lock(stub: AsyncStub) -> None:
    """ClearSourceLock lets a source go at once, tells who and why, and forgets what was counted."""
    await guess(stub, 100)
    cleared = await stub.ClearSourceLock(pb.ClearSourceLockRequest(source=SOURCE, reason="a known scanner"))
    assert await locks(stub) == []
    event = (await story_of(stub))[revision_in(cleared) - 1]
    assert (kinds([event]), event.source) == (["SOURCE_UNLOCKED"], SOURCE)
    assert (event.cause.kind, event.cause.reason) == (pb.CAUSE_KIND_REQUEST, "a known scanner")
    await guess(stub, 99)
    assert await locks(stub) == []
    refused = await refusal_of(stub.ClearSourceLock(pb.ClearSourceLockRequest(source=SOURCE)))
    assert refused.code.name == "NOT_FOUND"


async def test_stale_tokens_are_no_guesses(stub: AsyncStub, clock: ManualClock) -> None:
    """A client with old tokens, whatever became of them, is never counted among the guessers."""
    rolled = await create(stub, client=HERE)
    await roll(stub, rolled.token, HERE)
    revoked = await create(stub, client=HERE)
    await stub.RevokeSession(pb.RevokeSessionRequest(session=pb.SessionReference(token=revoked.token)))
    expired = await create(stub, client=HERE)
    seen = set()
    for _ in range(60):
        for token in (rolled.token, revoked.token):
            seen.add(pb.Verdict.Name((await validate(stub, token, HERE)).verdict))
    clock.advance(30 * MINUTE)
    for _ in range(120):
        seen.add(pb.Verdict.Name((await validate(stub, expired.token, HERE)).verdict))
    assert seen == {"VERDICT_SUPERSEDED", "VERDICT_REVOKED", "VERDICT_EXPIRED_IDLE"}
    assert await told(stub) == []
    assert await locks(stub) == []
    await guess(stub, 100)  # the control: these are
    assert await locks(stub) == [SOURCE]


async def test_limits_switched_off(tmp_path: Path, clock: ManualClock) -> None:
    """Where locking is off, guesses are told and never locked out."""
    limits = GuessLimits(alarm_after=20, lock_after=0, flood_after=1_000_000)
    async with authority(tmp_path, clock, policy(guessing=limits)) as (_, stub):
        await guess(stub, 500)
        assert await locks(stub) == []
        assert await told(stub) == [("GUESSING_SUSPECTED", SOURCE)]


def held(watch: GuessWatch) -> int:
    """The memory that the counters take, in bytes."""
    counts = watch._counts._entries
    entries = sum(sys.getsizeof(key) + sys.getsizeof(key[1]) + sys.getsizeof(c) for key, c in counts.items())
    return sys.getsizeof(counts) + entries


def test_a_million_spoofed_sources() -> None:
    """A million sources take no more memory than the first twenty thousand did, and the flood is told all the same."""
    watch, now = GuessWatch(), Instant(1_800_000_000_000)

    def flood(first: int, last: int) -> int:
        alarms = 0
        for n in range(first, last):
            assert watch.guess("default", f"11.{n >> 16}.{n >> 8 & 255}.{n & 255}/32", LIMITS, now) == "nothing"
            alarms += watch.flood("default", LIMITS, now)
        return alarms

    alarms = flood(0, 20_000)
    early = held(watch)
    alarms += flood(20_000, 1_000_000)
    report(f"guess watch: {early / 1e6:.2f} MB after 20,000 sources, {held(watch) / 1e6:.2f} MB after 1,000,000")
    assert len(watch) == 10_000
    assert held(watch) < 1.1 * early < 10e6
    assert alarms == 1
    assert watch.locks("default", now) == []


def test_locks_are_bounded_too() -> None:
    """Even where every source is locked at its first guess, no more than ten thousand locks are held."""
    watch, now = GuessWatch(), Instant(1_800_000_000_000)
    limits = GuessLimits(alarm_after=1, lock_after=1)
    for n in range(100_000):
        watch.guess("default", f"{n}/32", limits, now)
    assert len(watch) == 0
    assert sum(watch.locked("default", f"{n}/32", now) is not None for n in range(100_000)) == 10_000


async def test_locks_are_of_one_application(tmp_path: Path, clock: ManualClock) -> None:
    """Who guesses at one application is not locked for another."""
    rules = policy(guessing=SHUT)
    async with authority(tmp_path, clock, rules, extra={"shop": rules}) as (_, stub):
        mine = await create(stub, application="shop", client=HERE)
        await guess(stub, 100)
        assert (await validate(stub, forged(), HERE)).verdict == pb.VERDICT_LOCKED
        answer = await validate(stub, mine.token, HERE, application="shop")
        assert answer.verdict == pb.VERDICT_VALID


async def test_no_token_is_no_guess(tmp_path: Path, clock: ManualClock) -> None:
    """Requests without any token, as a proxy sends them for every guest, are malformed and never counted."""
    async with authority(tmp_path, clock) as (_, stub):
        for _ in range(200):
            assert (await validate(stub, "", ATTACKER)).verdict == pb.VERDICT_MALFORMED
        assert await story_of(stub) == []
