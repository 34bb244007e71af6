"""Bad input over real gRPC: it has the right status, the field is named, and nothing changes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sessiond.app import App
from sessiond.crypto.tokens import KEY_BYTES, KeyRing
from sessiond.domain.errors import InvalidField
from sessiond.domain.values import Instant
from sessiond.rpc import decode
from sessiond.rpc.cursor import encode_cursor, encode_page
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.contracts import samples
from tests.rpc.refusals import Refusal, first_of, refusal_of, revision_of, session_of
from tests.support.clock import START, ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for
from tests.support.tokens import at_revision, revision_in

loose: Any = pb  # so that a submessage can be written as a dict
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = "x" * 257
NOW = Instant(START)
PAST = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
NO_TOKENS = {
    "empty": "",
    "short": "A" * 69,
    "long": "A" * 71,
    "padded": "A" * 68 + "==",
    "not base64url": "!" * 70,
    "standard base64": "+" * 70,
    "not ASCII": "é" * 70,
    "huge": "A" * 1_000_000,
}


@pytest.fixture
async def opened(stub: AsyncStub) -> pb.CreateSessionResponse:
    """Return a session with data."""
    request = loose.CreateSessionRequest(subject="ada", data={"cart": b"3 apples"})
    response: pb.CreateSessionResponse = await stub.CreateSession(request)
    return response


@pytest.fixture
async def unchanged(stub: AsyncStub, opened: pb.CreateSessionResponse) -> AsyncIterator[None]:
    """Check, after the test, that neither the log nor the session has changed."""
    before = (await revision_of(stub), await session_of(stub, opened.session.session_id))
    yield
    assert (await revision_of(stub), await session_of(stub, opened.session.session_id)) == before
    reference = pb.SessionReference(session_id=opened.session.session_id)
    data = await stub.GetSessionData(loose.GetSessionDataRequest(session=reference))
    assert dict(data.data) == {"cart": b"3 apples"}


# Tokens: an invalid one gets a verdict, not an error


async def verdicts_on(stub: AsyncStub, token: str, application: str = "") -> list[str]:
    """Return the verdicts of every call that takes a token."""
    named = pb.SessionReference(token=token)
    answers: list[Any] = [
        await stub.ValidateSession(loose.ValidateSessionRequest(application=application, token=token)),
        await stub.AuthenticateSession(
            loose.AuthenticateSessionRequest(application=application, token=token, subject="ada")
        ),
        await stub.RollSession(loose.RollSessionRequest(application=application, token=token)),
        await stub.RefreshSession(loose.RefreshSessionRequest(application=application, token=token)),
        await stub.RevokeSession(loose.RevokeSessionRequest(application=application, session=named)),
        await stub.GetSession(loose.GetSessionRequest(application=application, session=named)),
        await stub.GetSessionData(loose.GetSessionDataRequest(application=application, session=named)),
        await stub.UpdateSessionData(
            loose.UpdateSessionDataRequest(application=application, session=named, set={"a": b"1"})
        ),
        await stub.IssueCompanionToken(
            loose.IssueCompanionTokenRequest(application=application, token=token, purpose="pay")
        ),
        await stub.ReportSignal(loose.ReportSignalRequest(application=application, session=named, reason="odd")),
    ]
    batch = loose.ValidateSessionsRequest(requests=[loose.ValidateSessionRequest(application=application, token=token)])
    answers += (await stub.ValidateSessions(batch)).responses
    for answer in answers:
        shown = {field.name for field, _ in answer.ListFields()}
        assert shown <= {"verdict", "next_step", "consistency_token", "cookies"}, shown
        discards = isinstance(answer, pb.ValidateSessionResponse | pb.RevokeSessionResponse)
        deletions = ["__Host-id=; Path=/; HttpOnly; SameSite=Lax; Secure; " + PAST] if discards else []
        if "cookies" in shown or discards:
            assert list(answer.cookies.set_cookie) == deletions
    return [pb.Verdict.Name(answer.verdict) for answer in answers]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("token", NO_TOKENS.values(), ids=NO_TOKENS.keys())
async def test_no_token_is_malformed(stub: AsyncStub, token: str) -> None:
    """Text without the format of a token is MALFORMED in every call, and changes nothing."""
    assert set(await verdicts_on(stub, token)) == {"VERDICT_MALFORMED"}


@pytest.mark.usefixtures("unchanged")
async def test_a_foreign_token_is_forged(stub: AsyncStub) -> None:
    """A token of another authority is FORGED in every call, and changes nothing."""
    foreign = KeyRing([os.urandom(KEY_BYTES)]).seal(samples.session_id(), 0, bytes(16))
    assert set(await verdicts_on(stub, foreign.reveal())) == {"VERDICT_FORGED"}


@pytest.mark.usefixtures("unchanged")
async def test_a_changed_token_is_forged(stub: AsyncStub, opened: pb.CreateSessionResponse) -> None:
    """A token with one character changed is FORGED in every call, and changes nothing."""
    other = "B" if opened.token[30] == "A" else "A"
    assert set(await verdicts_on(stub, opened.token[:30] + other + opened.token[31:])) == {"VERDICT_FORGED"}


async def test_a_token_of_another_application_is_unknown(tmp_path: Path, clock: ManualClock) -> None:
    """A session of another application is UNKNOWN in every call, and changes nothing."""
    config = config_for(tmp_path, "[applications.default]\n[applications.shop]\n")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        created = await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
        assert set(await verdicts_on(stub, created.token, "shop")) == {"VERDICT_UNKNOWN"}
        assert await revision_of(stub) == revision_in(created)
        named = pb.SessionReference(session_id=created.session.session_id)
        refused = await refusal_of(stub.GetSession(loose.GetSessionRequest(application="shop", session=named)))
        assert refused.code == grpc.StatusCode.NOT_FOUND
        refused = await refusal_of(stub.RevokeSession(loose.RevokeSessionRequest(application="shop", session=named)))
        assert refused.code == grpc.StatusCode.NOT_FOUND
        page = await stub.ListSessions(loose.ListSessionsRequest(application="shop"))
        assert list(page.sessions) == []


# Fields


def _client(**fields: Any) -> pb.ClientContext:
    return pb.ClientContext(**fields)


BAD_FIELDS: list[tuple[str, str, Any]] = [
    ("CreateSession", "application", loose.CreateSessionRequest(application="nowhere")),
    ("ValidateSession", "application", loose.ValidateSessionRequest(application="nowhere")),
    ("ListSessions", "application", loose.ListSessionsRequest(application="Default")),
    ("ListActivity", "application", loose.ListActivityRequest(application="x" * 100_000, subject="ada")),
    ("CreateSession", "subject", loose.CreateSessionRequest(subject=LONG)),
    ("CreateSession", "authentication", loose.CreateSessionRequest(authentication=pb.Authentication(level=1))),
    ("CreateSession", "authentication.level", loose.CreateSessionRequest(subject="a", authentication={"level": 4})),
    ("CreateSession", "authentication.level", loose.CreateSessionRequest(subject="a", authentication={"level": -1})),
    (
        "CreateSession",
        "authentication.methods",
        loose.CreateSessionRequest(subject="a", authentication={"methods": ["m"] * 17}),
    ),
    (
        "CreateSession",
        "authentication.methods",
        loose.CreateSessionRequest(subject="a", authentication={"methods": ["two words"]}),
    ),
    (
        "CreateSession",
        "authentication.methods",
        loose.CreateSessionRequest(subject="a", authentication={"methods": [""]}),
    ),
    ("CreateSession", "client.ip_address", loose.CreateSessionRequest(client=_client(ip_address="10.0.0.256"))),
    ("CreateSession", "client.ip_address", loose.CreateSessionRequest(client=_client(ip_address="10.0.0.0/8"))),
    (
        "CreateSession",
        "client.ip_address",
        loose.CreateSessionRequest(client=_client(ip_address="fe80::1%" + "z" * 9999)),
    ),
    (
        "CreateSession",
        "client.certificate_thumbprint",
        loose.CreateSessionRequest(client=_client(certificate_thumbprint=b"x" * 31)),
    ),
    ("CreateSession", "client.device_id", loose.CreateSessionRequest(client=_client(device_id=LONG))),
    ("CreateSession", "data", loose.CreateSessionRequest(data={"": b""})),
    ("CreateSession", "data", loose.CreateSessionRequest(data={LONG: b""})),
    ("CreateSession", "data", loose.CreateSessionRequest(data={"k": bytes(65536)})),
    ("AuthenticateSession", "subject", loose.AuthenticateSessionRequest(token="TOKEN")),
    ("AuthenticateSession", "subject", loose.AuthenticateSessionRequest(token="TOKEN", subject=LONG)),
    ("AuthenticateSession", "reason", loose.AuthenticateSessionRequest(token="TOKEN", subject="ada", reason=LONG)),
    ("RollSession", "reason", loose.RollSessionRequest(token="TOKEN", reason=LONG)),
    ("RevokeSession", "session", loose.RevokeSessionRequest()),
    ("RevokeSession", "session", loose.RevokeSessionRequest(session=pb.SessionReference())),
    ("RevokeSession", "session.session_id", loose.RevokeSessionRequest(session={"session_id": "x"})),
    ("RevokeSession", "session.session_id", loose.RevokeSessionRequest(session={"session_id": ""})),
    ("RevokeSession", "reason", loose.RevokeSessionRequest(session={"token": "TOKEN"}, reason=LONG)),
    ("RevokeSessions", "whole_application", loose.RevokeSessionsRequest()),
    ("RevokeSessions", "filter.state", loose.RevokeSessionsRequest(filter={"state": 2}, whole_application=True)),
    ("RevokeSessions", "filter.subject", loose.RevokeSessionsRequest(filter={"subject": LONG})),
    ("RevokeSessions", "filter.ip_network", loose.RevokeSessionsRequest(filter={"ip_network": "10.0.0.0/33"})),
    (
        "RevokeSessions",
        "except_session_id",
        loose.RevokeSessionsRequest(filter={"subject": "ada"}, except_session_id="mine"),
    ),
    ("GetSession", "session", loose.GetSessionRequest()),
    ("GetSession", "session.session_id", loose.GetSessionRequest(session={"session_id": "A" * 1_000_000})),
    ("GetSessionData", "session", loose.GetSessionDataRequest()),
    ("UpdateSessionData", "session", loose.UpdateSessionDataRequest(set={"a": b""})),
    ("UpdateSessionData", "set", loose.UpdateSessionDataRequest(session={"token": "TOKEN"})),
    ("UpdateSessionData", "set", loose.UpdateSessionDataRequest(session={"token": "TOKEN"}, set={"": b""})),
    ("UpdateSessionData", "set", loose.UpdateSessionDataRequest(session={"token": "TOKEN"}, set={"k": bytes(65536)})),
    (
        "UpdateSessionData",
        "set",
        loose.UpdateSessionDataRequest(session={"token": "TOKEN"}, delete=[str(n) for n in range(1001)]),
    ),
    (
        "UpdateSessionData",
        "delete",
        loose.UpdateSessionDataRequest(session={"token": "TOKEN"}, set={"a": b""}, delete=["a"]),
    ),
    ("UpdateSessionData", "delete", loose.UpdateSessionDataRequest(session={"token": "TOKEN"}, delete=[LONG])),
    ("ListSessions", "filter.state", loose.ListSessionsRequest(filter={"state": 99})),
    ("ListSessions", "filter.state", loose.ListSessionsRequest(filter={"state": -1})),
    ("ListSessions", "filter.ip_network", loose.ListSessionsRequest(filter={"ip_network": "nowhere"})),
    (
        "ListSessions",
        "filter.created_from",
        loose.ListSessionsRequest(filter={"created_from": Timestamp(seconds=2**62)}),
    ),
    ("ListSessions", "filter.created_until", loose.ListSessionsRequest(filter={"created_until": Timestamp(nanos=-1)})),
    ("ListSessions", "page_size", loose.ListSessionsRequest(page_size=-1)),
    ("ListSessions", "page_size", loose.ListSessionsRequest(page_size=1001)),
    ("ListSessions", "page_token", loose.ListSessionsRequest(page_token="damaged")),
    ("ListSessions", "page_token", loose.ListSessionsRequest(page_token="é")),
    ("ListSessions", "page_token", loose.ListSessionsRequest(page_token="A" * 1_000_000)),
    ("ListActivity", "subject", loose.ListActivityRequest()),
    ("ListActivity", "page_size", loose.ListActivityRequest(subject="ada", page_size=-(2**31))),
    ("ListActivity", "page_token", loose.ListActivityRequest(subject="ada", page_token="A" * 30)),
    (
        "ListActivity",
        "page_token",
        loose.ListActivityRequest(subject="ada", page_token=encode_page(b"activitydefault\0ada", b"\xff" * 8)),
    ),
    ("ListSourceLocks", "application", loose.ListSourceLocksRequest(application="nowhere")),
    ("ListSourceLocks", "page_size", loose.ListSourceLocksRequest(page_size=1001)),
    ("ListSourceLocks", "page_size", loose.ListSourceLocksRequest(page_size=-1)),
    ("ListSourceLocks", "page_token", loose.ListSourceLocksRequest(page_token="damaged")),
    ("ListSourceLocks", "page_token", loose.ListSourceLocksRequest(page_token="A" * 1_000_000)),
    (
        "ListSourceLocks",
        "page_token",
        loose.ListSourceLocksRequest(page_token=encode_page(b"locksshop", (1).to_bytes(8, "big"))),
    ),
    ("ClearSourceLock", "source", loose.ClearSourceLockRequest()),
    ("ClearSourceLock", "source", loose.ClearSourceLockRequest(source=LONG)),
    ("ClearSourceLock", "reason", loose.ClearSourceLockRequest(source="192.0.2.1/32", reason=LONG)),
    ("ClearSourceLock", "application", loose.ClearSourceLockRequest(source="192.0.2.1/32", application="nowhere")),
    ("ReportSignal", "session", loose.ReportSignalRequest(reason="odd")),
    ("ReportSignal", "session.session_id", loose.ReportSignalRequest(session={"session_id": "x"})),
    ("ReportSignal", "reason", loose.ReportSignalRequest(session={"token": "TOKEN"}, reason=LONG)),
    (
        "ReportSignal",
        "client.ip_address",
        loose.ReportSignalRequest(session={"token": "TOKEN"}, client=_client(ip_address="x")),
    ),
    ("RevokeSessions", "reason", loose.RevokeSessionsRequest(filter={"subject": "ada"}, reason=LONG)),
    ("CreateSession", "login_page", loose.CreateSessionRequest(subject="ada", login_page=True)),
    ("CreateSession", "persistent", loose.CreateSessionRequest(subject="ada", persistent=True)),
    (
        "AuthenticateSession",
        "persistent",
        loose.AuthenticateSessionRequest(token="TOKEN", subject="ada", persistent=True),
    ),
    ("ValidateSessions", "requests", loose.ValidateSessionsRequest(requests=[loose.ValidateSessionRequest()] * 1001)),
    (
        "ValidateSessions",
        "requests[1].application",
        loose.ValidateSessionsRequest(requests=[{"token": "TOKEN"}, {"token": "TOKEN", "application": "nowhere"}]),
    ),
]


BAD_IDS = {
    "no UUID": "x",
    "UUIDv7": "0190f3a0-7d1c-7abc-8def-0123456789ab",
    "UUIDv1": "c232ab00-9414-11ec-b3c8-9f6bdeced846",
    "other variant": "6fa459ea-ee8a-4ca4-094e-db77e160355e",
    "upper case": "16FD2706-8BAF-433B-82EB-8C7FADA847DA",
    "no hyphens": "16fd27068baf433b82eb8c7fada847da",
    "in braces": "{16fd2706-8baf-433b-82eb-8c7fada847da}",
    "as URN": "urn:uuid:16fd2706-8baf-433b-82eb-8c7fada847da",
    "trailing blank": "16fd2706-8baf-433b-82eb-8c7fada847da ",
    "not ASCII": "\u0661" * 36,
    "huge": "1" * 1_000_000,
}
REPEATABLE = [
    ("CreateSession", loose.CreateSessionRequest(subject="ada")),
    ("AuthenticateSession", loose.AuthenticateSessionRequest(token="TOKEN", subject="ada")),
    ("RollSession", loose.RollSessionRequest(token="TOKEN")),
    ("RefreshSession", loose.RefreshSessionRequest(token="TOKEN")),
    ("RevokeSession", loose.RevokeSessionRequest(session={"token": "TOKEN"})),
    ("RevokeSessions", loose.RevokeSessionsRequest(filter={"subject": "ada"})),
    ("UpdateSessionData", loose.UpdateSessionDataRequest(session={"token": "TOKEN"}, set={"cart": b"x"})),
    ("ReportSignal", loose.ReportSignalRequest(session={"token": "TOKEN"}, reason="odd")),
    ("ClearSourceLock", loose.ClearSourceLockRequest(source="192.0.2.1/32")),
]
BAD_REQUIREMENTS: list[tuple[str, Any]] = [
    ("min_level", {"min_level": 4}),
    ("min_level", {"min_level": -1}),
    ("min_level", {"min_level": 2**31 - 1}),
    ("max_authentication_age", {"max_authentication_age": Duration()}),
    ("max_authentication_age", {"max_authentication_age": Duration(nanos=999_999)}),
    ("max_authentication_age", {"max_authentication_age": Duration(seconds=-1)}),
    ("max_authentication_age", {"max_authentication_age": Duration(nanos=-1)}),
    ("max_authentication_age", {"max_authentication_age": Duration(seconds=1, nanos=2_000_000_000)}),
    ("max_authentication_age", {"max_authentication_age": Duration(seconds=11 * 365 * 86_400)}),
    ("max_authentication_age", {"max_authentication_age": Duration(seconds=2**63 - 1)}),
    ("companion.purpose", {"companion": {}}),
    ("companion.purpose", {"companion": {"purpose": "p" * 65, "companion_token": "x"}}),
    ("companion.purpose", {"companion": {"purpose": "two words"}}),
    ("companion.purpose", {"companion": {"purpose": "a;b"}}),
    ("companion.purpose", {"companion": {"purpose": "a=b"}}),
    ("companion.purpose", {"companion": {"purpose": "\u00e9"}}),
    ("companion.purpose", {"companion": {"purpose": "a\n"}}),
]
BAD_COMPANIONS: list[tuple[str, Any]] = [
    ("purpose", {"purpose": ""}),
    ("purpose", {"purpose": "p" * 65}),
    ("purpose", {"purpose": "a b"}),
    ("purpose", {"purpose": "a;b"}),
    ("purpose", {"purpose": "a\r\nSet-Cookie: x=y"}),
    ("purpose", {"purpose": "\u0661"}),
    ("path", {"path": "pay"}),
    ("path", {"path": "/pay;Domain=example.org"}),
    ("path", {"path": "/pay\n"}),
    ("path", {"path": "/pay\0"}),
    ("path", {"path": "/\u00e9"}),
    ("path", {"path": "/" + "p" * 256}),
    ("time_to_live", {"time_to_live": Duration()}),
    ("time_to_live", {"time_to_live": Duration(nanos=1)}),
    ("time_to_live", {"time_to_live": Duration(seconds=-1)}),
    ("time_to_live", {"time_to_live": Duration(seconds=600, nanos=1_000_000)}),
    ("time_to_live", {"time_to_live": Duration(seconds=2**62)}),
    ("client.device_id", {"client": {"device_id": LONG}}),
]
SOMEBODY = "0190f3a0-7d1c-7abc-8def-0123456789ab"
BAD_CHOICES: list[tuple[str, Any]] = [
    ("evict_session_ids", {"evict_session_ids": [SOMEBODY]}),
    ("evict_session_ids", {"evict_session_ids": ["x"], "ticket": "TICKET"}),
    ("evict_session_ids", {"evict_session_ids": [""], "ticket": "TICKET"}),
    ("evict_session_ids", {"evict_session_ids": [SOMEBODY] * 1001, "ticket": "TICKET"}),
    ("ticket", {"ticket": "x"}),
    ("ticket", {"ticket": "A" * 96}),
    ("ticket", {"ticket": "\u00e9" * 96}),
    ("ticket", {"ticket": "A" * 1_000_000}),
    ("ticket", {"ticket": "TOKEN"}),
]


def with_token(request: Any, token: str) -> Any:
    """Return the request with a real token in the place of the word TOKEN."""
    copy = type(request)()
    copy.CopyFrom(request)
    if getattr(copy, "token", "") == "TOKEN":
        copy.token = token
    if "session" in copy.DESCRIPTOR.fields_by_name and copy.session.token == "TOKEN":
        copy.session.token = token
    for question in getattr(copy, "requests", ()):
        question.token = token
    return copy


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("rpc", "field", "request_"), BAD_FIELDS, ids=[f"{rpc}-{field}-{n}" for n, (rpc, field, _) in enumerate(BAD_FIELDS)]
)
async def test_a_bad_field_is_named(
    stub: AsyncStub, opened: pb.CreateSessionResponse, rpc: str, field: str, request_: Any
) -> None:
    """A bad field is refused with INVALID_ARGUMENT and its name, even if all other fields are valid."""
    refused = await refusal_of(getattr(stub, rpc)(with_token(request_, opened.token)))
    assert (refused.code, refused.fields) == (INVALID, [field])
    assert opened.token not in refused.message


@pytest.mark.usefixtures("unchanged")
async def test_data_that_would_grow_too_large(stub: AsyncStub, opened: pb.CreateSessionResponse) -> None:
    """Data one byte over the policy's limit, stored data included, is refused, and the message names the limit."""
    room = 65536 - len("cart3 apples") - len("k")
    update = loose.UpdateSessionDataRequest(session={"token": opened.token}, set={"k": bytes(room + 1)})
    refused = await refusal_of(stub.UpdateSessionData(update))
    assert (refused.code, refused.fields) == (INVALID, ["set"])
    assert "65536" in refused.message


