"""Request ids: which calls are the same, whichever client they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sessiond.authority.results import RequestId
from sessiond.domain.call import Caller
from sessiond.rpc.retries import request_id_of
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import ATTACKER, VICTIM, create, fresh_id, loose
from tests.rpc.refusals import revision_of
from tests.support.server import AsyncStub
from tests.support.work import call_of

ID = "3ccc7482-2d80-4333-a312-acb371a8121a"
ELSEWHERE = pb.ClientContext(
    ip_address="2001:db8::1", user_agent="curl/8.5", certificate_thumbprint=b"c" * 32, device_id="phone"
)
Made = Callable[[pb.CreateSessionResponse], Any]
# Every change whose request has a client context.
CHANGES: dict[str, Made] = {
    "CreateSession": lambda mine: pb.CreateSessionRequest(subject="bob"),
    "AuthenticateSession": lambda mine: pb.AuthenticateSessionRequest(token=mine.token, subject="ada"),
    "RollSession": lambda mine: pb.RollSessionRequest(token=mine.token, reason="password"),
    "RefreshSession": lambda mine: pb.RefreshSessionRequest(token=mine.token),
    "RevokeSession": lambda mine: loose.RevokeSessionRequest(session={"token": mine.token}, open_anonymous=True),
    "ReportSignal": lambda mine: loose.ReportSignalRequest(session={"token": mine.token}, reason="odd"),
}
REQUESTS = [
    message for message in pb.DESCRIPTOR.message_types_by_name.values() if "request_id" in message.fields_by_name
]


def asked(request: Any, caller: str = "shop", application: str = "default") -> RequestId:
    """Return the id of a request that a caller makes."""
    call = call_of(application=application, caller=Caller(caller, "ipv4:192.0.2.1:9"))
    found = request_id_of(call, request)
    assert found is not None
    return found


def created(**fields: Any) -> pb.CreateSessionRequest:
    """Return a request with the id."""
    return pb.CreateSessionRequest(**({"subject": "ada", "request_id": ID} | fields))


def test_every_change_that_comes_with_a_client_is_tried() -> None:
    """The changes that are tested below are all that have both a request id and a client."""
    names = {message.name for message in REQUESTS if "client" in message.fields_by_name}
    assert {f"{name}Request" for name in CHANGES} == names


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("client", [ELSEWHERE, None], ids=["another client", "no client"])
async def test_a_retry_from_another_client(stub: AsyncStub, name: str, client: pb.ClientContext | None) -> None:
    """The same id gets the first response again, even if the client has another address, or is not given."""
    request = CHANGES[name](await create(stub))
    request.request_id = fresh_id()
    request.client.CopyFrom(VICTIM)
    first = await getattr(stub, name)(request)
    before = await revision_of(stub)
    request.ClearField("client")
    if client is not None:
        request.client.CopyFrom(client)
    assert await getattr(stub, name)(request) == first
    assert await revision_of(stub) == before


def test_a_request_without_an_id() -> None:
    """A request without an id has no request id."""
    assert request_id_of(call_of(), created(request_id="")) is None


@pytest.mark.parametrize("descriptor", REQUESTS, ids=lambda message: message.name)
def test_where_it_comes_from_is_not_what_it_asks(descriptor: Any) -> None:
    """Two requests that differ only in their clients are the same call."""
    kind = getattr(pb, descriptor.name)
    requests = [kind(request_id=ID)]
    if "client" in descriptor.fields_by_name:
        requests += [kind(request_id=ID, client=client) for client in (VICTIM, ATTACKER, pb.ClientContext())]
    assert len({(asked(request).key, asked(request).parameters) for request in requests}) == 1
    assert all(request.request_id == ID for request in requests)


@pytest.mark.parametrize("descriptor", REQUESTS, ids=lambda message: message.name)
def test_every_other_field_is_what_it_asks(descriptor: Any) -> None:
    """A request that differs in any field except id and client is another call under the same id."""
    kind = getattr(pb, descriptor.name)
    plain = asked(kind(request_id=ID))
    seen = {plain.parameters}
    names = [name for name in descriptor.fields_by_name if name not in ("request_id", "client")]
    for name in names:
        request = kind(request_id=ID)
        change(request, descriptor.fields_by_name[name])
        other = asked(request)
        assert other.key == plain.key
        seen.add(other.parameters)
    assert len(seen) == 1 + len(names)


def change(request: Any, field: Any) -> None:
    """Change one field to a different value."""
    value = getattr(request, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        is_text = field.message_type.fields_by_name["value"].type == field.TYPE_STRING
        value["a"] = "1" if is_text else b"1"
    elif field.is_repeated:
        value.add() if field.type == field.TYPE_MESSAGE else value.append("x")
    elif field.type == field.TYPE_MESSAGE:
        value.SetInParent()
    else:
        setattr(request, field.name, {field.TYPE_STRING: "x", field.TYPE_BOOL: True}.get(field.type, 1))


def test_the_kind_of_call_is_what_it_asks() -> None:
    """Two kinds of calls with the same fields are two different calls under the same id."""
    one = asked(pb.RollSessionRequest(token="t", request_id=ID))
    other = asked(pb.RefreshSessionRequest(token="t", request_id=ID))
    assert one.key == other.key
    assert one.parameters != other.parameters


@pytest.mark.parametrize(
    ("caller", "application"), [("bank", "default"), ("shop", "bank"), ("shop\0default", ""), ("", "shop\0default")]
)
def test_an_id_is_the_callers_own(caller: str, application: str) -> None:
    """The same id from another caller, or for another application, is a different id."""
    assert asked(created(), caller, application).key != asked(created()).key


def test_another_id_is_another_call() -> None:
    """Another id has another key, and its parameters cannot be compared with the first one's."""
    one, other = asked(created()), asked(created(request_id=fresh_id()))
    assert one.key != other.key
    assert one.parameters != other.parameters


def test_the_id_shows_nothing() -> None:
    """The id, which opens the kept answer, is neither in the repr nor in what is stored."""
    found = asked(created())
    assert len(found.key) == len(found.parameters) == 32
    assert repr(found.secret) not in repr(found)
    assert found.secret not in found.key + found.parameters
