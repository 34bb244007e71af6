"""A session's own timeouts: shorter than the policy's, never longer, and exact to the millisecond."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from sessiond.domain.policy import Policy
from sessiond.domain.values import Millis
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    HOUR,
    MINUTE,
    SECOND,
    authority,
    create,
    kinds,
    login,
    loose,
    millis,
    policy,
    roll,
    story_of,
    validate,
)
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT
DAY = 24 * HOUR
LONGEST = 315_576_000_000 * SECOND
"""The longest google.protobuf.Duration, ten thousand years."""
REMEMBERS = policy(remember_idle_timeout=Millis(DAY), remember_absolute_timeout=Millis(30 * DAY))


def own(idle: int | None = None, absolute: int | None = None) -> pb.Lifetimes:
    """Return timeouts given in milliseconds."""
    lifetimes = pb.Lifetimes()
    if idle is not None:
        lifetimes.idle_timeout.FromMilliseconds(idle)
    if absolute is not None:
        lifetimes.absolute_timeout.FromMilliseconds(absolute)
    return lifetimes


def deadlines(session: pb.Session, clock: ManualClock) -> tuple[int | None, int | None]:
    """Return both deadlines relative to now; None for a deadline that is not set."""
    return (
        millis(session.idle_expire_time) - clock.now() if session.HasField("idle_expire_time") else None,
        millis(session.absolute_expire_time) - clock.now() if session.HasField("absolute_expire_time") else None,
    )


def shown(session: pb.Session) -> tuple[int | None, int | None]:
    """Return the session's own timeouts as they are shown."""
    lifetimes = session.lifetimes
    return (
        lifetimes.idle_timeout.ToMilliseconds() if lifetimes.HasField("idle_timeout") else None,
        lifetimes.absolute_timeout.ToMilliseconds() if lifetimes.HasField("absolute_timeout") else None,
    )


@pytest.fixture
async def stub(tmp_path: Path, clock: ManualClock) -> AsyncIterator[AsyncStub]:
    """Return a client of an authority under `owasp-low` (30 min, 8 h), and an application without idle timeout."""
    extra: dict[str, Policy] = {
        "bank": policy("nist-aal1"),
        "mail": REMEMBERS,
        "shop": policy(refresh_extends_lifetime=True),
    }
    async with authority(tmp_path, clock, policy(), extra=extra) as (_, stub):
        yield stub


# How timeouts are set


@pytest.mark.parametrize(
    ("idle", "absolute", "ends", "kept"),
    [
        (MINUTE, None, (MINUTE, 8 * HOUR), (MINUTE, None)),
        (None, HOUR, (30 * MINUTE, HOUR), (None, HOUR)),
        (SECOND, SECOND, (SECOND, SECOND), (SECOND, SECOND)),
        (30 * MINUTE - 1, 8 * HOUR - 1, (30 * MINUTE - 1, 8 * HOUR - 1), (30 * MINUTE - 1, 8 * HOUR - 1)),
        (30 * MINUTE, 8 * HOUR, (30 * MINUTE, 8 * HOUR), (None, None)),
        (31 * MINUTE, 9 * HOUR, (30 * MINUTE, 8 * HOUR), (None, None)),
        (365 * DAY, MINUTE, (30 * MINUTE, MINUTE), (None, MINUTE)),
        (LONGEST, LONGEST, (30 * MINUTE, 8 * HOUR), (None, None)),
        (None, None, (30 * MINUTE, 8 * HOUR), (None, None)),
    ],
)
async def test_shorter_and_never_longer(
    stub: AsyncStub,
    clock: ManualClock,
    idle: int | None,
    absolute: int | None,
    ends: tuple[int, int],
    kept: tuple[int | None, int | None],
) -> None:
    """A shorter timeout applies; one that is not shorter than the policy's has no effect and is not shown."""
    created = await create(stub, lifetimes=own(idle, absolute))
    assert deadlines(created.session, clock) == ends
    assert shown(created.session) == kept
    assert created.session.HasField("lifetimes") == (kept != (None, None))
    assert await session_of(stub, created.session.session_id) == created.session