async def test_data_up_to_the_limit(stub: AsyncStub, opened: pb.CreateSessionResponse) -> None:
    """Data of exactly the policy's limit is accepted."""
    room = 65536 - len("cart3 apples") - len("k")
    update = loose.UpdateSessionDataRequest(session={"token": opened.token}, set={"k": bytes(room)})
    assert (await stub.UpdateSessionData(update)).version == 2


@pytest.mark.usefixtures("unchanged")
async def test_a_message_over_four_megabytes(stub: AsyncStub) -> None:
    """A message over the server's size limit is refused before it is parsed."""
    refused = await refusal_of(stub.CreateSession(loose.CreateSessionRequest(data={"k": bytes(5 * 1024 * 1024)})))
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("unchanged")
async def test_an_unknown_session_is_not_found(stub: AsyncStub) -> None:
    """A session id without a session is NOT_FOUND in every call that takes one."""
    named = pb.SessionReference(session_id=str(samples.session_id()))
    calls: list[Any] = [
        stub.GetSession(loose.GetSessionRequest(session=named)),
        stub.RevokeSession(loose.RevokeSessionRequest(session=named)),
        stub.GetSessionData(loose.GetSessionDataRequest(session=named)),
        stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set={"a": b""})),
    ]
    for call in calls:
        assert (await refusal_of(call)).code == grpc.StatusCode.NOT_FOUND


