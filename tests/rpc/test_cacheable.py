"""Responses that may be reused: until when, and at which state they are true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sessiond.app import App
from sessiond.domain.policy import Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Millis, SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    ATTACKER,
    HOUR,
    MINUTE,
    SECOND,
    VICTIM,
    authority,
    create,
    login,
    loose,
    millis,
    policy,
    roll,
    validate,
)
from tests.support.clock import ManualClock
from tests.support.held import held, until
from tests.support.server import AsyncStub
from tests.support.tokens import revision_in

DAY = 24 * HOUR
REMEMBERS = policy(remember_idle_timeout=Millis(9 * HOUR), remember_absolute_timeout=Millis(90 * HOUR))

Open = Callable[[AsyncStub, ManualClock], Awaitable[str]]
"""A function that opens a session, brings it into the state of a case, and returns its token."""


def opened(wait: int = 0, visits: int = 0, every: int = 20 * MINUTE, **fields: Any) -> Open:
    """Open a session, use it a few times, and let time pass."""

    async def open(stub: AsyncStub, clock: ManualClock) -> str:
        token = (await create(stub, **fields)).token
        for _ in range(visits):
            clock.advance(every)
            await validate(stub, token)
        clock.advance(wait)
        return token

    return open


def elevated(wait: int) -> Open:
    """Open a session at level 1, elevate it to level 2, and let time pass."""

    async def open(stub: AsyncStub, clock: ManualClock) -> str:
        token = (await create(stub, authentication={"level": 1})).token
        token = (await login(stub, token, elevate=True, authentication={"level": 2})).token
        clock.advance(wait)
        return token

    return open


@dataclass(frozen=True)
class Case:
    """A question, the time for which its response is valid, and what the server responds afterwards.

    `at_end` are fields of the response at the end of that time. If there are none, activity is due to be recorded then.
    """

    name: str
    lasts: int
    open: Open = field(default_factory=opened)
    rules: Policy = field(default_factory=policy)
    question: dict[str, Any] = field(default_factory=dict)
    at_end: dict[str, Any] = field(default_factory=dict)


PASSIVE = {"passive": True}
IDLE = {"verdict": pb.VERDICT_EXPIRED_IDLE}
OVER = {"verdict": pb.VERDICT_EXPIRED_ABSOLUTE}
RENEWAL = {"next_step": pb.NEXT_STEP_REPLACE_TOKEN}
LACKS = {"verdict": pb.VERDICT_INSUFFICIENT}
CASES = [
    Case("activity", MINUTE),
    Case("activity, used before", MINUTE, opened(wait=10 * SECOND, visits=1)),
    Case("activity of a short idle timeout", 15 * SECOND, rules=policy("owasp-high")),
    Case("activity of a session's own idle timeout", 500, opened(lifetimes={"idle_timeout": {"seconds": 10}})),
    Case("activity without idle timeout", MINUTE, rules=policy("nist-aal1")),
    Case("idle", 30 * MINUTE, question=PASSIVE, at_end=IDLE),
    Case("idle, some time after the last use", 20 * MINUTE, opened(10 * MINUTE), question=PASSIVE, at_end=IDLE),
    Case("idle, after a use that is not saved", 30 * MINUTE, opened(0, 1, 1_000), question=PASSIVE, at_end=IDLE),
    Case(
        "own idle timeout",
        10 * SECOND,
        opened(lifetimes={"idle_timeout": {"seconds": 10}}),
        question=PASSIVE,
        at_end=IDLE,
    ),
    Case(
        "absolute", 10 * MINUTE, opened(0, 1, 20 * MINUTE), policy(absolute_timeout=Millis(30 * MINUTE)), PASSIVE, OVER
    ),
    Case(
        "absolute, in use",
        10 * SECOND,
        opened(10 * SECOND, 1, 20 * SECOND),
        policy(absolute_timeout=Millis(40 * SECOND)),
        at_end=OVER,
    ),
    Case("own absolute timeout", 10 * SECOND, opened(lifetimes={"absolute_timeout": {"seconds": 10}}), at_end=OVER),
    Case("login page", 10 * MINUTE, opened(subject="", login_page=True), question=PASSIVE, at_end=OVER),
    Case("renewal", 10 * SECOND, opened(20 * MINUTE - 10 * SECOND, 2), at_end=RENEWAL),
    Case("renewal, passive", 20 * MINUTE, opened(0, 2), question=PASSIVE, at_end=RENEWAL),
    Case("elevation", 10 * SECOND, elevated(15 * MINUTE - 10 * SECOND)),
    Case("elevation, passive", 15 * MINUTE, elevated(0), question=PASSIVE),
    Case(
        "elevation that is needed",
        10 * SECOND,
        elevated(15 * MINUTE - 10 * SECOND),
        question={"requirements": {"min_level": 2}},
        at_end=LACKS,
    ),
    Case("after an elevation", MINUTE, elevated(15 * MINUTE)),
    Case("after an elevation, passive", 15 * MINUTE, elevated(15 * MINUTE), question=PASSIVE, at_end=IDLE),
    Case(
        "level of a remembered session",
        30 * MINUTE,
        opened(persistent=True, authentication={"level": 2}),
        REMEMBERS,
        PASSIVE,
    ),
    Case(
        "level that has fallen",
        20 * MINUTE,
        opened(40 * MINUTE, persistent=True, authentication={"level": 2}),
        REMEMBERS,
        PASSIVE,
        RENEWAL,
    ),
    Case(
        "level that is needed",
        30 * MINUTE,
        opened(persistent=True, authentication={"level": 2}),
        REMEMBERS,
        {"passive": True, "requirements": {"min_level": 2}},
        LACKS,
    ),
    Case(
        "age of the authentication",
        5 * SECOND,
        opened(10 * SECOND),
        question={"requirements": {"max_authentication_age": {"seconds": 15}}},
        at_end=LACKS,
    ),
    Case("age that is not near", MINUTE, question={"requirements": {"max_authentication_age": {"seconds": 900}}}),
    Case("with data", MINUTE, opened(data={"cart": b"3 apples"}), question={"data": {}}),
    Case("with a CSRF token", MINUTE, question={"with_csrf_token": True}),
]
"""What the response shows at the end: another level, if the request needs none."""
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


async def asked(stub: AsyncStub, case: Case, token: str, *, batch: bool) -> pb.ValidateSessionResponse:
    """Ask the case's question, alone or in a batch."""
    if not batch:
        return await validate(stub, token, **case.question)
    question = loose.ValidateSessionRequest(token=token, client=VICTIM, **case.question)
    return (await stub.ValidateSessions(loose.ValidateSessionsRequest(requests=[question]))).responses[0]


