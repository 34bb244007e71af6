"""What policies ask of both clients, against a real authority: requirements, limits, suspicion, locks, safe retries."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond_client import (
    AsyncClient,
    Authentication,
    Client,
    ClientContext,
    ConcurrencyLimitReached,
    CookieDirectives,
    InvalidArgument,
    NextStep,
    NotFound,
    Question,
    Reaction,
    RequirementKind,
    Requirements,
    SignalType,
    Unavailable,
    Verdict,
)
from tests.clients.either import CLIENTS, Either
from tests.clients.relay import Losing
from tests.support.clock import ManualClock
from tests.support.server import config_for, serving

CONFIG = """
[applications.default]
remember_idle_timeout = "7d"
remember_absolute_timeout = "30d"

[applications.default.reactions]
reported = "revoke-session"

[applications.default.guessing]
alarm_after = 2
lock_after = 3

[applications.few]
max_sessions = 2
on_limit = "ask"
"""
PASSWORD = Authentication(level=1, methods=("pwd",))
SECOND_FACTOR = Authentication(level=2, methods=("pwd", "otp"))
MINUTE = 60_000


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    """An authority whose applications have policies of their own."""
    async with serving(config_for(tmp_path, CONFIG), clock) as app:
        yield app


def cookie_of(cookies: CookieDirectives) -> str:
    """The value of the first cookie that is set."""
    name_and_value, *_ = dict(reversed(cookies.headers()))["Set-Cookie"].split(";")
    return name_and_value.partition("=")[2]


async def test_a_level_and_an_age_can_be_required(client: Either, clock: ManualClock) -> None:
    """What is not met makes the answer INSUFFICIENT and is named, in a batch too; what is met changes nothing."""
    created = await client.create(subject="ada", authentication=PASSWORD)
    needed = Requirements(min_level=2, max_authentication_age=timedelta(minutes=5))
    assert (await client.validate(created.token, requirements=Requirements(min_level=1))).valid
    clock.advance(6 * MINUTE)
    alone = await client.validate(created.token, requirements=needed)
    assert (alone.verdict, alone.next_step) == (Verdict.INSUFFICIENT, NextStep.STEP_UP)
    assert not alone.valid
    assert {item.kind: (item.min_level, item.max_authentication_age) for item in alone.unmet} == {
        RequirementKind.LEVEL: (2, None),
        RequirementKind.AUTHENTICATION_AGE: (0, timedelta(minutes=5)),
    }
    batch = await client.validate_many([created.token, Question(created.token, requirements=needed)])
    assert [answer.verdict for answer in batch] == [Verdict.VALID, Verdict.INSUFFICIENT]
    assert batch[1].unmet == alone.unmet


async def test_an_elevation_is_over_in_time(client: Either, clock: ManualClock) -> None:
    """An elevated session meets a higher level for the policy's time, and then has the level of before."""
    created = await client.create(subject="ada", authentication=PASSWORD)
    raised = await client.authenticate(created.token, "ada", authentication=SECOND_FACTOR, elevate=True)
    needed = Requirements(min_level=2)
    assert raised.session.elevation_expire_time is not None
    assert (await client.validate(raised.token, requirements=needed)).valid
    clock.advance(15 * MINUTE)
    fallen = await client.validate(raised.token, requirements=needed)
    assert fallen.verdict is Verdict.INSUFFICIENT
    assert (fallen.session.authentication.level, fallen.session.elevation_expire_time) == (1, None)


async def test_a_companion_token_is_for_its_purpose_and_its_time(client: Either, clock: ManualClock) -> None:
    """A companion token meets its own purpose, with its cookie, until it expires; a missing one meets nothing."""
    created = await client.create(subject="ada")
    issued = await client.issue_companion_token(
        created.token, "payment", time_to_live=timedelta(minutes=2), path="/payment"
    )
    assert issued.verdict is Verdict.VALID
    assert cookie_of(issued.cookies) == issued.companion_token.reveal()
    verdicts = [
        (await client.validate(created.token, requirements=Requirements(companion=companion))).verdict
        for companion in (("payment", issued.companion_token), ("deletion", issued.companion_token), ("payment", None))
    ]
    assert verdicts == [Verdict.VALID, Verdict.INSUFFICIENT, Verdict.INSUFFICIENT]
    clock.advance(2 * MINUTE)
    late = await client.validate(
        created.token, requirements=Requirements(companion=("payment", issued.companion_token))
    )
    assert [item.kind for item in late.unmet] == [RequirementKind.COMPANION_TOKEN]
    assert (await client.issue_companion_token("nonsense", "payment")).companion_token is None