async def test_where_the_policy_has_none(stub: AsyncStub, clock: ManualClock) -> None:
    """If the policy has no idle timeout, the session's own applies, also after it starts again."""
    bare = await create(stub, application="bank")
    assert deadlines(bare.session, clock) == (None, 30 * DAY)
    created = await create(stub, application="bank", lifetimes=own(idle=MINUTE))
    assert deadlines(created.session, clock) == (MINUTE, 30 * DAY)
    clock.advance(MINUTE - 1)
    assert (await validate(stub, created.token, application="bank")).verdict == pb.VERDICT_VALID
    clock.advance(MINUTE)
    assert (await validate(stub, created.token, application="bank")).verdict == pb.VERDICT_EXPIRED_IDLE
    ages = await create(stub, application="bank", lifetimes=own(LONGEST, LONGEST))
    assert deadlines(ages.session, clock) == (10 * 365 * DAY, 30 * DAY)
    assert (await validate(stub, ages.token, application="bank")).verdict == pb.VERDICT_VALID


async def test_a_remembered_session(stub: AsyncStub, clock: ManualClock) -> None:
    """The longer limits of remembered sessions bound their own timeouts; an ordinary session drops the same ones."""
    lifetimes = own(2 * HOUR, 2 * DAY)
    created = await create(stub, application="mail", persistent=True, lifetimes=lifetimes)
    assert deadlines(created.session, clock) == (2 * HOUR, 2 * DAY)
    assert created.cookies.set_cookie[0].endswith(f"; Max-Age={2 * DAY // 1000}")
    ordinary = await create(stub, application="mail", lifetimes=lifetimes)
    assert deadlines(ordinary.session, clock) == (30 * MINUTE, 8 * HOUR)
    remembered = await login(stub, ordinary.token, application="mail", persistent=True)
    assert deadlines(remembered.session, clock) == (DAY, 30 * DAY)


async def test_a_login_page(stub: AsyncStub, clock: ManualClock) -> None:
    """A login page's session ends at the login timeout or its own, whichever is first; a login starts its own."""
    page = await create(stub, "", login_page=True, lifetimes=own(absolute=HOUR))
    assert deadlines(page.session, clock)[1] == 10 * MINUTE
    short = await create(stub, "", login_page=True, lifetimes=own(absolute=MINUTE))
    assert (deadlines(short.session, clock)[1], millis(short.session.login_expire_time)) == (
        MINUTE,
        clock.now() + MINUTE,
    )
    clock.advance(MINUTE - 1)
    entered = await login(stub, page.token)
    assert deadlines(entered.session, clock) == (30 * MINUTE, HOUR)
    clock.advance(1)
    assert (await validate(stub, short.token)).verdict == pb.VERDICT_EXPIRED_ABSOLUTE


# What timeouts do


async def test_the_idle_timeout_to_the_millisecond(stub: AsyncStub, clock: ManualClock) -> None:
    """Each activity restarts the session's own idle timeout; at its end the session has expired."""
    created = await create(stub, lifetimes=own(idle=2 * SECOND))
    for _ in range(3):
        clock.advance(2 * SECOND - 1)
        answer = await validate(stub, created.token)
        assert answer.verdict == pb.VERDICT_VALID
        assert deadlines(answer.session, clock)[0] == 2 * SECOND
    clock.advance(2 * SECOND)
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_EXPIRED_IDLE
    ending = (await session_of(stub, created.session.session_id)).ending
    assert (millis(ending.end_time), ending.cause.kind) == (clock.now(), pb.CAUSE_KIND_IDLE_TIMEOUT)


async def test_the_absolute_timeout_to_the_millisecond(stub: AsyncStub, clock: ManualClock) -> None:
    """Activity does not move the session's own absolute timeout; at its end the session has expired."""
    created = await create(stub, lifetimes=own(absolute=HOUR))
    for _ in range(2):
        clock.advance(30 * MINUTE - 1)
        assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID
    clock.advance(1)
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID
    clock.advance(1)
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_EXPIRED_ABSOLUTE


@pytest.mark.parametrize("kind", ["idle", "absolute"])
async def test_the_sweeper_keeps_them(tmp_path: Path, clock: ManualClock, kind: str) -> None:
    """The sweeper ends an unused session at its own deadline, which is also the event's time."""
    async with authority(tmp_path, clock) as (app, stub):
        created = await create(stub, lifetimes=own(**{kind: MINUTE}))
        await create(stub)
        clock.advance(MINUTE - 1)
        await app.sweeper.sweep()
        assert kinds(await story_of(stub)) == ["SESSION_CREATED"] * 2
        clock.advance(5_000)
        await app.sweeper.sweep()
        events = await story_of(stub)
        assert kinds(events) == ["SESSION_CREATED"] * 2 + ["SESSION_EXPIRED"]
        assert events[-1].session_id == created.session.session_id
        ended = await session_of(stub, created.session.session_id)
        assert millis(ended.ending.end_time) == clock.now() - 4_999


