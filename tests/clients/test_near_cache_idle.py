"""Sessions that are used only through near caches end when they should: the idle timeout after their last use."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.values import Millis
from sessiond.rpc import encode
from sessiond.rpc.cursor import encode_cursor
from sessiond.system.entropy import SystemEntropy
from sessiond_client import AsyncClient, Validation, Verdict, calls
from sessiond_client.near_cache import Fill, NearCache
from sessiond_client.near_question import Answered, Miss, NearQuestions
from sessiond_client.near_stream import Conversation
from sessiond_client.outcome import Outcome, attempt
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.clients.test_near_cache import near
from tests.simulation.service import Service
from tests.support.assembled import Assembled
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

LEASE = 5_000
CACHES = 3


def idle_policy(idle: int) -> Policy:
    """A policy of which only the idle timeout ends a session."""
    return replace(PRESETS["owasp-low"], idle_timeout=Millis(idle), absolute_timeout=None, renewal_timeout=None)


class Near:
    """One near cache, without I/O, that follows an authority without a transport, on the same clock."""

    def __init__(self, core: Assembled, service: Service, clock: ManualClock) -> None:
        self._core, self._service, self._clock = core, service, clock
        cache: NearCache[Validation] = NearCache(clock=clock.now)
        self.questions = NearQuestions(cache)
        self._conversation = Conversation(cache, ("default",), "test")
        self._conversation.clock = clock.now
        self._number = 0
        self._applied = core.authority.parts.feed.revision
        self._grant(self._conversation.begin()[-1], started=True)

    def _send(self, **item: Any) -> None:
        parts = self._core.authority.parts
        self._number += 1
        cursor = encode_cursor(parts.store.authority_id, parts.feed.position())
        self._conversation.received(pb.FollowResponse(number=self._number, cursor=cursor, **item))

    def _grant(self, renewal: pb.FollowRequest, *, started: bool = False) -> None:
        if started:
            self._send(started=pb.FollowStarted(incarnation="i", policies_fingerprint="p"))
        grant = pb.LeaseGrant(nonce=renewal.renewal.nonce)
        grant.duration.FromMilliseconds(LEASE)
        self._send(grant=grant)

    async def follow(self) -> None:
        """Get what is new, and a lease."""
        feed = self._core.authority.parts.feed
        events = list(await self._core.store.events(self._applied, 1_000)) if self._applied < feed.revision else []
        self._applied = feed.revision
        if events:
            self._send(batch=pb.FollowResponse.FromString(encode.batch_message(events)).batch)
        self._grant(self._conversation.due()[-1])

    async def validate(self, token: str, *, passive: bool) -> tuple[Validation, bool]:
        """Validate as a client does. Returns the answer, and whether it came from memory."""
        known = self.questions.known(token, None, passive, None, False, None, None)
        if known is not None:
            return known, True
        miss = self.questions.missed(attempt(calls.validate, "default", token, passive=passive))
        assert miss is not None
        self.questions.begin(miss)
        response = await self._service.ask("ValidateSession", miss.call.request)
        outcome = self.questions.end(miss, Outcome(miss.call.read(response)))
        assert outcome is not None
        return outcome.get(), False


USES = st.lists(
    st.tuples(
        st.integers(0, CACHES - 1),  # through which cache
        st.one_of(  # how long after the use before, in thousandths of the idle timeout
            st.integers(0, 60), st.integers(0, 1_060), st.sampled_from([49, 50, 51, 949, 950, 951, 999, 1_000, 1_001])
        ),
        st.integers(-1, 1),  # and so many milliseconds
        st.booleans(),  # whether all caches hear of events before it, or only the one that is asked
        st.sampled_from([False, False, False, True]),  # passive
        st.sampled_from([False, True]),  # whether the sweeper runs before
    ),
    min_size=1,
    max_size=40,
)


async def live(idle: int, uses: list[tuple[int, int, int, bool, bool, bool]]) -> None:
    """Use a session as told, and compare each verdict with what the uses alone say."""
    clock, policy = ManualClock(), idle_policy(idle)
    with tempfile.TemporaryDirectory() as folder:
        core = await Assembled.open(Path(folder), {"default": policy}, clock, SystemEntropy())
        try:
            service = Service(core.authority)
            made = await service.ask("CreateSession", pb.CreateSessionRequest(subject="ada"))
            caches = [Near(core, service, clock) for _ in range(CACHES)]
            last, ended = clock.now(), False
            for number, thousandths, more, all_hear, passive, sweeps in uses:
                now = clock.advance(max(0, idle * thousandths // 1_000 + more))
                if sweeps:
                    await core.sweep()
                for cache in caches if all_hear else [caches[number]]:
                    await cache.follow()
                answer, _ = await caches[number].validate(made.token, passive=passive)
                quiet = now - last
                if ended or quiet >= idle:
                    assert answer.verdict is Verdict.EXPIRED_IDLE, "it lived beyond its idle timeout"
                    ended = True
                elif quiet < idle - policy.touch_granularity:
                    assert answer.valid, "it expired early by more than the granularity"
                ended = ended or not answer.valid
                if answer.valid and not passive:
                    last = now
        finally:
            await core.close()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.sampled_from([60_000, 300_000, 1_800_000, 86_400_000]), USES)
def test_idle_timeouts_hold_through_near_caches(idle: int, uses: list[tuple[int, int, int, bool, bool, bool]]) -> None:
    """Used through three near caches at random, a session ends at most one granularity early, and never late."""
    asyncio.run(live(idle, uses))


def test_steady_use_is_mostly_answered_from_memory() -> None:
    """A session that is used every second for an hour lives, and comes to the authority once in the granularity."""

    async def use() -> int:
        clock, policy = ManualClock(), idle_policy(1_800_000)
        with tempfile.TemporaryDirectory() as folder:
            core = await Assembled.open(Path(folder), {"default": policy}, clock, SystemEntropy())
            try:
                service = Service(core.authority)
                made = await service.ask("CreateSession", pb.CreateSessionRequest(subject="ada"))
                cache, asked = Near(core, service, clock), 0
                for _ in range(3_600):
                    clock.advance(1_000)
                    await cache.follow()
                    answer, hit = await cache.validate(made.token, passive=False)
                    assert answer.valid
                    asked += not hit
                return asked
            finally:
                await core.close()

    assert asyncio.run(use()) == 60


def test_the_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that reuses answers for too long is reported: the session lives on, or ends too early."""

    def keep_for_ever(self: NearQuestions, miss: Miss, fill: Fill, answered: Answered) -> Validation:
        if answered.validation.valid:
            about = {"session": "s", "application": "default", "network": "", "ms": 10**12, "size": 1}
            self.cache.keep(fill, answered.validation, **about)  # type: ignore[arg-type]
        return answered.validation

    monkeypatch.setattr(NearQuestions, "_kept", keep_for_ever)
    with pytest.raises(AssertionError, match="beyond its idle timeout"):
        asyncio.run(live(300_000, [(0, 0, 0, True, False, False), (0, 1_001, 0, True, False, False)]))
    with pytest.raises(AssertionError, match="expired early"):
        asyncio.run(live(300_000, [(0, 900, 0, True, False, False)] * 2 + [(1, 900, 0, True, False, False)]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AsyncClient])
