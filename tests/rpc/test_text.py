"""U+0000 in any text of any request is INVALID_ARGUMENT with the field's name, and changes nothing.

The fields are read from the contract itself, so that a new field is tested without a change here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import create, fresh_id, loose
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.server import AsyncStub

SERVICE = pb.DESCRIPTOR.services_by_name["SessionAuthority"]
LEFT_OUT = {
    "StreamValidations",  # its requests are those of ValidateSession, and are compared with it
    "Follow",  # not served yet
    "StreamBackup",  # its request has no fields
}
TEXTS = ["\0", "a\0b", "default\0", "\0" * 70]

VERDICTS = {
    # The client's own token is untrusted: for any text the response is a verdict, and the text is not stored.
    "token": {"MALFORMED"},
    "session.token": {"MALFORMED"},
    "requests.token": {"MALFORMED"},
    # The same for the second tokens that a request may need: they do not meet the requirement.
    "requirements.companion.companion_token": {"INSUFFICIENT"},
    "requirements.csrf.csrf_token": {"INSUFFICIENT"},
    "requests.requirements.companion.companion_token": {"INSUFFICIENT"},
    "requests.requirements.csrf.csrf_token": {"INSUFFICIENT"},
}
"""Fields whose text is judged instead of refused, with the possible verdicts. There are no other such fields."""

Path = tuple[FieldDescriptor, ...]
_REPEATED = re.compile(r"^(requests|grants)\.")


def texts_of(kind: Descriptor, before: Path = ()) -> Iterator[tuple[Path, bool]]:
    """Return the text fields of a message and its submessages, and the keys and values of maps. True: a key."""
    for field in kind.fields:
        path = (*before, field)
        if field.message_type is None:
            if field.type == FieldDescriptor.TYPE_STRING:
                yield path, False
        elif field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            if entry["key"].type == FieldDescriptor.TYPE_STRING:
                yield path, True
            if entry["value"].type == FieldDescriptor.TYPE_STRING:
                yield path, False
        else:
            yield from texts_of(field.message_type, path)


def put(message: Any, path: Path, text: str, *, in_key: bool) -> None:
    """Set one text field of a request."""
    field, *rest = path
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        is_text = field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING
        getattr(message, field.name)[text if in_key else "key"] = ("value" if in_key else text) if is_text else b"v"
    elif rest:
        held = getattr(message, field.name)
        if field.is_repeated:
            put(held[0] if len(held) else held.add(), tuple(rest), text, in_key=in_key)
        else:
            held.SetInParent()
            put(held, tuple(rest), text, in_key=in_key)
    elif field.is_repeated:
        getattr(message, field.name).append(text)
    else:
        setattr(message, field.name, text)


def name_of(path: Path) -> str:
    """Return a field's name in a refusal."""
    return ".".join(field.name for field in path)


CASES = [
    pytest.param(method.name, path, in_key, id=f"{method.name} {name_of(path)}{' (key)' if in_key else ''}")
    for method in SERVICE.methods
    if method.name not in LEFT_OUT
    for path, in_key in texts_of(method.input_type)
]


def requests_of(own: pb.CreateSessionResponse) -> dict[str, Message]:
    """Return a valid request for each call."""
    by_id, by_token = {"session_id": own.session.session_id}, {"token": own.token}
    fields: dict[str, dict[str, Any]] = {
        "CreateSession": {"subject": "ada"},
        "ValidateSession": by_token,
        "ValidateSessions": {"requests": [by_token]},
        "AuthenticateSession": {"token": own.token, "subject": "ada"},
        "RollSession": by_token,
        "RefreshSession": by_token,
        "RevokeSession": {"session": by_id},
        "RevokeSessions": {"filter": {"subject": "ada"}},
        "GetSession": {"session": by_id},
        "ListSessions": {},
        "GetSessionData": {"session": by_id},
        "UpdateSessionData": {"session": by_id, "set": {"key": b"value"}},
        "IssueCompanionToken": {"token": own.token, "purpose": "pay"},
        "ListActivity": {"subject": "ada"},
        "ReportSignal": {"session": by_id},
        "ListSourceLocks": {},
        "ClearSourceLock": {"source": "192.0.2.1/32"},
        "Subscribe": {},
        "GetAuthority": {},
        "ListCallers": {},
        "RotateCaller": {"name": "nobody"},
        "RevokeCaller": {"name": "nobody"},
        "UpdateCallerCertificates": {"name": "nobody", "add": ["nobody.example"]},
        "GetKeyRing": {},
        "AddSealingKey": {},
        "PromoteSealingKey": {"fingerprint": "00000000"},
        "RetireSealingKey": {"fingerprint": "00000000"},
        # The last one: from the first caller on, a call needs a key.
        "CreateCaller": {"name": "ops", "grants": [{"application": "*", "role": pb.ROLE_ADMIN}]},
    }
    return {name: getattr(loose, name + "Request")(**given) for name, given in fields.items()}


