"""What a refused call shows: its status and the invalid field; and what shows that nothing has changed."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub


@dataclass(frozen=True)
class Refusal:
    """The status of a call that failed."""

    code: grpc.StatusCode
    message: str
    fields: list[str]


async def refusal_of(call: Awaitable[Any]) -> Refusal:
    """Return how a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    error = raised.value
    fields: list[str] = []
    status = rpc_status.from_call(error)
    if status is not None:
        for detail in status.details:
            request = error_details_pb2.BadRequest()
            if detail.Unpack(request):
                fields += [violation.field for violation in request.field_violations]
                assert all(violation.description for violation in request.field_violations)
    return Refusal(error.code(), error.details() or "", fields)


async def revision_of(stub: AsyncStub) -> int:
    """Return the newest revision of the log."""
    return (await stub.GetAuthority(pb.GetAuthorityRequest())).revision


async def session_of(stub: AsyncStub, session_id: str, application: str = "") -> pb.Session:
    """Return a reference to a session by its id."""
    reference = pb.SessionReference(session_id=session_id)
    return (await stub.GetSession(pb.GetSessionRequest(application=application, session=reference))).session


async def first_of(stub: AsyncStub, request: pb.SubscribeRequest) -> pb.SubscribeResponse:
    """Return the first message of a subscription."""
    stream = stub.Subscribe(request)
    try:
        async for item in stream:
            return item
        raise AssertionError("the stream ended without a message")
    finally:
        stream.cancel()