async def test_idle_timeouts_hold_in_real_time(kind: Any, tmp_path: Path) -> None:
    """By real clocks: a session that is used every 50 ms for two idle timeouts lives, and one that is not used ends."""
    idle = 4.0
    rules = idle_policy(int(idle * 1_000))
    async with (
        serving(config_for(tmp_path, policies={"default": rules})) as app,
        AsyncClient(app.address) as plain,
        near(kind, app.address) as client,
    ):
        used, unused = await plain.create(subject="ada"), await plain.create(subject="ada")
        began = time.monotonic()
        assert (await client.validate(unused.token)).valid
        while time.monotonic() < began + 2 * idle:
            assert (await client.validate(used.token)).valid
            last = time.monotonic()
            await asyncio.sleep(0.05)
        assert (await client.validate(unused.token)).verdict is Verdict.EXPIRED_IDLE
        stats = client.client.near_cache
        assert stats is not None
        assert stats.hits > stats.misses
        granularity = rules.touch_granularity / 1_000
        while (await client.validate(used.token, passive=True)).valid:  # noqa: ASYNC110 - an end is no event here
            await asyncio.sleep(0.02)
        # 0.5 s for the calls themselves on a busy machine; the bound on the early side needs no allowance.
        assert idle - granularity <= time.monotonic() - last <= idle + 0.5
