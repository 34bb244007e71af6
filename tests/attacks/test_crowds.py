"""A subject with more sessions than can be ended at once: others do not wait for it, and its limit holds in the end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.domain import lifecycle
from sessiond.domain.event import EventType
from sessiond.domain.policy import LimitRule, Policy
from sessiond.domain.query import SessionQuery
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import NOBODY, Cause, CauseKind, SessionId
from sessiond.eventlog.work import NOTHING, Needs, Work
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import ATTACKER, HOUR, MINUTE, authority, create, fresh_id, policy, validate
from tests.rpc.refusals import refusal_of
from tests.support.clock import ManualClock

CROWD = 1_250


class _Opens:
    """Opens many sessions of a subject in one unit, as years of use would."""

    def __init__(self, rules: Policy, ids: list[SessionId], subject: str) -> None:
        self._rules = rules
        self._ids = ids
        self._subject = subject

    def needs(self) -> Needs:
        """Nothing."""
        return NOTHING

    def apply(self, work: Work) -> None:
        """Open them."""
        cause = Cause(CauseKind.REQUEST, "test")
        for session_id in self._ids:
            session = lifecycle.open_session(
                session_id, "default", self._subject, bytes(32), None, NOBODY, self._rules, work.now
            )
            work.save(session, EventType.SESSION_CREATED, cause)


async def crowd(app: App, clock: ManualClock, count: int = CROWD, subject: str = "ada") -> list[SessionId]:
    """That many live sessions of a subject, a millisecond apart; their ids, the oldest first."""
    rules = app.authority.parts.policies["default"]
    found: list[SessionId] = []
    for start in range(0, count, 250):
        ids = []
        for _ in range(start, min(start + 250, count)):
            clock.advance(1)
            ids.append(SessionId.make(clock.now(), app.authority.parts.entropy))
        await app.authority.parts.journal.submit(_Opens(rules, ids, subject))
        found += ids
    clock.advance(1)
    return found


async def live_ids(app: App, subject: str = "ada") -> list[str]:
    """The ids of the sessions that have no ending, from the store itself, the oldest first."""
    query = SessionQuery("default", app.authority.now(), subject=subject, limit=10_000)
    return sorted(str(session.id) for session in await app.authority.parts.store.sessions(query))


def largest_commit(app: App) -> list[int]:
    """The numbers of sessions in each commit from now on."""
    sizes: list[int] = []
    journal = app.authority.parts.journal
    publish = journal._publish

    def watched(commit: Any) -> None:
        sizes.append(len(commit.sessions))
        publish(commit)

    journal._publish = watched
    return sizes


@pytest.mark.parametrize("rule", [LimitRule.EVICT_OLDEST, LimitRule.EVICT_LEAST_RECENT])
async def test_a_lowered_limit_is_reached_in_steps(tmp_path: Path, clock: ManualClock, rule: LimitRule) -> None:
    """A login far over a lowered limit ends the oldest in bounded steps, and then holds the limit exactly."""
    async with authority(tmp_path, clock, policy()) as (app, stub):
        ids = await crowd(app, clock)
        await app.authority.change_policies({"default": policy(max_sessions=3, on_limit=rule)}, {})
        sizes = largest_commit(app)
        opened = await create(stub)
        assert await live_ids(app) == [str(one) for one in ids[-2:]] + [opened.session.session_id]
        assert max(sizes) <= 102
        assert set(opened.evicted_session_ids) <= {str(one) for one in ids[:-2]}


async def test_asking_about_a_crowd(tmp_path: Path, clock: ManualClock) -> None:
    """Where a subject cannot name all that must end, it can say: the oldest too. What it named ends in any case."""
    async with authority(tmp_path, clock, policy()) as (app, stub):
        ids = await crowd(app, clock)
        rules = policy(max_sessions=3, on_limit=LimitRule.ASK)
        await app.authority.change_policies({"default": rules}, {})
        limit = (await create(stub)).limit
        assert (limit.max_sessions, limit.live_count) == (3, CROWD)
        shown = [one.session_id for one in limit.live_sessions]
        assert shown == sorted(shown, reverse=True)
        assert shown[0] == str(ids[-1])
        named = [str(ids[-1]), str(ids[7])]
        refused = await refusal_of(create(stub, ticket=limit.ticket, evict_session_ids=named))
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["evict_session_ids"])
        assert "evict_oldest" in refused.message
        assert len(await live_ids(app)) == CROWD
        sizes = largest_commit(app)
        opened = await create(stub, ticket=limit.ticket, evict_session_ids=named, evict_oldest=True)
        assert await live_ids(app) == [str(one) for one in ids[-3:-1]] + [opened.session.session_id]
        assert max(sizes) <= 102


async def test_the_ticket_is_not_used_up_by_the_steps(tmp_path: Path, clock: ManualClock) -> None:
    """However many steps it takes, the ticket is good for one login; and for the same login again by its id."""
    async with authority(tmp_path, clock, policy()) as (app, stub):
        await crowd(app, clock, 450)
        await app.authority.change_policies({"default": policy(max_sessions=2, on_limit=LimitRule.ASK)}, {})
        ticket, request_id = (await create(stub)).limit.ticket, fresh_id()
        wanted: dict[str, Any] = {"ticket": ticket, "evict_oldest": True, "request_id": request_id}
        first = await create(stub, **wanted)
        assert await create(stub, **wanted) == first
        again = await refusal_of(create(stub, ticket=ticket, evict_oldest=True))
        assert again.fields == ["ticket"]


async def test_evict_oldest_needs_a_ticket(tmp_path: Path, clock: ManualClock) -> None:
    """Without a ticket nobody may ask for evictions."""
    async with authority(tmp_path, clock) as (_, stub):
        refused = await refusal_of(create(stub, evict_oldest=True))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["evict_oldest"])


async def test_a_crowd_past_its_deadline_does_not_count(tmp_path: Path, clock: ManualClock) -> None:
    """Sessions that have expired unnoticed stand in nobody's way, however many they are."""
    rules = policy(max_sessions=3, on_limit=LimitRule.REJECT)
    async with authority(tmp_path, clock, policy()) as (app, stub):
        await crowd(app, clock, 400)
        clock.advance(HOUR)
        await app.authority.change_policies({"default": rules}, {})
        opened = await create(stub)
        assert opened.session.session_id
        assert await live_ids(app) == [opened.session.session_id]


