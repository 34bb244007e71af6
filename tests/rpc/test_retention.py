"""How long ended sessions are kept: a day for anonymous ones, and a month for those of subjects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from sessiond.app import App
from sessiond.domain.values import Millis
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import HOUR, MINUTE, authority, create, login, loose, policy, validate
from tests.rpc.refusals import refusal_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

DAY = 24 * HOUR


@pytest.fixture
async def served(tmp_path: Path, clock: ManualClock) -> AsyncIterator[tuple[App, AsyncStub]]:
    """Return an authority with the presets' retention, and an application that keeps guests for a week."""
    extra = {"shop": policy(anonymous_retention=Millis(7 * DAY), retention=Millis(2 * DAY))}
    async with authority(tmp_path, clock, policy(), extra=extra) as served:
        yield served


@pytest.mark.parametrize("ending", ["revoked", "idle"])
@pytest.mark.parametrize(("subject", "kept"), [("", DAY), ("ada", 30 * DAY)])
async def test_to_the_millisecond(
    served: tuple[App, AsyncStub], clock: ManualClock, subject: str, kept: int, ending: str
) -> None:
    """An ended session is shown until its retention, counted from its end, has passed; then it does not exist."""
    app, stub = served
    ended = await create(stub, subject, data={"cart": b"1"})
    session_id = ended.session.session_id
    if ending == "revoked":
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": ended.token}))
    else:
        clock.advance(30 * MINUTE)
        await app.sweeper.sweep()
    clock.advance(kept - 1)
    await app.sweeper.prune()
    assert (await session_of(stub, session_id)).state in (pb.SESSION_STATE_REVOKED, pb.SESSION_STATE_EXPIRED)
    clock.advance(1)
    await app.sweeper.prune()
    refused = await refusal_of(session_of(stub, session_id))
    assert refused.code == grpc.StatusCode.NOT_FOUND
    assert (await validate(stub, ended.token)).verdict == pb.VERDICT_UNKNOWN


async def test_it_counts_what_it_is_at_the_end(served: tuple[App, AsyncStub], clock: ManualClock) -> None:
    """After a guest has logged in, the session is kept as long as any other session of a subject."""
    app, stub = served
    guest = await create(stub, "")
    own = await login(stub, guest.token)
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": own.token}))
    clock.advance(2 * DAY)
    await app.sweeper.prune()
    assert (await session_of(stub, own.session.session_id)).subject == "ada"


@pytest.mark.parametrize(("subject", "kept"), [("", 7 * DAY), ("ada", 2 * DAY)])
async def test_each_application_has_its_own(
    served: tuple[App, AsyncStub], clock: ManualClock, subject: str, kept: int
) -> None:
    """Each application has its own retention, even if it is longer for guests than for subjects."""
    app, stub = served
    ended = await create(stub, subject, application="shop")
    await stub.RevokeSession(loose.RevokeSessionRequest(application="shop", session={"token": ended.token}))
    clock.advance(kept - 1)
    await app.sweeper.prune()
    assert (await session_of(stub, ended.session.session_id, "shop")).state == pb.SESSION_STATE_REVOKED
    clock.advance(1)
    await app.sweeper.prune()
    refused = await refusal_of(session_of(stub, ended.session.session_id, "shop"))
    assert refused.code == grpc.StatusCode.NOT_FOUND


async def test_every_way_to_end_a_guest(served: tuple[App, AsyncStub], clock: ManualClock) -> None:
    """However a guest's session ends (by id, in bulk, by timeout), it is deleted after a day."""
    app, stub = served
    by_id, in_bulk = await create(stub, ""), await create(stub, "", labels={"bot": "yes"})
    page, idle = await create(stub, "", login_page=True), await create(stub, "")
    subjects = await create(stub)
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"session_id": by_id.session.session_id}))
    await stub.RevokeSessions(loose.RevokeSessionsRequest(filter={"labels": {"bot": "yes"}}))
    clock.advance(10 * MINUTE)
    assert (await validate(stub, page.token)).verdict == pb.VERDICT_EXPIRED_ABSOLUTE
    clock.advance(20 * MINUTE)
    await app.sweeper.sweep()
    clock.advance(DAY)
    await app.sweeper.prune()
    for guest in (by_id, in_bulk, page, idle):
        assert (await validate(stub, guest.token)).verdict == pb.VERDICT_UNKNOWN
    assert (await session_of(stub, subjects.session.session_id)).state == pb.SESSION_STATE_EXPIRED


async def test_a_live_guest_is_not_pruned(served: tuple[App, AsyncStub], clock: ManualClock) -> None:
    """Retention counts from the end of a session: a guest that stays active is not deleted, however old it is."""
    app, stub = served
    guest = await create(stub, "", lifetimes={})
    for _ in range(15):
        clock.advance(29 * MINUTE)
        token = (await validate(stub, guest.token)).renewed_token or guest.token
        assert (await validate(stub, token)).verdict == pb.VERDICT_VALID
        guest.token = token
        await app.sweeper.prune()
    assert (await session_of(stub, guest.session.session_id)).state == pb.SESSION_STATE_ACTIVE
