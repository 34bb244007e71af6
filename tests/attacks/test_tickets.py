"""Ticket reuse: the right to one choice, tried twice, late, by somebody else, and for somebody else's sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.domain.policy import LimitRule
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    HOUR,
    MINUTE,
    authority,
    create,
    fresh_id,
    kinds,
    login,
    millis,
    policy,
    story_of,
    validate,
)
from tests.rpc.refusals import refusal_of, revision_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

ASK = policy(max_sessions=1, on_limit=LimitRule.ASK)


@pytest.fixture
async def stub(tmp_path: Path, clock: ManualClock) -> AsyncIterator[AsyncStub]:
    """A client of an authority that asks at the second session."""
    async with authority(tmp_path, clock, ASK) as (_, stub):
        yield stub


async def asked(stub: AsyncStub, subject: str = "ada") -> tuple[pb.CreateSessionResponse, pb.ConcurrencyLimit]:
    """A session, and the answer that asks which one is to end."""
    first = await create(stub, subject)
    return first, (await create(stub, subject)).limit


async def test_the_choice_is_carried_out(stub: AsyncStub, clock: ManualClock) -> None:
    """The answer lists the live sessions; the ticket ends the chosen one and opens the new one, in one step."""
    first, limit = await asked(stub)
    assert [one.session_id for one in limit.live_sessions] == [first.session.session_id]
    assert millis(limit.ticket_expire_time) == clock.now() + 2 * MINUTE
    second = await create(stub, ticket=limit.ticket, evict_session_ids=[first.session.session_id])
    assert list(second.evicted_session_ids) == [first.session.session_id]
    assert (await validate(stub, first.token)).verdict == pb.VERDICT_REVOKED
    assert (await validate(stub, second.token)).verdict == pb.VERDICT_VALID
    events = await story_of(stub, limit.ticket, second.token)
    assert kinds(events) == [
        "SESSION_CREATED",
        "CONCURRENCY_LIMIT_REACHED",
        "CONCURRENCY_LIMIT_REACHED",
        "SESSION_REVOKED",
        "SESSION_CREATED",
    ]
    assert events[3].cause.kind == pb.CAUSE_KIND_CONCURRENCY_LIMIT


async def refused_ticket(stub: AsyncStub, ticket: str, evict: str, subject: str = "ada", **fields: Any) -> None:
    """The ticket is refused by name, and nothing changes."""
    before = await revision_of(stub)
    refusal = await refusal_of(create(stub, subject, ticket=ticket, evict_session_ids=[evict], **fields))
    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["ticket"])
    assert ticket not in refusal.message
    assert await revision_of(stub) == before


async def test_a_ticket_is_good_once(stub: AsyncStub) -> None:
    """A ticket used again ends nothing and opens nothing."""
    first, limit = await asked(stub)
    second = await create(stub, ticket=limit.ticket, evict_session_ids=[first.session.session_id])
    await refused_ticket(stub, limit.ticket, second.session.session_id)
    assert (await validate(stub, second.token)).verdict == pb.VERDICT_VALID


async def test_a_ticket_used_twice_at_once(stub: AsyncStub) -> None:
    """Of twenty simultaneous uses of one ticket one is carried out."""
    first, limit = await asked(stub)
    uses = (create(stub, ticket=limit.ticket, evict_session_ids=[first.session.session_id]) for _ in range(20))
    answers = await asyncio.gather(*uses, return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
    assert kinds(await story_of(stub)).count("SESSION_REVOKED") == 1


async def test_somebody_elses_ticket(stub: AsyncStub) -> None:
    """A ticket is good for its own subject, authentication and session alone."""
    first, limit = await asked(stub)
    chosen = first.session.session_id
    await create(stub, "mallory")
    await refused_ticket(stub, limit.ticket, chosen, "mallory")
    await refused_ticket(stub, limit.ticket, chosen, authentication={"level": 3, "methods": ["hwk"]})
    guest = await create(stub, "")
    refusal = await refusal_of(login(stub, guest.token, ticket=limit.ticket, evict_session_ids=[chosen]))
    assert refusal.fields == ["ticket"]
    own = (await login(stub, guest.token)).limit.ticket
    other = await create(stub, "")
    refusal = await refusal_of(login(stub, other.token, ticket=own, evict_session_ids=[chosen]))
    assert refusal.fields == ["ticket"]
    assert (await validate(stub, first.token)).verdict == pb.VERDICT_VALID
    assert (await login(stub, guest.token, ticket=own, evict_session_ids=[chosen])).token


@pytest.mark.parametrize("wait", [-1, 0])
async def test_a_ticket_at_its_deadline(stub: AsyncStub, clock: ManualClock, wait: int) -> None:
    """A ticket is good one millisecond before its deadline, and not at it."""
    first, limit = await asked(stub)
    clock.advance(2 * MINUTE + wait)
    if wait:
        assert (await create(stub, ticket=limit.ticket, evict_session_ids=[first.session.session_id])).token
    else:
        await refused_ticket(stub, limit.ticket, first.session.session_id)


async def test_a_tampered_ticket(stub: AsyncStub) -> None:
    """A ticket with any character changed, a session's token, and no ticket at all are refused."""
    first, limit = await asked(stub)
    chosen = first.session.session_id
    for place in (0, 40, len(limit.ticket) // 2, len(limit.ticket) - 2):
        other = "B" if limit.ticket[place] == "A" else "A"
        await refused_ticket(stub, limit.ticket[:place] + other + limit.ticket[place + 1 :], chosen)
    await refused_ticket(stub, first.token, chosen)
    assert (await validate(stub, limit.ticket)).verdict == pb.VERDICT_MALFORMED
    assert (await create(stub, ticket=limit.ticket, evict_session_ids=[chosen])).token


async def test_a_choice_of_somebody_elses_session(stub: AsyncStub) -> None:
    """A ticket ends no session of another subject, and such a choice does not use it up."""
    first, limit = await asked(stub)
    bob = await create(stub, "bob")
    wrong = create(stub, ticket=limit.ticket, evict_session_ids=[bob.session.session_id])
    assert (await refusal_of(wrong)).fields == ["evict_session_ids"]
    assert (await validate(stub, bob.token)).verdict == pb.VERDICT_VALID
    both = [bob.session.session_id, first.session.session_id]
    second = await create(stub, ticket=limit.ticket, evict_session_ids=both)
    assert list(second.evicted_session_ids) == [first.session.session_id]
    assert (await validate(stub, bob.token)).verdict == pb.VERDICT_VALID


async def test_a_choice_repeated_safely(stub: AsyncStub) -> None:
    """A choice whose answer was lost can be asked for again with its request id, though its ticket is used."""
    first, limit = await asked(stub)
    fields: dict[str, Any] = {
        "ticket": limit.ticket,
        "evict_session_ids": [first.session.session_id],
        "request_id": fresh_id(),
    }
    once, again = [await create(stub, **fields) for _ in range(2)]
    assert once == again
    assert once.token


async def test_login_of_a_guest_asks_too(stub: AsyncStub) -> None:
    """A guest who logs in at the limit stays a guest until the choice, and then keeps its session."""
    first = await create(stub)
    guest = await create(stub, "", data={"cart": b"1"})
    limit = (await login(stub, guest.token)).limit
    assert limit.ticket
    still = await validate(stub, guest.token)
    assert (still.verdict, still.session.subject) == (pb.VERDICT_VALID, "")
    own = await login(stub, guest.token, ticket=limit.ticket, evict_session_ids=[first.session.session_id])
    assert own.session.session_id == guest.session.session_id
    assert (await validate(stub, first.token)).verdict == pb.VERDICT_REVOKED
    data = await stub.GetSessionData(pb.GetSessionDataRequest(session=pb.SessionReference(token=own.token)))
    assert dict(data.data) == {"cart": b"1"}


async def test_a_used_ticket_and_a_clock_set_back(tmp_path: Path, clock: ManualClock) -> None:
    """A ticket that was used is not good again when the clock goes back after its deadline."""
    async with authority(tmp_path, clock, ASK) as (app, stub):
        first, limit = await asked(stub)
        second = await create(stub, ticket=limit.ticket, evict_session_ids=[first.session.session_id])
        clock.advance(HOUR)
        await app.sweeper.forget_answers()
        clock.advance(-HOUR)
        await refused_ticket(stub, limit.ticket, second.session.session_id)