async def test_they_survive_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    """After a restart the session has the same timeouts, including the effect of activity just before it."""
    async with authority(tmp_path, clock) as (_, stub):
        created = await create(stub, lifetimes=own(MINUTE, HOUR))
        clock.advance(1)
        before = (await validate(stub, created.token)).session
    async with authority(tmp_path, clock) as (_, stub):
        assert await session_of(stub, created.session.session_id) == before
        clock.advance(MINUTE - 1)
        assert (await validate(stub, created.token)).verdict == pb.VERDICT_VALID
        clock.advance(MINUTE)
        assert (await validate(stub, created.token)).verdict == pb.VERDICT_EXPIRED_IDLE


async def test_a_policy_that_becomes_shorter(tmp_path: Path, clock: ManualClock) -> None:
    """If the policy becomes shorter than a session's own timeout, the policy applies."""
    async with authority(tmp_path, clock) as (_, stub):
        created = await create(stub, lifetimes=own(idle=20 * MINUTE))
    async with authority(tmp_path, clock, policy(idle_timeout=Millis(5 * MINUTE))) as (_, stub):
        clock.advance(1)
        answer = await validate(stub, created.token)
        assert deadlines(answer.session, clock)[0] == 5 * MINUTE


# How timeouts change


async def test_a_login_keeps_them(stub: AsyncStub, clock: ManualClock) -> None:
    """A login without timeouts restarts the session's own; with timeouts, these apply from then on."""
    guest = await create(stub, "", lifetimes=own(MINUTE, HOUR))
    clock.advance(30 * SECOND)
    first = await login(stub, guest.token)
    assert (deadlines(first.session, clock), shown(first.session)) == ((MINUTE, HOUR), (MINUTE, HOUR))
    second = await login(stub, first.token, lifetimes=own(absolute=2 * HOUR))
    assert (deadlines(second.session, clock), shown(second.session)) == ((30 * MINUTE, 2 * HOUR), (None, 2 * HOUR))
    third = await login(stub, second.token, lifetimes=pb.Lifetimes())
    assert (deadlines(third.session, clock), shown(third.session)) == ((30 * MINUTE, 8 * HOUR), (None, None))


async def test_a_fresh_session_by_or_create(stub: AsyncStub, clock: ManualClock) -> None:
    """A session opened by `or_create` has the timeouts of the login, and none of the old session's."""
    guest = await create(stub, "", lifetimes=own(MINUTE, HOUR))
    clock.advance(MINUTE)
    fresh = await login(stub, guest.token, or_create=True)
    assert deadlines(fresh.session, clock) == (30 * MINUTE, 8 * HOUR)
    other = await login(stub, "", or_create=True, lifetimes=own(2 * MINUTE))
    assert deadlines(other.session, clock) == (2 * MINUTE, 8 * HOUR)


async def test_a_refresh_shortens(stub: AsyncStub, clock: ManualClock) -> None:
    """A refresh with timeouts sets them; the absolute one can only shorten the remaining time."""
    created = await create(stub)
    clock.advance(20 * MINUTE)

    async def refreshed(lifetimes: pb.Lifetimes | None, application: str = "") -> pb.Session:
        request = pb.RefreshSessionRequest(application=application, token=created.token, lifetimes=lifetimes)
        answer = await stub.RefreshSession(request)
        assert answer.verdict == pb.VERDICT_VALID
        return answer.session

    left = 8 * HOUR - 20 * MINUTE
    assert deadlines(await refreshed(own(idle=MINUTE)), clock) == (MINUTE, left)
    assert deadlines(await refreshed(None), clock) == (MINUTE, left)
    assert deadlines(await refreshed(own(idle=HOUR)), clock) == (30 * MINUTE, left)
    assert deadlines(await refreshed(own(absolute=8 * HOUR - MINUTE)), clock) == (30 * MINUTE, left)
    assert deadlines(await refreshed(own(absolute=HOUR)), clock) == (30 * MINUTE, HOUR)
    assert deadlines(await refreshed(own(absolute=7 * HOUR)), clock) == (30 * MINUTE, HOUR)
    assert deadlines(await refreshed(pb.Lifetimes()), clock) == (30 * MINUTE, HOUR)
    assert (await validate(stub, created.token)).session.absolute_expire_time.seconds * 1000 == clock.now() + HOUR