async def test_a_batch_that_is_refused_has_judged_nothing(stub: AsyncStub, clock: ManualClock) -> None:
    """If one question of a batch is refused, the others have no effect: no renewal and no activity."""
    created = await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
    for _ in range(3):
        clock.advance(25 * 60_000)
        renewed = (await stub.ValidateSession(loose.ValidateSessionRequest(token=created.token))).renewed_token
    assert renewed
    before = (await revision_of(stub), await session_of(stub, created.session.session_id))
    clock.advance(60_000)
    batch = loose.ValidateSessionsRequest(
        requests=[{"token": renewed}, {"token": renewed, "at_least": at_revision(created.consistency_token, 10**6)}]
    )
    refused = await refusal_of(stub.ValidateSessions(batch))
    assert refused.code == grpc.StatusCode.OUT_OF_RANGE
    # A change caused by the batch would be in the log before this one.
    after = await stub.CreateSession(loose.CreateSessionRequest())
    assert (revision_in(after) - 1, await session_of(stub, created.session.session_id)) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("rpc", "request_"), REPEATABLE, ids=[rpc for rpc, _ in REPEATABLE])
async def test_a_bad_request_id(stub: AsyncStub, opened: pb.CreateSessionResponse, rpc: str, request_: Any) -> None:
    """A request id that is not a canonical UUIDv4 is refused by every changing call, and is never shown."""
    for text in BAD_IDS.values():
        request = with_token(request_, opened.token)
        request.request_id = text
        refused = await refusal_of(getattr(stub, rpc)(request))
        assert (refused.code, refused.fields) == (INVALID, ["request_id"]), text[:40]
        assert len(text) < 2 or text not in refused.message


