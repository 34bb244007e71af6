"""Any request that the contract can express is answered, or refused with a field's name; never an internal error."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from sessiond.app import App
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.clock import ManualClock
from tests.support.fuzz import bounded
from tests.support.messages import Drawn, messages, names_a_field
from tests.support.server import AsyncStub, config_for, serving

METHODS = pb.DESCRIPTOR.services_by_name["SessionAuthority"].methods
ONE_REQUEST = [method for method in METHODS if not method.client_streaming]
# The allowed refusals. UNAVAILABLE and DEADLINE_EXCEEDED are not among them: no request may stop the authority.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
}
# With this policy every call can succeed: sessions can be remembered, and the limit asks the subject to choose.
CONFIG = """
[applications.default]
remember_idle_timeout = "7d"
remember_absolute_timeout = "30d"
max_sessions = 3
on_limit = "ask"
"""
_numbers = itertools.count(1)


@pytest.fixture
async def app(tmp_path: Path, clock: ManualClock) -> AsyncIterator[App]:
    async with serving(config_for(tmp_path, CONFIG), clock) as app:
        yield app


async def known_texts(stub: AsyncStub) -> Mapping[str, Sequence[str]]:
    """Return texts that pass the first checks: tokens and ids of live sessions, and other names in use."""
    loose: Any = pb
    subject = f"ada {next(_numbers)}"
    opened = await stub.CreateSession(loose.CreateSessionRequest(subject=subject, data={"cart": b"3 apples"}))
    guest = await stub.CreateSession(pb.CreateSessionRequest())
    listed = await stub.ListSessions(pb.ListSessionsRequest(page_size=1))
    tokens = [opened.token, guest.token, ""]
    request_ids = ["", str(uuid.UUID(int=next(_numbers), version=4)), str(uuid.UUID(int=0, version=4))]
    texts = {
        "application": ["default", ""],
        "token": tokens,
        "csrf_token": [opened.csrf_token, ""],
        "session_id": [opened.session.session_id, guest.session.session_id],
        "except_session_id": [opened.session.session_id, ""],
        "evict_session_ids": [opened.session.session_id],
        "subject": [subject, "bob", ""],
        "request_id": request_ids,
        "ip_address": ["", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0"],
        "ip_network": ["", "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/0"],
        "source": ["192.0.2.0/24", "2001:db8::/64"],
        "purpose": ["pay"],
        "path": ["", "/", "/pay"],
        "methods": ["pwd", "otp"],
        "at_least": ["", opened.consistency_token],
        "page_token": ["", "", listed.next_page_token],
        "ticket": [""],
        "key": ["cart", "other"],
        "keys": ["cart", "other"],
        "value": ["web"],
        "delete": ["theirs"],
        "reason": ["", "logout"],
        "user_agent": ["", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "curl/8.5.0"],
        "device_id": ["", "laptop"],
    }
    return texts | {"": sorted({text for some in texts.values() for text in some})}


async def ask(stub: AsyncStub, method: Any, request: Message) -> None:
    """Make the call; of a stream, read the first message. Raise what gRPC raises."""
    call = getattr(stub, method.name)(request, timeout=30)
    if not method.server_streaming:
        await call
        return
    try:
        await anext(aiter(call))
    finally:
        call.cancel()


def blamed_fields(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the fields that a refusal names."""
    status = rpc_status.from_call(error)
    request = error_details_pb2.BadRequest()
    for detail in () if status is None else status.details:
        if detail.Unpack(request):
            break
    return [violation.field for violation in request.field_violations]


async def fault(stub: AsyncStub, method: Any, request: Message) -> str:
    """Return what is wrong with the response to a request; empty if nothing is."""
    try:
        await ask(stub, method, request)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            pytest.skip("not served by this version")
        if error.code() not in REFUSALS:
            return f"{error.code()}: {error.details()}"
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            fields = blamed_fields(error)
            if not fields or not all(names_a_field(method.input_type, path) for path in fields):
                return f"{fields} are no fields of {method.input_type.name}: {error.details()}"
    return ""


@pytest.mark.parametrize("method", ONE_REQUEST, ids=lambda method: method.name)
@bounded(100)
@given(data=st.data())
async def test_any_request(stub: AsyncStub, method: Any, data: st.DataObject) -> None:
    """Any request is answered, or refused for a reason that the caller can fix, with the invalid field named."""
    request = data.draw(messages(method.input_type, await known_texts(stub)).map(Drawn)).message
    assert await fault(stub, method, request) == ""
