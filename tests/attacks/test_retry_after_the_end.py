"""A call that is repeated by its id after its session has ended says so: a dead session is valid in no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sessiond.domain.values import Millis
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import MINUTE, authority, create, fresh_id, loose, policy, validate
from tests.rpc.refusals import revision_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

CALLS: dict[str, dict[str, Any]] = {
    "RefreshSession": {},
    "RollSession": {"reason": "role"},
    "AuthenticateSession": {"subject": "ada"},
    "UpdateSessionData": {"set": {"cart": b"3 apples"}},
}


def request_of(name: str, token: str, request_id: str) -> Any:
    """The request of a call that presents a token."""
    named = {"session": {"token": token}} if name == "UpdateSessionData" else {"token": token}
    return getattr(loose, name + "Request")(**named, **CALLS[name], request_id=request_id)


@pytest.mark.parametrize("ending", ["logout", "idle"])
@pytest.mark.parametrize("name", CALLS)
async def test_a_repeat_after_the_end_is_judged_anew(
    stub: AsyncStub, clock: ManualClock, name: str, ending: str
) -> None:
    """Repeated while the session lives the call gives its first answer, and after its end the verdict on the token."""
    created = await create(stub)
    request = request_of(name, created.token, fresh_id())
    call = getattr(stub, name)
    first = await call(request)
    assert first.verdict == pb.VERDICT_VALID
    assert await call(request) == first
    if ending == "idle":
        clock.advance(31 * MINUTE)
    else:
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"session_id": created.session.session_id}))
    again = await call(request)
    assert again.verdict == (pb.VERDICT_EXPIRED_IDLE if ending == "idle" else pb.VERDICT_REVOKED)
    assert getattr(again, "token", "") == ""
    before = await revision_of(stub)
    assert await call(request) == again
    assert await revision_of(stub) == before


async def test_a_repeated_update_by_id_after_the_end(stub: AsyncStub) -> None:
    """The same for a session that is named by its id."""
    created = await create(stub)
    request = loose.UpdateSessionDataRequest(
        session={"session_id": created.session.session_id}, set={"cart": b"3 apples"}, request_id=fresh_id()
    )
    first = await stub.UpdateSessionData(request)
    assert await stub.UpdateSessionData(request) == first
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": created.token}))
    assert (await stub.UpdateSessionData(request)).verdict == pb.VERDICT_REVOKED


async def test_a_repeated_login_opens_no_second_session(stub: AsyncStub) -> None:
    """A login with `or_create` gives its first answer again, whose token is dead: a late repeat must log nobody in."""
    guest = await create(stub, "")
    request = loose.AuthenticateSessionRequest(token=guest.token, subject="ada", or_create=True, request_id=fresh_id())
    first = await stub.AuthenticateSession(request)
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": first.token}))
    assert await stub.AuthenticateSession(request) == first
    assert (await validate(stub, first.token)).verdict == pb.VERDICT_REVOKED
    listed = await stub.ListSessions(loose.ListSessionsRequest())
    assert list(listed.sessions) == []


@pytest.mark.parametrize("rolls", [1, 2])
async def test_a_repeat_after_another_roll_is_the_first_answer(stub: AsyncStub, rolls: int) -> None:
    """While the session lives a refresh keeps its first answer, however often the token was replaced since."""
    created = await create(stub)
    request = request_of("RefreshSession", created.token, fresh_id())
    first, token = await stub.RefreshSession(request), created.token
    for _ in range(rolls):
        token = (await stub.RollSession(loose.RollSessionRequest(token=token))).token
    assert await stub.RefreshSession(request) == first


async def test_the_policy_says_how_long_a_repeat_counts(tmp_path: Path, clock: ManualClock) -> None:
    """To the millisecond of `answer_retention` a repeated creation gives the first answer, and then opens a session."""
    async with authority(tmp_path, clock, policy(answer_retention=Millis(5 * MINUTE))) as (_, stub):
        request = loose.CreateSessionRequest(subject="ada", request_id=fresh_id())
        first = await stub.CreateSession(request)
        clock.advance(5 * MINUTE - 1)
        assert await stub.CreateSession(request) == first
        clock.advance(1)
        assert (await stub.CreateSession(request)).token != first.token