async def test_a_request_id_of_another_call(stub: AsyncStub, opened: pb.CreateSessionResponse) -> None:
    """A used request id is refused for another call or other fields, and nothing changes."""
    used = "16fd2706-8baf-433b-82eb-8c7fada847da"
    await stub.CreateSession(loose.CreateSessionRequest(subject="ada", request_id=used))
    before = await revision_of(stub)
    for rpc, request_ in REPEATABLE:
        request = with_token(request_, opened.token)
        if rpc == "CreateSession":
            request.data["more"] = b"x"
        request.request_id = used
        refused = await refusal_of(getattr(stub, rpc)(request))
        assert (refused.code, refused.fields) == (INVALID, ["request_id"]), rpc
    assert await revision_of(stub) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("field", "fields"), BAD_REQUIREMENTS)
async def test_bad_requirements(
    stub: AsyncStub, opened: pb.CreateSessionResponse, field: str, fields: dict[str, Any]
) -> None:
    """An impossible requirement is refused and named, in a single question and in a batch after a good one."""
    question = loose.ValidateSessionRequest(token=opened.token, requirements=fields)
    refused = await refusal_of(stub.ValidateSession(question))
    assert (refused.code, refused.fields) == (INVALID, [f"requirements.{field}"])
    batch = loose.ValidateSessionsRequest(requests=[{"token": opened.token}, question])
    refused = await refusal_of(stub.ValidateSessions(batch))
    assert (refused.code, refused.fields) == (INVALID, [f"requests[1].requirements.{field}"])


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("field", "fields"), BAD_COMPANIONS)
async def test_a_bad_companion(
    stub: AsyncStub, opened: pb.CreateSessionResponse, field: str, fields: dict[str, Any]
) -> None:
    """A companion token's purpose, path or lifetime is refused if a cookie or the policy does not allow it."""
    request = loose.IssueCompanionTokenRequest(**({"token": opened.token, "purpose": "pay"} | fields))
    refused = await refusal_of(stub.IssueCompanionToken(request))
    assert (refused.code, refused.fields) == (INVALID, [field])


