"""Ending a session by its id on behalf of a user: the session must belong to that user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import MINUTE, authority, create, fresh_id, login, loose, policy, validate
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

NOWHERE = "01a3185c-5000-7eb9-bfa9-abb5e19d742c"


@pytest.fixture
async def stub(tmp_path: Path, clock: ManualClock) -> AsyncIterator[AsyncStub]:
    """Return a client of an authority with two applications."""
    async with authority(tmp_path, clock, policy(), extra={"shop": policy()}) as (_, stub):
        yield stub


def ending(session_id: str, **fields: Any) -> pb.RevokeSessionRequest:
    """Return a request to end a session by its id."""
    request: pb.RevokeSessionRequest = loose.RevokeSessionRequest(session={"session_id": session_id}, **fields)
    return request


async def test_ones_own_session(stub: AsyncStub) -> None:
    """The subject's own session ends and is shown as ended; a repeat changes nothing and is not refused."""
    own = await create(stub)
    request = ending(own.session.session_id, subject="ada", reason="lost phone")
    ended = await stub.RevokeSession(request)
    assert (ended.verdict, ended.revoked, ended.session.state) == (
        pb.VERDICT_VALID,
        True,
        pb.SESSION_STATE_REVOKED,
    )
    assert not ended.HasField("cookies")
    before = await revision_of(stub)
    again = await stub.RevokeSession(request)
    assert (again.verdict, again.revoked) == (pb.VERDICT_REVOKED, False)
    assert await revision_of(stub) == before


@pytest.mark.parametrize("subject", ["bob", "", "Ada", "ada ", "ad"])
async def test_somebody_elses(stub: AsyncStub, subject: str) -> None:
    """Another subject's session is NOT_FOUND with the same message as one that does not exist, and stays alive."""
    own = await create(stub)
    before = await revision_of(stub)
    for fields in ({}, {"request_id": fresh_id()}, {"open_anonymous": True}):
        refused = await refusal_of(stub.RevokeSession(ending(own.session.session_id, subject=subject, **fields)))
        assert refused == await refusal_of(stub.RevokeSession(ending(NOWHERE, subject=subject)))
        assert refused.code == grpc.StatusCode.NOT_FOUND
    assert await revision_of(stub) == before
    assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID


@pytest.mark.parametrize("subject", ["ada", "bob", ""])
async def test_of_another_application(stub: AsyncStub, subject: str) -> None:
    """A session of another application is NOT_FOUND with the same message, whichever owner is named."""
    theirs = await create(stub, application="shop")
    refused = await refusal_of(stub.RevokeSession(ending(theirs.session.session_id, subject=subject)))
    assert refused == await refusal_of(stub.RevokeSession(ending(NOWHERE, subject=subject)))
    assert (await validate(stub, theirs.token, application="shop")).verdict == pb.VERDICT_VALID


@pytest.mark.parametrize("ended", ["revoked", "expired"])
async def test_somebody_elses_history(stub: AsyncStub, clock: ManualClock, ended: str) -> None:
    """An ended session, too, is revealed to nobody except its subject."""
    own = await create(stub)
    if ended == "revoked":
        await stub.RevokeSession(ending(own.session.session_id))
    else:
        clock.advance(30 * MINUTE)
    refused = await refusal_of(stub.RevokeSession(ending(own.session.session_id, subject="bob")))
    assert refused == await refusal_of(stub.RevokeSession(ending(NOWHERE, subject="bob")))
    answer = await stub.RevokeSession(ending(own.session.session_id, subject="ada"))
    assert (answer.revoked, answer.session.subject) == (False, "ada")
    assert answer.verdict == (pb.VERDICT_REVOKED if ended == "revoked" else pb.VERDICT_EXPIRED_IDLE)


async def test_a_guests(stub: AsyncStub) -> None:
    """If the owner is set but empty, the session must be anonymous; if it is unset, any session matches."""
    guest, own = await create(stub, ""), await create(stub)
    refused = await refusal_of(stub.RevokeSession(ending(own.session.session_id, subject="")))
    assert refused.code == grpc.StatusCode.NOT_FOUND
    refused = await refusal_of(stub.RevokeSession(ending(guest.session.session_id, subject="ada")))
    assert refused.code == grpc.StatusCode.NOT_FOUND
    assert (await stub.RevokeSession(ending(guest.session.session_id, subject=""))).revoked
    assert (await stub.RevokeSession(ending(own.session.session_id))).revoked


async def test_the_owner_is_who_it_is_now(stub: AsyncStub) -> None:
    """After a login, the guest's session belongs to the subject, and no longer to a guest."""
    guest = await create(stub, "")
    await login(stub, guest.token)
    refused = await refusal_of(stub.RevokeSession(ending(guest.session.session_id, subject="")))
    assert refused.code == grpc.StatusCode.NOT_FOUND
    assert (await stub.RevokeSession(ending(guest.session.session_id, subject="ada"))).revoked


async def test_by_token(stub: AsyncStub) -> None:
    """A logout by token can require the owner too: another subject's session is NOT_FOUND and stays alive."""
    own = await create(stub)
    request = loose.RevokeSessionRequest(session={"token": own.token}, subject="bob")
    assert (await refusal_of(stub.RevokeSession(request))).code == grpc.StatusCode.NOT_FOUND
    assert (await session_of(stub, own.session.session_id)).state == pb.SESSION_STATE_ACTIVE
    request.subject = "ada"
    ended = await stub.RevokeSession(request)
    assert (ended.verdict, ended.revoked) == (pb.VERDICT_VALID, True)
    assert "Max-Age=0" in ended.cookies.set_cookie[0]


@pytest.mark.parametrize("token", ["x", "A" * 70], ids=["malformed", "forged"])
async def test_by_no_token(stub: AsyncStub, token: str) -> None:
    """A token that was never issued gets its verdict, whichever owner is named."""
    request = loose.RevokeSessionRequest(session={"token": token}, subject="ada")
    answer = await stub.RevokeSession(request)
    assert answer.verdict in (pb.VERDICT_MALFORMED, pb.VERDICT_FORGED)
    assert (answer.revoked, answer.HasField("session")) == (False, False)


@pytest.mark.parametrize("subject", ["ada", "bob", ""])
async def test_by_a_token_that_proves_nothing(stub: AsyncStub, subject: str) -> None:
    """A token of another application, or one rolled away, gets its verdict, which does not reveal its subject."""
    theirs, own = await create(stub, application="shop"), await create(stub)
    await stub.RollSession(loose.RollSessionRequest(token=own.token))
    for token, verdict in ((theirs.token, pb.VERDICT_UNKNOWN), (own.token, pb.VERDICT_SUPERSEDED)):
        answer = await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": token}, subject=subject))
        assert (answer.verdict, answer.revoked, answer.HasField("session")) == (verdict, False, False)


async def test_a_repeat(stub: AsyncStub) -> None:
    """A retry with a request id gets the first response; the same id with another owner is refused."""
    own = await create(stub)
    request = ending(own.session.session_id, subject="ada", request_id=fresh_id())
    first = await stub.RevokeSession(request)
    assert await stub.RevokeSession(request) == first
    request.subject = "bob"
    assert (await refusal_of(stub.RevokeSession(request))).fields == ["request_id"]


async def test_an_owner_that_is_too_long(stub: AsyncStub) -> None:
    """An owner of more than 256 characters is INVALID_ARGUMENT with the field's name."""
    own = await create(stub)
    refused = await refusal_of(stub.RevokeSession(ending(own.session.session_id, subject="a" * 257)))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["subject"])