def without_times(answer: pb.ValidateSessionResponse) -> pb.ValidateSessionResponse:
    """Return the part of a response that a cache reuses: everything except the times of use and validity."""
    told = pb.ValidateSessionResponse()
    told.CopyFrom(answer)
    for field_name in ("last_active_time", "idle_expire_time"):
        told.session.ClearField(field_name)
    told.ClearField("cacheable_until")
    told.ClearField("cacheable_for")
    told.ClearField("consistency_token")
    return told


@cases
@pytest.mark.parametrize("batch", [False, True], ids=["alone", "in a batch"])
async def test_until_when(tmp_path: Path, clock: ManualClock, case: Case, batch: bool) -> None:
    """The response holds for exactly the stated time: one millisecond before the end the server still says the same."""
    async with authority(tmp_path, clock, case.rules) as (_, stub):
        token = await case.open(stub, clock)
        answer = await asked(stub, case, token, batch=batch)
        assert (answer.verdict, answer.next_step) == (pb.VERDICT_VALID, pb.NEXT_STEP_PROCEED)
        assert millis(answer.cacheable_until) - clock.now() == case.lasts
        assert answer.cacheable_for.ToMilliseconds() == case.lasts
        clock.advance(case.lasts - 1)
        again = await asked(stub, case, token, batch=batch)
        assert again.cacheable_for.ToMilliseconds() == millis(again.cacheable_until) - clock.now()
        assert without_times(again) == without_times(answer)
        assert again.consistency_token == answer.consistency_token