async def test_a_bad_companion_uses_no_successor(stub: AsyncStub, clock: ManualClock) -> None:
    """A refused request for a companion token does not use up a successor and does not count as activity."""
    created = await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
    for _ in range(3):
        clock.advance(25 * 60_000)
        renewed = (await stub.ValidateSession(loose.ValidateSessionRequest(token=created.token))).renewed_token
    clock.advance(5 * 60_000)
    before = (await revision_of(stub), await session_of(stub, created.session.session_id))
    refused = await refusal_of(
        stub.IssueCompanionToken(
            loose.IssueCompanionTokenRequest(token=renewed, purpose="pay", time_to_live=Duration(seconds=601))
        )
    )
    assert (refused.code, refused.fields) == (INVALID, ["time_to_live"])
    assert (await revision_of(stub), await session_of(stub, created.session.session_id)) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("field", "fields"), BAD_CHOICES)
async def test_a_bad_choice(
    stub: AsyncStub, opened: pb.CreateSessionResponse, field: str, fields: dict[str, Any]
) -> None:
    """A choice of sessions needs its ticket and valid session ids; a bad ticket is named, but not shown."""
    fields = fields | ({"ticket": opened.token} if fields.get("ticket") == "TOKEN" else {})
    for refused in (
        await refusal_of(stub.CreateSession(loose.CreateSessionRequest(subject="ada", **fields))),
        await refusal_of(
            stub.AuthenticateSession(loose.AuthenticateSessionRequest(token=opened.token, subject="ada", **fields))
        ),
    ):
        assert (refused.code, refused.fields) == (INVALID, [field])
        assert opened.token not in refused.message


async def test_a_ticket_of_another_call(tmp_path: Path, clock: ManualClock) -> None:
    """A ticket is refused for another subject, authentication, application or call, and once it is used or expired."""
    few = 'max_sessions = 1\non_limit = "ask"\n'
    config = config_for(tmp_path, f"[applications.default]\n{few}[applications.shop]\n{few}")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        for application in ("default", "shop"):
            for subject in ("ada", "bob"):
                await stub.CreateSession(loose.CreateSessionRequest(application=application, subject=subject))
        limit = (await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))).limit
        guest = await stub.CreateSession(loose.CreateSessionRequest())
        right = {"ticket": limit.ticket, "evict_session_ids": [one.session_id for one in limit.live_sessions]}
        before = await revision_of(stub)
        others: list[Any] = [
            stub.CreateSession(loose.CreateSessionRequest(subject="bob", **right)),
            stub.CreateSession(loose.CreateSessionRequest(**right)),
            stub.CreateSession(loose.CreateSessionRequest(subject="ada", application="shop", **right)),
            stub.CreateSession(loose.CreateSessionRequest(subject="ada", authentication={"level": 1}, **right)),
            stub.CreateSession(loose.CreateSessionRequest(subject="ada", authentication={"methods": ["p"]}, **right)),
            stub.AuthenticateSession(loose.AuthenticateSessionRequest(token=guest.token, subject="ada", **right)),
        ]
        for call in others:
            refused = await refusal_of(call)
            assert (refused.code, refused.fields) == (INVALID, ["ticket"])
        nobody: Any = loose.CreateSessionRequest(subject="ada", ticket=limit.ticket)
        for chosen in ([], [guest.session.session_id], [str(samples.session_id())]):
            del nobody.evict_session_ids[:]
            nobody.evict_session_ids.extend(chosen)
            refused = await refusal_of(stub.CreateSession(nobody))
            assert (refused.code, refused.fields) == (INVALID, ["evict_session_ids"])
        assert await revision_of(stub) == before
        good = loose.CreateSessionRequest(subject="ada", **right)
        assert list((await stub.CreateSession(good)).evicted_session_ids) == right["evict_session_ids"]
        again = await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
        late = {
            "ticket": again.limit.ticket,
            "evict_session_ids": [one.session_id for one in again.limit.live_sessions],
        }
        clock.advance(120_000)
        before = await revision_of(stub)
        for request in (good, loose.CreateSessionRequest(subject="ada", **late)):
            refused = await refusal_of(stub.CreateSession(request))
            assert (refused.code, refused.fields) == (INVALID, ["ticket"])
        assert await revision_of(stub) == before


async def test_a_guest_has_nothing_to_elevate(stub: AsyncStub) -> None:
    """Elevating an anonymous session or another subject's is FAILED_PRECONDITION, and no token is rolled."""
    guest = await stub.CreateSession(loose.CreateSessionRequest())
    member = await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
    before = await revision_of(stub)
    for token, subject in ((guest.token, "ada"), (member.token, "bob")):
        request = loose.AuthenticateSessionRequest(token=token, subject=subject, elevate=True)
        refused = await refusal_of(stub.AuthenticateSession(request))
        assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
        assert (await stub.ValidateSession(loose.ValidateSessionRequest(token=token))).verdict == pb.VERDICT_VALID
    assert await revision_of(stub) == before


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("source", ["192.0.2.1/32", "192.0.2.1", "2001:db8::/64"])
async def test_a_source_that_is_not_locked(stub: AsyncStub, source: str) -> None:
    """Unlocking a source that is not locked is NOT_FOUND, and nothing is recorded."""
    refused = await refusal_of(stub.ClearSourceLock(loose.ClearSourceLockRequest(source=source)))
    assert refused.code == grpc.StatusCode.NOT_FOUND


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("source", ["nowhere", "*", "\u00e9", "192.0.2.1/24", "192.0.2.0/33"])
async def test_what_is_no_source(stub: AsyncStub, source: str) -> None:
    """A source that is not a network is refused; the message names the field and shows the text in plain ASCII."""
    refused = await refusal_of(stub.ClearSourceLock(loose.ClearSourceLockRequest(source=source)))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["source"])
    assert refused.message.startswith(f'source: "{source.encode("unicode_escape").decode()}" is not a network')