async def test_a_signal_ends_a_crowd_in_steps(tmp_path: Path, clock: ManualClock) -> None:
    """Where a signal ends all of a subject's sessions, it ends all of them, and no commit has more than a hundred."""
    rules = policy(reactions={SignalType.TOKEN_REPLAY: Reaction.REVOKE_SUBJECT})
    async with authority(tmp_path, clock, rules) as (app, stub):
        await crowd(app, clock)
        mine, other = await create(stub), await create(stub, "bob")
        rolled = await stub.RollSession(pb.RollSessionRequest(token=mine.token))
        clock.advance(2 * MINUTE)
        assert (await validate(stub, rolled.token)).verdict == pb.VERDICT_VALID
        sizes = largest_commit(app)
        assert (await validate(stub, mine.token, client=ATTACKER)).verdict == pb.VERDICT_REPLAYED
        assert await live_ids(app) == []
        assert max(sizes) <= 102
        assert (await validate(stub, other.token)).verdict == pb.VERDICT_VALID


async def test_a_signal_ends_a_crowd_in_steps_under_a_high_limit(tmp_path: Path, clock: ManualClock) -> None:
    """The steps are no larger where the limit is so high that more of the sessions were read than may end at once."""
    reactions = {SignalType.TOKEN_REPLAY: Reaction.REVOKE_SUBJECT}
    async with authority(tmp_path, clock, policy(reactions=reactions, max_sessions=2_000)) as (app, stub):
        await crowd(app, clock, 450)
        mine = await create(stub)
        rolled = await stub.RollSession(pb.RollSessionRequest(token=mine.token))
        clock.advance(2 * MINUTE)
        assert (await validate(stub, rolled.token)).verdict == pb.VERDICT_VALID
        sizes = largest_commit(app)
        request = pb.AuthenticateSessionRequest(token=mine.token, subject="ada", client=ATTACKER, or_create=True)
        opened = await stub.AuthenticateSession(request)
        assert opened.presented_verdict == pb.VERDICT_REPLAYED
        assert await live_ids(app) == [opened.session.session_id]
        assert max(sizes) <= 102


@pytest.mark.parametrize("at_once", [2, 20])
async def test_several_logins_of_a_crowd_at_once(tmp_path: Path, clock: ManualClock, at_once: int) -> None:
    """Simultaneous logins over a crowd all succeed, and leave as many sessions as the limit lets."""
    async with authority(tmp_path, clock, policy()) as (app, stub):
        await crowd(app, clock, 700)
        await app.authority.change_policies({"default": policy(max_sessions=2)}, {})
        await asyncio.gather(*(create(stub) for _ in range(at_once)))
        assert len(await live_ids(app)) == 2