@cases
async def test_what_happens_then(tmp_path: Path, clock: ManualClock, case: Case) -> None:
    """At the end of that time either the response changes, or activity is due and is recorded."""
    async with authority(tmp_path, clock, case.rules) as (app, stub):
        token = await case.open(stub, clock)
        answer = await asked(stub, case, token, batch=False)
        clock.advance(case.lasts)
        after = await asked(stub, case, token, batch=False)
        if case.at_end:
            assert {name: getattr(after, name) for name in case.at_end} == case.at_end
        elif answer.session.authentication.level != after.session.authentication.level:
            assert answer.session.authentication.level == 2
        else:
            stored = await app._store.session(SessionId.parse(answer.session.session_id))
            assert stored is not None
            assert stored.last_active == clock.now()
            assert millis(after.cacheable_until) > clock.now()


# What may not be reused


async def test_what_is_for_once(tmp_path: Path, clock: ManualClock) -> None:
    """Denials, signals, renewals and responses to a checked companion or CSRF token have no time of validity."""
    rules = policy(reactions={SignalType.USER_AGENT_CHANGE: Reaction.ALERT})
    async with authority(tmp_path, clock, rules) as (_, stub):
        own = await create(stub)
        pay = loose.IssueCompanionTokenRequest(token=own.token, purpose="pay")
        companion = (await stub.IssueCompanionToken(pay)).companion_token
        answers = [
            await validate(stub, "x"),
            await validate(stub, "A" * 70),
            await validate(stub, own.token, requirements={"min_level": 3}),
            await validate(stub, own.token, requirements={"csrf": {"csrf_token": own.csrf_token}}),
            await validate(
                stub, own.token, requirements={"companion": {"purpose": "pay", "companion_token": companion}}
            ),
            await validate(stub, own.token, ATTACKER),
        ]
        for _ in range(3):
            clock.advance(20 * MINUTE)
            renewed = await validate(stub, own.token)
        assert renewed.renewed_token
        answers.append(renewed)
        first_use = await validate(stub, renewed.renewed_token)
        assert first_use.HasField("cacheable_until")
        late = await validate(stub, own.token)
        assert late.renewed_token
        answers.append(late)
        await roll(stub, renewed.renewed_token)
        answers.append(await validate(stub, own.token))
        for answer in answers:
            assert (answer.HasField("cacheable_until"), answer.consistency_token) == (False, "")
            assert not answer.HasField("cacheable_for")


# The state at which a response is true


async def test_every_change_is_after_the_answer(stub: AsyncStub, clock: ManualClock) -> None:
    """Every change of the session after a response has a later revision than the state at which that is true."""
    own = await create(stub)
    named = {"session_id": own.session.session_id}
    token = own.token

    async def changes() -> AsyncIterator[Any]:
        nonlocal token
        yield await stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set={"a": b"1"}))
        yield (rolled := await roll(stub, token))
        token = rolled.token
        yield (again := await login(stub, token, labels={"device": "phone"}))
        token = again.token
        yield await stub.RefreshSession(pb.RefreshSessionRequest(token=token))
        yield await stub.ReportSignal(loose.ReportSignalRequest(session=named, reason="odd"))
        yield await stub.RevokeSession(loose.RevokeSessionRequest(session=named))

    answer = await validate(stub, token)
    async for change in changes():
        assert revision_in(answer) < revision_in(change)
        answer = await validate(stub, token)
        if answer.verdict == pb.VERDICT_VALID:
            assert revision_in(answer) == revision_in(change)


async def test_a_batch_says_for_each_answer_what_it_is_true_at(app: App, stub: AsyncStub) -> None:
    """A response that waited for the rest of its batch does not claim to be true at a later state."""
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
    """A use committed in one group with the session's end, just before it, is not true at the state after it."""
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