async def test_a_refused_unlocking_forgets_nothing(tmp_path: Path, clock: ManualClock) -> None:
    """Unlocking a source that is not locked does not reset its count: the next guess still locks it."""
    config = config_for(tmp_path, "[applications.default]\nguessing = { alarm_after = 2, lock_after = 3 }\n")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        guess = loose.ValidateSessionRequest(token="x", client=_client(ip_address="192.0.2.1"))
        for _ in range(2):
            await stub.ValidateSession(guess)
        unlock = loose.ClearSourceLockRequest(source="192.0.2.1/32")
        assert (await refusal_of(stub.ClearSourceLock(unlock))).code == grpc.StatusCode.NOT_FOUND
        await stub.ValidateSession(guess)
        locks = (await stub.ListSourceLocks(pb.ListSourceLocksRequest())).source_locks
        assert [lock.source for lock in locks] == ["192.0.2.1/32"]
        assert revision_in(await stub.ClearSourceLock(unlock)) == await revision_of(stub)
        assert (await refusal_of(stub.ClearSourceLock(unlock))).code == grpc.StatusCode.NOT_FOUND


# The text of a refusal


SHOWN: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: decode.client(_client(ip_address="203.0.113.999")),
        'client.ip_address: "203.0.113.999" is not an IPv4 or IPv6 address',
    ),
    (
        lambda: decode.session_id("16FD2706-8BAF-433B-82EB-8C7FADA847DA", "except_session_id"),
        'except_session_id: "16FD2706-8BAF-433B-82EB-8C7FADA847DA" is not a session id',
    ),
    (
        lambda: decode.named_session(pb.SessionReference(session_id="me")),
        'session.session_id: "me" is not a session id',
    ),
    (lambda: decode.source("192.0.2.1/24"), 'source: "192.0.2.1/24" is not a network; pass one exactly as'),
    (lambda: decode.source(""), 'source: "" is not a network; pass one exactly as ListSourceLocks returns it'),
    (
        lambda: decode.session_query("default", pb.SessionFilter(ip_network="10.0.0.0/33"), NOW),
        'filter.ip_network: "10.0.0.0/33" is neither an IP address nor a network in CIDR notation',
    ),
    (
        lambda: decode.session_query("default", loose.SessionFilter(state=99), NOW),
        "filter.state: 99 is not a value of SessionState",
    ),
    (lambda: decode.page_size(-1), "page_size: is -1; must be 1 to 1000, or 0 for 100"),
    (lambda: decode.page_size(1001), "page_size: is 1001; must be 1 to 1000, or 0 for 100"),
    (
        lambda: decode.login(pb.CreateSessionRequest(subject="ada", authentication=pb.Authentication(level=4))),
        "authentication.level: is 4; must be 0 to 3",
    ),
    (
        lambda: decode.requirements(loose.ValidateSessionRequest(requirements={"min_level": -1})),
        "requirements.min_level: is -1; must be 0 to 3",
    ),
    (lambda: decode.purpose("two words"), 'purpose: is "two words"; must be 1 to 64 ASCII letters, digits'),
    (lambda: decode.event_filter(loose.EventFilter(types=[99])), "filter.types: 99 is not a value of EventType"),
]


@pytest.mark.parametrize(("decoding", "message"), SHOWN, ids=[message.partition(":")[0] for _, message in SHOWN])
def test_a_refusal_shows_what_was_wrong(decoding: Callable[[], Any], message: str) -> None:
    """The message of a refusal names the field, shows the value and says what is allowed."""
    with pytest.raises(InvalidField) as refused:
        decoding()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\r\nb\0\x7f\x1b[0m", '"a\\r\\nb\\x00\\x7f\\x1b[0m"'),
        ("\u202e\u2066x", '"\\u202e\\u2066x"'),
        ("caf\u00e9 \U0001f600", '"caf\\xe9 \\U0001f600"'),
        ('say "no" \\', '"say \\"no\\" \\\\"'),
        (" " * 64, '"' + " " * 64 + '"'),
        (" " * 65, '"' + " " * 64 + '"...'),
        ("a b " * 10_000, '"' + "a b " * 16 + '"...'),
        ("\U0001f600" * 65, '"' + "\\U0001f600" * 64 + '"...'),
    ],
    ids=["control characters", "bidirectional", "no ASCII", "quotes", "longest", "too long", "huge", "widest"],
)
def test_a_shown_value_is_printable_and_bounded(value: str, shown: str) -> None:
    """A value is shown in quotes, in printable ASCII with everything else escaped, and cut to 64 characters."""
    with pytest.raises(InvalidField) as refused:
        decode.purpose(value)
    assert refused.value.remedy.startswith(f"is {shown}; must be ")
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("length", [40, 43, 70, 96, 1_000_000])
@pytest.mark.parametrize("around", ["{}", " {} ", "Bearer {}", "__Host-id={}; Path=/", "{}\n"])
def test_what_may_be_a_token_is_not_shown(length: int, around: str) -> None:
    """Text in a wrong field that may be a secret is not shown; the message gives only its length."""
    secret = ("q7-_Z" * length)[:length]
    value = around.format(secret)
    for decoding in (
        lambda: decode.session_id(value),
        lambda: decode.purpose(value + " "),
        lambda: decode.session_query("default", pb.SessionFilter(ip_network=value), NOW),
    ):
        with pytest.raises(InvalidField) as refused:
            decoding()
        assert secret[:20] not in str(refused.value)
        assert "a text of " in str(refused.value)


@pytest.mark.usefixtures("unchanged")
async def test_a_token_in_the_place_of_an_id(stub: AsyncStub, opened: pb.CreateSessionResponse) -> None:
    """A token passed as a session id is refused, and the message does not contain the token."""
    for text in (opened.token, opened.csrf_token):
        named = pb.SessionReference(session_id=text)
        refused = await refusal_of(stub.GetSession(loose.GetSessionRequest(session=named)))
        assert (refused.code, refused.fields) == (INVALID, ["session.session_id"])
        assert f"a text of {len(text)} characters is not a session id" in refused.message
        assert text[:20] not in refused.message


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:54321", "203.0.113.9"),
        ("203.0.113.9:0", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8:0:0::1]:65535", "2001:db8::1"),
        ("2001:db8::1:443", "2001:db8::1:443"),  # without brackets, all of it is the address
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:8080", "192.0.2.7"),
        ("[::ffff:c000:207]", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[fe80::1%eth0]:443", "fe80::1%eth0"),
        ("[::1]", "::1"),
    ],
)
def test_an_address_is_read_as_proxies_write_it(text: str, address: str) -> None:
    """An address is accepted with or without brackets and port, and all forms have the same normal form."""
    assert decode.client(pb.ClientContext(ip_address=text)).ip_address == address