async def test_a_csrf_token_is_the_sessions_until_it_rolls(client: Either) -> None:
    """The CSRF token of an opening is the one that a validation gives and requires; a roll gives another."""
    created = await client.create(subject="ada")
    asked = await client.validate(created.token, with_csrf_token=True)
    assert asked.csrf_token == created.csrf_token
    assert (await client.validate(created.token)).csrf_token is None
    assert (await client.validate(created.token, requirements=Requirements(csrf=created.csrf_token))).valid
    missing = await client.validate(created.token, requirements=Requirements(csrf=None))
    assert [item.kind for item in missing.unmet] == [RequirementKind.CSRF_TOKEN]
    rolled = await client.roll(created.token)
    stale = await client.validate(rolled.token, requirements=Requirements(csrf=created.csrf_token))
    assert stale.verdict is Verdict.INSUFFICIENT
    assert (await client.validate(rolled.token, requirements=Requirements(csrf=rolled.csrf_token))).valid


async def test_a_csrf_token_over_a_step_up(client: Either, clock: ManualClock) -> None:
    """After a step-up the CSRF token from before is accepted for the policy's overlap, alone and in a batch."""
    created = await client.create(subject="ada", authentication=PASSWORD)
    raised = await client.authenticate(created.token, "ada", authentication=SECOND_FACTOR)
    overlap = (await client.authority()).applications[0].policy.csrf_overlap
    assert overlap == timedelta(minutes=10)
    needed = [Requirements(csrf=csrf) for csrf in (created.csrf_token, raised.csrf_token, None)]

    async def accepted() -> list[bool]:
        alone = [(await client.validate(raised.token, requirements=one)).valid for one in needed]
        batch = await client.validate_many([Question(raised.token, requirements=one) for one in needed])
        assert [answer.valid for answer in batch] == alone
        return alone

    assert await accepted() == [True, True, False]
    clock.advance(10 * MINUTE - 1)
    assert await accepted() == [True, True, False]
    clock.advance(1)
    assert await accepted() == [False, True, False]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_limit_is_an_exception_and_its_ticket_a_way_on(
    kind: type[AsyncClient] | type[Client], app: App, clock: ManualClock
) -> None:
    """A login over the limit opens nothing; with the ticket and the subject's choice the same login takes place."""
    async with Either(kind, app.address, application="few") as client:
        first = await client.create(subject="ada", authentication=PASSWORD)
        clock.advance(1)
        second = await client.create(subject="ada", authentication=PASSWORD)
        with pytest.raises(ConcurrencyLimitReached) as refusal:
            await client.create(subject="ada", authentication=PASSWORD)
        limit = refusal.value.limit
        assert limit.max_sessions == 2
        assert list(limit.live_sessions) == [second.session, first.session]
        assert limit.ticket_expire_time > first.session.create_time
        chosen = [first.session.session_id]
        third = await client.create(subject="ada", authentication=PASSWORD, ticket=limit.ticket, evict=chosen)
        assert third.evicted_session_ids == (first.session.session_id,)
        assert (await client.validate(first.token)).verdict is Verdict.REVOKED
        clock.advance(1)
        guest = await client.create()
        with pytest.raises(ConcurrencyLimitReached) as again:
            await client.authenticate(guest.token, "ada", authentication=PASSWORD)
        with pytest.raises(InvalidArgument):  # a ticket is good once, and for its own call
            await client.authenticate(
                guest.token, "ada", authentication=PASSWORD, ticket=limit.ticket, evict=[third.session.session_id]
            )
        login = await client.authenticate(
            guest.token,
            "ada",
            authentication=PASSWORD,
            ticket=again.value.limit.ticket,
            evict=[third.session.session_id],
        )
        assert login.evicted_session_ids == (third.session.session_id,)
        with pytest.raises(ConcurrencyLimitReached) as last:
            await client.create(subject="ada", authentication=PASSWORD)
        assert last.value.limit.live_count == 2
        oldest = await client.create(
            subject="ada", authentication=PASSWORD, ticket=last.value.limit.ticket, evict_oldest=True
        )
        assert oldest.evicted_session_ids == (second.session.session_id,)


async def test_a_logout_can_leave_a_guest(client: Either) -> None:
    """`open_anonymous` ends a session and opens an anonymous one, whose cookie takes the place of the old."""
    created = await client.create(subject="ada")
    assert cookie_of(created.cookies) == created.token.reveal()
    ended = await client.revoke(token=created.token, reason="logout", open_anonymous=True)
    assert ended.revoked
    assert (ended.session.session_id, ended.anonymous_session.subject) == (created.session.session_id, "")
    assert cookie_of(ended.cookies) == ended.token.reveal()
    assert (await client.validate(ended.token, requirements=Requirements(csrf=ended.csrf_token))).valid
    plain = await client.revoke(token=ended.token)
    assert (plain.anonymous_session, plain.token, plain.csrf_token) == (None, None, None)
    assert any(name == "Clear-Site-Data" for name, _ in plain.cookies.headers())