async def test_a_refresh_that_extends(stub: AsyncStub, clock: ManualClock) -> None:
    """If the policy lets a refresh restart the lifetime, the session's own lifetime restarts."""
    created = await create(stub, application="shop", lifetimes=own(absolute=HOUR))
    clock.advance(20 * MINUTE)
    request = loose.RefreshSessionRequest(application="shop", token=created.token)
    assert deadlines((await stub.RefreshSession(request)).session, clock) == (30 * MINUTE, HOUR)
    request.lifetimes.CopyFrom(own(absolute=2 * HOUR))
    assert deadlines((await stub.RefreshSession(request)).session, clock) == (30 * MINUTE, 2 * HOUR)


async def test_a_refresh_of_a_login_page(stub: AsyncStub, clock: ManualClock) -> None:
    """Timeouts set by a refresh can shorten the life of a login page's session, too, and never lengthen it."""
    page = await create(stub, "", login_page=True)
    clock.advance(MINUTE)
    for lifetimes, left in ((own(absolute=HOUR), 9 * MINUTE), (own(absolute=MINUTE), MINUTE), (own(), MINUTE)):
        request = pb.RefreshSessionRequest(token=page.token, lifetimes=lifetimes)
        session = (await stub.RefreshSession(request)).session
        assert deadlines(session, clock)[1] == left
        assert session.login_expire_time == session.absolute_expire_time


async def test_an_elevation_shortens(stub: AsyncStub, clock: ManualClock) -> None:
    """Timeouts that come with an elevation apply from then on; an elevation never restarts the lifetime."""
    created = await create(stub)
    clock.advance(20 * MINUTE)
    left = 8 * HOUR - 20 * MINUTE
    first = await login(stub, created.token, elevate=True)
    assert deadlines(first.session, clock) == (30 * MINUTE, left)
    second = await login(stub, first.token, elevate=True, lifetimes=own(MINUTE, HOUR))
    assert (deadlines(second.session, clock), shown(second.session)) == ((MINUTE, HOUR), (MINUTE, HOUR))
    third = await login(stub, second.token, elevate=True, lifetimes=own(absolute=2 * HOUR))
    assert deadlines(third.session, clock) == (30 * MINUTE, HOUR)


async def test_a_roll_leaves_them(stub: AsyncStub, clock: ManualClock) -> None:
    """A roll does not change any timeout."""
    created = await create(stub, lifetimes=own(MINUTE, HOUR))
    clock.advance(SECOND)
    rolled = await roll(stub, created.token)
    assert (deadlines(rolled.session, clock), shown(rolled.session)) == ((MINUTE, HOUR - SECOND), (MINUTE, HOUR))


# Invalid timeouts


BAD = {
    "nothing": Duration(),
    "a millisecond less": Duration(nanos=999_999_999),
    "negative": Duration(seconds=-1),
    "negative nanos": Duration(seconds=2, nanos=-1),
    "nanos out of range": Duration(seconds=2, nanos=1_000_000_000),
    "no duration": Duration(seconds=LONGEST // SECOND + 1),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("field", ["idle_timeout", "absolute_timeout"])
@pytest.mark.parametrize("name", ["CreateSession", "AuthenticateSession", "RefreshSession"])
async def test_what_is_no_timeout(stub: AsyncStub, name: str, field: str, bad: str) -> None:
    """A timeout under one second, or an invalid duration, is INVALID_ARGUMENT in every call, and changes nothing."""
    created = await create(stub)
    before = await revision_of(stub)
    fields: dict[str, Any] = {"lifetimes": {field: BAD[bad]}}
    if name != "CreateSession":
        fields["token"] = created.token
    if name != "RefreshSession":
        fields["subject"] = "ada"
    refused = await refusal_of(getattr(stub, name)(getattr(loose, name + "Request")(**fields)))
    assert (refused.code, refused.fields) == (INVALID, [f"lifetimes.{field}"])
    assert await revision_of(stub) == before
    assert await session_of(stub, created.session.session_id) == created.session
