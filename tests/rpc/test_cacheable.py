"""Answers that may be reused: until when, and at which state they are true."""

from __future__ import annotations

import asyncio

from sessiond.app import App
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import MINUTE, create, loose, validate
from tests.support.clock import ManualClock
from tests.support.held import held, until
from tests.support.server import AsyncStub
from tests.support.tokens import revision_in


async def test_a_batch_says_for_each_answer_what_it_is_true_at(app: App, stub: AsyncStub) -> None:
    """An answer that waited for the rest of its batch does not claim to know what happened meanwhile."""
    ada, bob = await create(stub), await create(stub, "bob", data={"cart": b"3 apples"})
    async with held(app) as waiting:
        logout = asyncio.ensure_future(
            stub.RevokeSession(loose.RevokeSessionRequest(session={"session_id": ada.session.session_id}))
        )
        await waiting(1)
        questions = [{"token": ada.token}, {"token": bob.token, "data": {}}]
        batch = asyncio.ensure_future(stub.ValidateSessions(loose.ValidateSessionsRequest(requests=questions)))
        await waiting(2)
    ended, (first, second) = await logout, (await batch).responses
    assert (first.verdict, second.verdict) == (pb.VERDICT_VALID, pb.VERDICT_VALID)
    assert revision_in(first) < revision_in(ended)
    assert first.HasField("cacheable_until")


async def test_an_answer_from_a_group_is_true_at_its_own_place(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A use that is committed together with the session's end, just before it, is not true at the state after it."""
    own = await create(stub)
    clock.advance(2 * MINUTE)
    journal = app.authority.parts.journal
    async with held(app) as waiting:
        other = asyncio.ensure_future(create(stub, "bob"))
        await waiting(1)
        question = asyncio.ensure_future(validate(stub, own.token))
        await until(lambda: len(journal._queue) == 1)
        logout = asyncio.ensure_future(
            stub.RevokeSession(loose.RevokeSessionRequest(session={"session_id": own.session.session_id}))
        )
        await until(lambda: len(journal._queue) == 2)
    await other
    answer, ended = await question, await logout
    assert answer.verdict == pb.VERDICT_VALID
    assert revision_in(answer) < revision_in(ended)