async def test_a_session_can_be_of_a_login_page_or_remembered(client: Either) -> None:
    """A login page's session has its own end until the subject logs in; a remembered one says so."""
    guest = await client.create(login_page=True)
    assert guest.session.login_expire_time - guest.session.create_time == timedelta(minutes=10)
    login = await client.authenticate(guest.token, "ada", authentication=PASSWORD, persistent=True)
    assert (login.session.login_expire_time, login.session.persistent) == (None, True)
    assert (await client.create(subject="bob", persistent=True)).session.persistent


async def test_a_reported_suspicion_has_the_policys_reaction(client: Either) -> None:
    """`report_signal` says what the authority did, and the event tells it with the reason."""
    created = await client.create(subject="ada")
    reported = await client.report_signal(session_id=created.session.session_id, reason="odd transfers")
    assert (reported.verdict, reported.reaction) == (Verdict.VALID, Reaction.REVOKE_SESSION)
    assert (await client.validate(created.token, at_least=reported.consistency_token)).verdict is Verdict.REVOKED
    events = await client.all("activity", "ada")
    told = [event for event in events if event.reaction is not Reaction.UNSPECIFIED]
    assert [(event.signals[0].type, event.reaction) for event in told] == [
        (SignalType.REPORTED, Reaction.REVOKE_SESSION)
    ]


async def test_a_guessing_source_is_listed_and_unlocked(client: Either) -> None:
    """A source that guessed too often is listed, on pages of any size, until it is unlocked; then it is not found."""
    for address in ("192.0.2.1", "192.0.2.2"):
        for _ in range(3):
            await client.validate("A" * 70, client=ClientContext(ip_address=address))
    locks = await client.all("list_source_locks", page_size=1)
    assert [lock.source for lock in locks] == ["192.0.2.1/32", "192.0.2.2/32"]
    assert locks[0].application == "default"
    assert locks[0].expire_time - locks[0].lock_time == timedelta(minutes=15)
    assert (await client.clear_source_lock("192.0.2.1/32", reason="a test of ours")).consistency_token
    assert [lock.source for lock in (await client.list_source_locks_page()).items] == ["192.0.2.2/32"]
    with pytest.raises(NotFound):
        await client.clear_source_lock("192.0.2.1/32")


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_opening_whose_answer_is_lost_opens_one_session(
    kind: type[AsyncClient] | type[Client], app: App
) -> None:
    """Safe retries: the caller notices nothing, and there is one session, whose token it has."""
    relay = Losing(app.address)
    async with relay.running() as target, Either(kind, target) as client:
        created = await client.create(subject="ada")
        assert (await client.validate(created.token)).valid
        assert [session.session_id for session in await client.all("list", subject="ada")] == [
            created.session.session_id
        ]
    assert relay.breaks == 1


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_large_batch_is_repeated_too(kind: type[AsyncClient] | type[Client], app: App) -> None:
    """A call of a megabyte is asked again as a small one is: gRPC keeps it for that."""
    relay = Losing(app.address)
    async with relay.running() as target, Either(kind, target) as client:
        answers = await client.validate_many([Question("nonsense", ClientContext(user_agent="x" * 1024))] * 1000)
    assert (len(answers), relay.breaks) == (1000, 1)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_without_safe_retries_a_change_is_made_once(kind: type[AsyncClient] | type[Client], app: App) -> None:
    """Switched off, a lost answer is Unavailable, and the session that nobody has the token of is there."""
    relay = Losing(app.address)
    async with relay.running() as target, Either(kind, target, safe_retries=False) as client:
        with pytest.raises(Unavailable):
            await client.create(subject="ada")
        assert len(await client.all("list", subject="ada")) == 1


async def test_a_callers_own_id_gives_the_first_answer_again(client: Either) -> None:
    """A call that its caller repeats with the same id gives the same answer; with other parameters it is refused."""
    own = str(uuid.uuid4())
    first = await client.create(subject="ada", request_id=own)
    assert await client.create(subject="ada", request_id=own) == first
    with pytest.raises(InvalidArgument) as refusal:
        await client.create(subject="bob", request_id=own)
    assert [violation.field for violation in refusal.value.violations] == ["request_id"]
    assert own not in f"{refusal.value} {refusal.value.violations}"