@pytest.mark.parametrize(
    "text",
    [
        *("203.0.113.9:", "203.0.113.9:x", "203.0.113.9:-1", "203.0.113.9:123456", "203.0.113.9:\u0661", ":80"),
        *("203.0.113.9:80:80", "203.0.113.9 :80", "203.0.113.9:80\n", "[203.0.113.9]", "[203.0.113.9]:80"),
        *("[2001:db8::1", "2001:db8::1]", "[2001:db8::1]443", "[2001:db8::1]:", "[2001:db8::1]:x", "[[::1]]", "[]:80"),
        *("[]", "[:]", "unknown", "_hidden", "localhost:80", "203.0.113.9,198.51.100.1", "203.0.113.9/32", " "),
        *("[2001:db8::1%]:80", "1:1", "203.0.113:80"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    """Text that is not an address, with or without a port, is refused and shown."""
    with pytest.raises(InvalidField) as refused:
        decode.client(pb.ClientContext(ip_address=text))
    shown = text.encode("unicode_escape").decode()
    message = f'client.ip_address: "{shown}" is not an IPv4 or IPv6 address; leave it empty if it is unknown'
    assert str(refused.value) == message


@given(st.ip_addresses(), st.integers(0, 65535))
def test_a_port_changes_no_address(address: IPv4Address | IPv6Address, port: int) -> None:
    """The port is never part of the address, for any address."""
    host = f"[{address}]" if address.version == 6 else str(address)
    plain = decode.client(pb.ClientContext(ip_address=str(address)))
    assert decode.client(pb.ClientContext(ip_address=f"{host}:{port}")) == plain


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """Any text is accepted as an address or refused by name, with a message in printable ASCII."""
    found, refusal = "", "client.ip_address: "
    try:
        found = decode.client(pb.ClientContext(ip_address=text)).ip_address
    except InvalidField as refused:
        refusal = str(refused)
    assert not found or ip_address(found)
    assert refusal.startswith("client.ip_address: ")
    assert refusal.isascii()
    assert refusal.isprintable()


async def test_a_client_behind_a_proxy_that_tells_the_port(stub: AsyncStub) -> None:
    """A session shows the address without its port, so the client's next connection is the same client."""
    created = await stub.CreateSession(
        loose.CreateSessionRequest(subject="ada", client=_client(ip_address="[2001:db8::1]:50123"))
    )
    assert created.session.client.ip_address == "2001:db8::1"
    question = loose.ValidateSessionRequest(token=created.token, client=_client(ip_address="[2001:db8::1]:50124"))
    answer = await stub.ValidateSession(question)
    assert (answer.verdict, list(answer.signals)) == (pb.VERDICT_VALID, [])


# Page tokens


async def test_a_page_token_of_another_question(stub: AsyncStub) -> None:
    """A page token is refused if any field of its query has changed, and if another call issued it."""
    for _ in range(3):
        await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
    token = (await stub.ListSessions(loose.ListSessionsRequest(page_size=1))).next_page_token
    activity = (await stub.ListActivity(loose.ListActivityRequest(subject="ada", page_size=1))).next_page_token
    assert token
    assert activity
    calls: list[Any] = [
        stub.ListSessions(loose.ListSessionsRequest(page_token=token, filter={"subject": "ada"})),
        stub.ListSessions(loose.ListSessionsRequest(page_token=activity)),
        stub.ListSessions(loose.ListSessionsRequest(page_token=token[:-1])),
        stub.ListSessions(loose.ListSessionsRequest(page_token=token + "A")),
        stub.ListSessions(
            loose.ListSessionsRequest(page_token=("B" if token[8] == "A" else "A").join((token[:8], token[9:])))
        ),
        stub.ListActivity(loose.ListActivityRequest(subject="ada", page_token=token)),
        stub.ListActivity(loose.ListActivityRequest(subject="bob", page_token=activity)),
    ]
    for call in calls:
        refused = await refusal_of(call)
        assert (refused.code, refused.fields) == (INVALID, ["page_token"])


# Subscriptions


async def subscription_refused(stub: AsyncStub, **fields: Any) -> Refusal:
    """Return how a subscription is refused."""
    return await refusal_of(first_of(stub, loose.SubscribeRequest(**fields)))


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("checkpoint_interval", {"checkpoint_interval": Duration()}),
        ("checkpoint_interval", {"checkpoint_interval": Duration(nanos=99_999_999)}),
        ("checkpoint_interval", {"checkpoint_interval": Duration(seconds=-5)}),
        ("checkpoint_interval", {"checkpoint_interval": Duration(seconds=3600, nanos=1)}),
        ("checkpoint_interval", {"checkpoint_interval": Duration(seconds=2**62)}),
        ("checkpoint_interval", {"checkpoint_interval": Duration(seconds=2, nanos=-1)}),
        ("checkpoint_interval", {"checkpoint_interval": Duration(nanos=2_000_000_000)}),
        ("start", {"start": 99}),
        ("start", {"start": -1}),
        ("filter.types", {"filter": {"types": [99]}}),
        ("filter.types", {"filter": pb.EventFilter(types=[pb.EVENT_TYPE_UNSPECIFIED])}),
        ("filter.applications", {"filter": pb.EventFilter(applications=["a"] * 101)}),
        ("filter.subjects", {"filter": pb.EventFilter(subjects=["a"] * 101)}),
        ("cursor", {"cursor": ""}),
        ("cursor", {"cursor": "nonsense"}),
        ("cursor", {"cursor": "é"}),
        ("cursor", {"cursor": "A" * 1_000_000}),
    ],
)
@pytest.mark.usefixtures("unchanged")
async def test_a_bad_subscription(stub: AsyncStub, field: str, fields: dict[str, Any]) -> None:
    """A subscription with a bad field is refused with INVALID_ARGUMENT and the field's name."""
    refused = await subscription_refused(stub, **fields)
    assert (refused.code, refused.fields) == (INVALID, [field])


async def test_every_damaged_cursor_is_refused(stub: AsyncStub) -> None:
    """A cursor with any one character changed or removed is refused as a bad cursor."""
    cursor = (await first_of(stub, loose.SubscribeRequest(start=pb.STREAM_START_NOW))).cursor
    damaged = [cursor[:-1], cursor + "A", cursor + "=", " " + cursor]
    damaged += [cursor[:n] + ("B" if cursor[n] == "A" else "A") + cursor[n + 1 :] for n in range(len(cursor))]
    for text in damaged:
        refused = await subscription_refused(stub, cursor=text)
        assert (refused.code, refused.fields) == (INVALID, ["cursor"]), text


async def test_a_foreign_cursor_is_refused(app: App, stub: AsyncStub) -> None:
    """A cursor of another authority is refused, and the message says so."""
    foreign = encode_cursor(bytes(16), app.authority.parts.feed.position())
    refused = await subscription_refused(stub, cursor=foreign)
    assert (refused.code, refused.fields) == (INVALID, ["cursor"])
    assert "another authority" in refused.message


async def test_a_cursor_ahead_of_the_log(app: App, stub: AsyncStub) -> None:
    """A cursor ahead of the log is OUT_OF_RANGE, and the message names the horizon and the head."""
    await stub.CreateSession(loose.CreateSessionRequest())
    newest = (await first_of(stub, loose.SubscribeRequest())).cursor
    for position in (2, 2**64 - 1):
        refused = await subscription_refused(stub, cursor=at_revision(newest, position))
        assert refused.code == grpc.StatusCode.OUT_OF_RANGE
        assert f"revision {position} is ahead of the log" in refused.message
        assert "from revision 0 to 1" in refused.message


async def test_a_cursor_from_before_the_horizon(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A cursor before the horizon is OUT_OF_RANGE and the message names the horizon; one at the horizon resumes."""
    start = await first_of(stub, loose.SubscribeRequest(start=pb.STREAM_START_EARLIEST))
    for _ in range(3):
        await stub.CreateSession(loose.CreateSessionRequest())
    clock.advance(31 * 86_400_000)
    await app.sweeper.prune()
    horizon = (await stub.GetAuthority(loose.GetAuthorityRequest())).horizon
    assert horizon == 3
    refused = await subscription_refused(stub, cursor=start.cursor)
    assert refused.code == grpc.StatusCode.OUT_OF_RANGE
    assert f"from revision {horizon} to" in refused.message
    resumed = await first_of(stub, loose.SubscribeRequest(cursor=at_revision(start.cursor, horizon)))
    assert resumed.checkpoint.revision == horizon


# Raw bytes


async def raw_call(app: App, rpc: str, raw: bytes) -> Refusal:
    """Send bytes unchanged."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        method: Any = channel.unary_unary(f"/sessiond.v1.SessionAuthority/{rpc}")
        return await refusal_of(method(raw))


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("rpc", "raw", "field"),
    [
        ("ValidateSession", b"\x12\x02\xff\xfe", "token"),
        ("ValidateSession", b"\x0a\x01\x80", "application"),
        ("CreateSession", b"\x12\x03\xed\xa0\x80", "subject"),
        ("CreateSession", b"\x22\x04\x0a\x02\xc3\x28", "client.ip_address"),
        ("CreateSession", b"\x2a\x05\x0a\x01\xff\x12\x00", "data.key"),
        ("RevokeSession", b"\x12\x03\x12\x01\xff", "session.session_id"),
        ("ValidateSessions", b"\x0a\x03\x12\x01\xff", "requests[0].token"),
        ("ValidateSessions", b"\x0a\x00\x0a\x03\x12\x01a\x0a\x03\x12\x01\xff", "requests[2].token"),
        ("ValidateSession", b"\x32\x05\x1a\x03\x0a\x01\xff", "requirements.companion.purpose"),
        ("ValidateSession", b"\x32\x05\x1a\x03\x12\x01\xff", "requirements.companion.companion_token"),
        ("ValidateSession", b"\x32\x05\x22\x03\x0a\x01\xff", "requirements.csrf.csrf_token"),
        (
            "ValidateSessions",
            b"\x0a\x07\x32\x05\x22\x03\x0a\x01\xff",
            "requests[0].requirements.csrf.csrf_token",
        ),
        ("CreateSession", b"\x42\x01\xff", "request_id"),
        ("CreateSession", b"\x4a\x01\xff", "ticket"),
        ("CreateSession", b"\x52\x01\xff", "evict_session_ids"),
        ("AuthenticateSession", b"\x4a\x01\xff", "request_id"),
        ("AuthenticateSession", b"\x52\x01\xff", "ticket"),
        ("AuthenticateSession", b"\x5a\x01\xff", "evict_session_ids"),
        ("RollSession", b"\x2a\x01\xff", "request_id"),
        ("RefreshSession", b"\x22\x01\xff", "request_id"),
        ("RevokeSession", b"\x2a\x01\xff", "request_id"),
        ("RevokeSessions", b"\x32\x01\xff", "request_id"),
        ("UpdateSessionData", b"\x32\x01\xff", "request_id"),
        ("ReportSignal", b"\x1a\x01\xff", "reason"),
        ("ReportSignal", b"\x2a\x01\xff", "request_id"),
        ("IssueCompanionToken", b"\x1a\x01\xff", "purpose"),
        ("IssueCompanionToken", b"\x2a\x01\xff", "path"),
        ("ListSourceLocks", b"\x1a\x01\xff", "page_token"),
        ("ClearSourceLock", b"\x12\x01\xff", "source"),
        ("ClearSourceLock", b"\x1a\x01\xff", "reason"),
        ("ClearSourceLock", b"\x22\x01\xff", "request_id"),
        ("CreateSession", b"\xff\xff\xff\xff", "request"),
        ("CreateSession", b"\x12\x7f", "request"),
        ("GetSession", b"\x07", "request"),
    ],
)
async def test_bytes_that_are_no_message(app: App, rpc: str, raw: bytes, field: str) -> None:
    """Invalid UTF-8 names its field, other malformed bytes name the request: INVALID_ARGUMENT, and nothing changes."""
    refused = await raw_call(app, rpc, raw)
    assert (refused.code, refused.fields) == (INVALID, [field])


@pytest.mark.usefixtures("unchanged")
async def test_a_subscription_that_is_no_message(app: App) -> None:
    """A malformed request of a stream is refused like any other."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        method: Any = channel.unary_stream("/sessiond.v1.SessionAuthority/Subscribe")
        refused = await refusal_of(method(b"\x0a\x01\xff").read())
    assert (refused.code, refused.fields) == (INVALID, ["cursor"])
