"""The life of a session through the generated stubs, from beginning to end."""

from __future__ import annotations

import grpc
import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub

MINUTE = 60_000


async def validate(stub: AsyncStub, token: str) -> pb.ValidateSessionResponse:
    return await stub.ValidateSession(pb.ValidateSessionRequest(token=token))


async def test_a_new_session_is_valid(stub: AsyncStub) -> None:
    """A new token is VALID, and the response shows its session."""
    created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
    answer = await validate(stub, created.token)
    assert answer.verdict == pb.VERDICT_VALID
    assert answer.next_step == pb.NEXT_STEP_PROCEED
    assert answer.session.session_id == created.session.session_id
    assert answer.session.subject == "ada"


async def test_login_rolls_and_keeps_data(stub: AsyncStub) -> None:
    """Login issues a new token, denies the old one, and keeps the guest's data."""
    guest = await stub.CreateSession(pb.CreateSessionRequest(data={"cart": b"3 apples"}))
    login = await stub.AuthenticateSession(pb.AuthenticateSessionRequest(token=guest.token, subject="ada"))
    assert login.verdict == pb.VERDICT_VALID
    assert login.token != guest.token
    assert (await validate(stub, guest.token)).verdict == pb.VERDICT_SUPERSEDED
    reference = pb.SessionReference(token=login.token)
    data = await stub.GetSessionData(pb.GetSessionDataRequest(session=reference))
    assert dict(data.data) == {"cart": b"3 apples"}


async def test_renewal_survives_a_lost_cookie(stub: AsyncStub, clock: ManualClock) -> None:
    """The successor of a token is the same each time it is returned, and the old token is valid in the overlap."""
    created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
    for _ in range(2):
        clock.advance(29 * MINUTE)
        await validate(stub, created.token)
    clock.advance(2 * MINUTE)
    first = await validate(stub, created.token)
    lost = await validate(stub, created.token)
    assert first.next_step == pb.NEXT_STEP_REPLACE_TOKEN
    assert first.renewed_token == lost.renewed_token != created.token
    used = await validate(stub, first.renewed_token)
    assert (used.verdict, used.session.generation) == (pb.VERDICT_VALID, 1)
    healed = await validate(stub, created.token)
    assert (healed.verdict, healed.renewed_token) == (pb.VERDICT_VALID, first.renewed_token)
    clock.advance(MINUTE)
    replayed = await validate(stub, created.token)
    assert replayed.verdict == pb.VERDICT_REPLAYED
    assert [signal.type for signal in replayed.signals] == [pb.SIGNAL_TYPE_TOKEN_REPLAY]


async def test_a_revoked_session_never_validates_again(stub: AsyncStub) -> None:
    """Logout is immediate and final, and repeating it is not an error."""
    created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
    reference = pb.SessionReference(token=created.token)
    first = await stub.RevokeSession(pb.RevokeSessionRequest(session=reference, reason="logout"))
    again = await stub.RevokeSession(pb.RevokeSessionRequest(session=reference, reason="logout"))
    assert (first.revoked, again.revoked) == (True, False)
    assert (await validate(stub, created.token)).verdict == pb.VERDICT_REVOKED


async def test_logout_everywhere_but_here(stub: AsyncStub) -> None:
    """RevokeSessions ends the subject's other sessions and nobody else's."""
    mine, other, foreign = [
        await stub.CreateSession(pb.CreateSessionRequest(subject=subject)) for subject in ("ada", "ada", "bob")
    ]
    answer = await stub.RevokeSessions(
        pb.RevokeSessionsRequest(
            filter=pb.SessionFilter(subject="ada"), except_session_id=mine.session.session_id, reason="password"
        )
    )
    assert answer.revoked_count == 1
    verdicts = [(await validate(stub, created.token)).verdict for created in (mine, other, foreign)]
    assert verdicts == [pb.VERDICT_VALID, pb.VERDICT_REVOKED, pb.VERDICT_VALID]


async def test_the_stream_tells_the_story(stub: AsyncStub) -> None:
    """Every change is on the stream, in order, with its revision."""
    created = await stub.CreateSession(pb.CreateSessionRequest())
    login = await stub.AuthenticateSession(pb.AuthenticateSessionRequest(token=created.token, subject="ada"))
    reference = pb.SessionReference(token=login.token)
    await stub.UpdateSessionData(pb.UpdateSessionDataRequest(session=reference, set={"a": b"1"}))
    await stub.RevokeSession(pb.RevokeSessionRequest(session=reference))
    stream = stub.Subscribe(pb.SubscribeRequest(start=pb.STREAM_START_EARLIEST))
    events: list[pb.Event] = []
    async for item in stream:
        if item.HasField("event"):
            events.append(item.event)
        if len(events) == 5:
            break
    stream.cancel()
    assert [event.revision for event in events] == [1, 2, 3, 4, 5]
    assert [event.type for event in events] == [
        pb.EVENT_TYPE_SESSION_CREATED,
        pb.EVENT_TYPE_SESSION_AUTHENTICATED,
        pb.EVENT_TYPE_SESSION_ROLLED,
        pb.EVENT_TYPE_SESSION_DATA_CHANGED,
        pb.EVENT_TYPE_SESSION_REVOKED,
    ]


async def test_a_call_of_a_later_version_is_unimplemented(stub: AsyncStub) -> None:
    """A call of the contract that is not implemented yet is UNIMPLEMENTED."""
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.StreamValidations(iter([pb.StreamValidationsRequest()])).read()
    assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