MISSING = {
    "ClearSourceLock",
    "RotateCaller",
    "RevokeCaller",
    "UpdateCallerCertificates",
    "PromoteSealingKey",
    "RetireSealingKey",
}
"""Calls about a lock, a caller or a key that does not exist."""


def test_every_call_has_its_request() -> None:
    """All other calls of the contract are here, with more than a hundred text fields."""
    nobody = pb.CreateSessionResponse()
    assert set(requests_of(nobody)) == {method.name for method in SERVICE.methods} - LEFT_OUT
    assert len(CASES) > 100
    assert {"labels", "client.user_agent", "authentication.methods", "filter.labels", "requests.data.keys"} <= {
        name_of(case.values[1])  # type: ignore[arg-type]  # the path, as it was set
        for case in CASES
    }


@pytest.mark.parametrize(("call", "path", "in_key"), CASES)
async def test_no_text_has_u_0000(stub: AsyncStub, call: str, path: Path, in_key: bool) -> None:
    """U+0000 in a text field is refused with the field's name, or judged if it is a token, and changes nothing."""
    own = await create(stub, data={"cart": b"3 apples"}, labels={"tenant": "acme"})
    before = await revision_of(stub)
    for text in TEXTS:
        request = requests_of(own)[call]
        put(request, path, text, in_key=in_key)
        if name_of(path) in ("ticket", "evict_session_ids"):
            request.ticket = request.ticket or "A" * 70  # type: ignore[attr-defined]  # both calls with one have it
        if name_of(path).startswith("requirements.companion") or ".companion." in name_of(path):
            holder: Any = request if call == "ValidateSession" else request.requests[0]  # type: ignore[attr-defined]
            holder.requirements.companion.purpose = holder.requirements.companion.purpose or "pay"
        made = getattr(stub, call)(request)
        if name_of(path) in VERDICTS:
            answer = await made
            verdicts = {one.verdict for one in getattr(answer, "responses", [answer])}
            assert {pb.Verdict.Name(one).removeprefix("VERDICT_") for one in verdicts} == VERDICTS[name_of(path)]
        else:
            refused = await refusal_of(made.read() if call == "Subscribe" else made)
            assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
            assert refused.fields == [_REPEATED.sub(r"\1[0].", name_of(path))]
            assert "\0" not in refused.message
    assert await revision_of(stub) == before
    assert await session_of(stub, own.session.session_id) == own.session


async def test_the_requests_are_good_without_it(stub: AsyncStub) -> None:
    """The control: each request without U+0000 is answered, so the refusals above are about the text."""
    for name in requests_of(pb.CreateSessionResponse()):
        own = await create(stub)
        request: Any = requests_of(own)[name]
        if name in MISSING:
            assert (await refusal_of(getattr(stub, name)(request))).code == grpc.StatusCode.NOT_FOUND
        elif name == "Subscribe":
            stream = stub.Subscribe(request)
            assert await stream.read()
            stream.cancel()
        else:
            if "request_id" in request.DESCRIPTOR.fields_by_name:
                request.request_id = fresh_id()
            assert await getattr(stub, name)(request) is not None


async def test_what_is_cut_off_is_no_text(stub: AsyncStub) -> None:
    """A user agent is cut to 1,024 characters before it is checked, so the rest of it does not matter."""
    own = await create(stub, client=pb.ClientContext(user_agent="a" * 1024 + "\0"))
    assert own.session.client.user_agent == "a" * 1024
