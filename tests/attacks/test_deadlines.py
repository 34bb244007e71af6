"""Outstaying: who was let in for a time stays a moment longer than that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sessiond.app import App
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    HOUR,
    MINUTE,
    authority,
    create,
    kinds,
    login,
    millis,
    policy,
    story_of,
    unmet_kinds,
    validate,
)
from tests.rpc.refusals import session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

DAY = 24 * HOUR
REMEMBERING = policy(
    idle_timeout=HOUR, remember_idle_timeout=7 * DAY, remember_absolute_timeout=30 * DAY, renewal_timeout=None
)
PASSWORD = {"level": 1, "methods": ["pwd"]}
KEY = {"level": 2, "methods": ["pwd", "hwk"]}
STRONG = {"min_level": 2}


@pytest.fixture
async def both(tmp_path: Path, clock: ManualClock) -> AsyncIterator[tuple[App, AsyncStub]]:
    """An authority that remembers sessions, and a client of it."""
    async with authority(tmp_path, clock, REMEMBERING) as both:
        yield both


async def strong(stub: AsyncStub, token: str) -> bool:
    """Whether the session suffices for what needs level 2; if not, it is said what is missing."""
    answer = await validate(stub, token, requirements=STRONG)
    if answer.verdict == pb.VERDICT_VALID:
        return True
    assert (answer.verdict, unmet_kinds(answer)) == (pb.VERDICT_INSUFFICIENT, ["LEVEL"])
    assert answer.next_step == pb.NEXT_STEP_STEP_UP
    assert answer.unmet[0].min_level == 2
    return False


async def test_an_elevation_falls_back_by_itself(both: tuple[App, AsyncStub], clock: ManualClock) -> None:
    """An elevation counts up to its last millisecond, then the level of before counts, and the session goes on."""
    _, stub = both
    mine = await create(stub, authentication=PASSWORD)
    assert not await strong(stub, mine.token)
    raised = await login(stub, mine.token, authentication=KEY, elevate=True)
    assert raised.session.authentication.level == 2
    assert millis(raised.session.elevation_expire_time) == clock.now() + 15 * MINUTE
    clock.advance(15 * MINUTE - 1)
    assert await strong(stub, raised.token)
    clock.advance(1)
    assert not await strong(stub, raised.token)
    after = await validate(stub, raised.token)
    assert (after.verdict, after.session.authentication.level) == (pb.VERDICT_VALID, 1)
    assert not after.session.HasField("elevation_expire_time")
    assert (await session_of(stub, raised.session.session_id)).authentication.level == 1
    assert kinds(await story_of(stub, raised.token)) == ["SESSION_CREATED", "SESSION_AUTHENTICATED", "SESSION_ROLLED"]


async def test_nobody_elevates_a_guest(both: tuple[App, AsyncStub]) -> None:
    """An anonymous session cannot be elevated, and stays what it was."""
    _, stub = both
    guest = await create(stub, "")
    with pytest.raises(Exception, match="elevate"):
        await login(stub, guest.token, authentication=KEY, elevate=True)
    assert (await validate(stub, guest.token)).session.subject == ""


async def test_a_remembered_sessions_level_falls(both: tuple[App, AsyncStub], clock: ManualClock) -> None:
    """A remembered session outlives the ordinary idle timeout, at a lower level that use does not bring back."""
    _, stub = both
    mine = await create(stub, persistent=True, authentication=KEY)
    clock.advance(HOUR - 1)
    assert await strong(stub, mine.token)
    clock.advance(HOUR)
    assert not await strong(stub, mine.token)
    remembered = await validate(stub, mine.token)
    assert (remembered.verdict, remembered.session.authentication.level) == (pb.VERDICT_VALID, 1)
    clock.advance(1)
    assert not await strong(stub, mine.token)
    again = await login(stub, mine.token, authentication=KEY)
    assert again.session.persistent
    assert await strong(stub, again.token)


async def test_a_remembered_session_ends_too(both: tuple[App, AsyncStub], clock: ManualClock) -> None:
    """A remembered session ends at its own idle deadline, and one that is not remembered at the ordinary one."""
    _, stub = both
    kept, plain = await create(stub, persistent=True), await create(stub)
    clock.advance(HOUR)
    assert (await validate(stub, plain.token)).verdict == pb.VERDICT_EXPIRED_IDLE
    clock.advance(7 * DAY - HOUR - 1)
    assert (await validate(stub, kept.token, passive=True)).verdict == pb.VERDICT_VALID
    clock.advance(1)
    assert (await validate(stub, kept.token)).verdict == pb.VERDICT_EXPIRED_IDLE


@pytest.mark.parametrize("wait", [-1, 0])
async def test_a_login_page_left_open(both: tuple[App, AsyncStub], clock: ManualClock, wait: int) -> None:
    """A login page's session, however busy, ends at its deadline, and no login goes through from then on."""
    app, stub = both
    page = await create(stub, "", login_page=True)
    assert millis(page.session.login_expire_time) == clock.now() + 10 * MINUTE
    for _ in range(2):
        clock.advance(5 * MINUTE - 1)
        assert (await validate(stub, page.token)).verdict == pb.VERDICT_VALID
        await stub.RefreshSession(pb.RefreshSessionRequest(token=page.token))
    clock.advance(2 + wait)
    answer = await login(stub, page.token)
    if wait:
        assert (answer.verdict, answer.session.HasField("login_expire_time")) == (pb.VERDICT_VALID, False)
        clock.advance(30 * MINUTE)
        assert (await validate(stub, answer.token)).verdict == pb.VERDICT_VALID
        return
    assert (answer.verdict, answer.token) == (pb.VERDICT_EXPIRED_ABSOLUTE, "")
    await app.sweeper.sweep()
    event = (await story_of(stub, page.token))[-1]
    assert (kinds([event]), event.cause.kind) == (["SESSION_EXPIRED"], pb.CAUSE_KIND_LOGIN_TIMEOUT)


async def test_an_authentication_grows_too_old(both: tuple[App, AsyncStub], clock: ManualClock) -> None:
    """A required age holds up to its last millisecond; use does not make an authentication younger, a login does."""
    _, stub = both
    mine = await create(stub, authentication=PASSWORD)
    fresh = {"max_authentication_age": {"seconds": 300}}
    clock.advance(5 * MINUTE - 1)
    assert (await validate(stub, mine.token, requirements=fresh)).verdict == pb.VERDICT_VALID
    clock.advance(1)
    old = await validate(stub, mine.token, requirements=fresh)
    assert (old.verdict, unmet_kinds(old)) == (pb.VERDICT_INSUFFICIENT, ["AUTHENTICATION_AGE"])
    assert (old.next_step, old.unmet[0].max_authentication_age.seconds) == (pb.NEXT_STEP_STEP_UP, 300)
    again = await login(stub, mine.token, authentication=PASSWORD)
    assert (await validate(stub, again.token, requirements=fresh)).verdict == pb.VERDICT_VALID
