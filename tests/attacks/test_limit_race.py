"""The limit race: many logins at once try to slip past the limit of concurrent sessions together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sessiond.domain.policy import LimitRule
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import authority, create, kinds, login, policy, story_of, validate
from tests.rpc.refusals import refusal_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

LOGINS, LIMIT = 100, 3
RULES = list(LimitRule)


async def live(stub: AsyncStub) -> set[str]:
    """The subject's live sessions."""
    request = pb.ListSessionsRequest(filter=pb.SessionFilter(subject="ada"))
    return {session.session_id for session in (await stub.ListSessions(request)).sessions}


async def check(stub: AsyncStub, answers: list[Any], rule: LimitRule) -> None:
    """Exactly three live; as many were let in as the rule says; the log tells the same."""
    assert len(await live(stub)) == LIMIT
    let_in = [answer for answer in answers if answer.token]
    refused = [answer for answer in answers if not answer.token]
    assert all(answer.limit.max_sessions == LIMIT for answer in refused)
    verdicts = [(await validate(stub, answer.token)).verdict for answer in let_in]
    assert verdicts.count(pb.VERDICT_VALID) == LIMIT
    events = kinds(await story_of(stub))
    assert events.count("CONCURRENCY_LIMIT_REACHED") == LOGINS - LIMIT
    if rule in (LimitRule.REJECT, LimitRule.ASK):
        assert len(let_in) == LIMIT
        assert "SESSION_REVOKED" not in events
        assert all(bool(answer.limit.ticket) is (rule is LimitRule.ASK) for answer in refused)
    else:
        assert len(let_in) == LOGINS
        evicted = [one for answer in let_in for one in answer.evicted_session_ids]
        assert len(evicted) == len(set(evicted)) == events.count("SESSION_REVOKED") == LOGINS - LIMIT


@pytest.mark.parametrize("rule", RULES)
async def test_a_hundred_logins_at_once(tmp_path: Path, clock: ManualClock, rule: LimitRule) -> None:
    """A hundred simultaneous logins with a limit of three leave exactly three."""
    async with authority(tmp_path, clock, policy(max_sessions=LIMIT, on_limit=rule)) as (_, stub):
        answers = await asyncio.gather(*(create(stub) for _ in range(LOGINS)))
        await check(stub, answers, rule)


@pytest.mark.parametrize("rule", RULES)
async def test_a_hundred_logins_by_two_doors(tmp_path: Path, clock: ManualClock, rule: LimitRule) -> None:
    """New sessions and anonymous ones that authenticate, at once, leave exactly three together."""
    async with authority(tmp_path, clock, policy(max_sessions=LIMIT, on_limit=rule)) as (_, stub):
        guests = await asyncio.gather(*(create(stub, "") for _ in range(LOGINS // 2)))
        logins = (login(stub, guest.token) for guest in guests)
        answers: list[Any] = await asyncio.gather(*logins, *(create(stub) for _ in range(LOGINS // 2)))
        await check(stub, answers, rule)


async def test_without_a_limit_all_get_in(tmp_path: Path, clock: ManualClock) -> None:
    """The control: where the policy sets no limit, a hundred logins are a hundred sessions."""
    async with authority(tmp_path, clock, policy(max_sessions=0)) as (_, stub):
        await asyncio.gather(*(create(stub) for _ in range(LOGINS)))
        assert len(await live(stub)) == LOGINS


async def test_tickets_in_a_race(tmp_path: Path, clock: ManualClock) -> None:
    """Fifty tickets that all choose the same session to end let in one, and the others are told to choose again."""
    async with authority(tmp_path, clock, policy(max_sessions=LIMIT, on_limit=LimitRule.ASK)) as (_, stub):
        first = [(await create(stub)).session.session_id for _ in range(LIMIT)]
        asked = await asyncio.gather(*(create(stub) for _ in range(50)))

        chosen = [first[0]]
        choices = (create(stub, ticket=one.limit.ticket, evict_session_ids=chosen) for one in asked)
        answers = await asyncio.gather(*choices, return_exceptions=True)
        refused = [str(answer) for answer in answers if isinstance(answer, BaseException)]
        assert len(refused) == 49
        assert all("evict_session_ids" in text for text in refused)
        assert first[0] not in await live(stub)
        assert len(await live(stub)) == LIMIT


async def test_who_authenticates_again_takes_no_second_place(tmp_path: Path, clock: ManualClock) -> None:
    """Authenticating a session that counts already is within the limit, however often and however many at once."""
    async with authority(tmp_path, clock, policy(max_sessions=LIMIT, on_limit=LimitRule.REJECT)) as (_, stub):
        tokens = [(await create(stub)).token for _ in range(LIMIT)]
        answers = await asyncio.gather(*(login(stub, token) for token in tokens))
        assert all(answer.token for answer in answers)
        assert len(await live(stub)) == LIMIT
        assert not (await create(stub)).token
        refused = await refusal_of(create(stub, evict_session_ids=[answers[0].session.session_id]))
        assert refused.fields == ["evict_session_ids"]
