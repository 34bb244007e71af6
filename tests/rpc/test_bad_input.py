"""Bad input over real gRPC: the right status, the field named, and nothing changed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sessiond.app import App
from sessiond.domain.values import Revision
from sessiond.rpc.cursor import encode_cursor, encode_page
from sessiond.tokens import KEY_BYTES, KeyRing
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.contracts import samples
from tests.rpc.refusals import Refusal, first_of, refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, config_for, serving, stub_for

loose: Any = pb  # lets a message within a message be written as a dict
INVALID = grpc.StatusCode.INVALID_ARGUMENT
LONG = "x" * 257
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
    """A session with data."""
    request = loose.CreateSessionRequest(subject="ada", data={"cart": b"3 apples"})
    response: pb.CreateSessionResponse = await stub.CreateSession(request)
    return response


@pytest.fixture
async def unchanged(stub: AsyncStub, opened: pb.CreateSessionResponse) -> AsyncIterator[None]:
    """Checks, after the test, that neither the log nor the session has changed."""
    before = (await revision_of(stub), await session_of(stub, opened.session.session_id))
    yield
    assert (await revision_of(stub), await session_of(stub, opened.session.session_id)) == before
    reference = pb.SessionReference(session_id=opened.session.session_id)
    data = await stub.GetSessionData(loose.GetSessionDataRequest(session=reference))
    assert dict(data.data) == {"cart": b"3 apples"}


# Tokens: a bad one is a verdict


async def verdicts_on(stub: AsyncStub, token: str, application: str = "") -> list[str]:
    """What every call that takes a token makes of it."""
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
    ]
    batch = loose.ValidateSessionsRequest(requests=[loose.ValidateSessionRequest(application=application, token=token)])
    answers += (await stub.ValidateSessions(batch)).responses
    for answer in answers:
        shown = {field.name for field, _ in answer.ListFields()}
        assert shown <= {"verdict", "next_step", "revision"}, shown
    return [pb.Verdict.Name(answer.verdict) for answer in answers]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("token", NO_TOKENS.values(), ids=NO_TOKENS.keys())
async def test_no_token_is_malformed(stub: AsyncStub, token: str) -> None:
    """What has not a token's form is MALFORMED to every call, and changes nothing."""
    assert set(await verdicts_on(stub, token)) == {"VERDICT_MALFORMED"}


@pytest.mark.usefixtures("unchanged")
async def test_a_foreign_token_is_forged(stub: AsyncStub) -> None:
    """A token of another authority is FORGED to every call, and changes nothing."""
    foreign = KeyRing([os.urandom(KEY_BYTES)]).seal(samples.session_id(), 0, bytes(16))
    assert set(await verdicts_on(stub, foreign.reveal())) == {"VERDICT_FORGED"}


@pytest.mark.usefixtures("unchanged")
async def test_a_changed_token_is_forged(stub: AsyncStub, opened: pb.CreateSessionResponse) -> None:
    """A token with one character changed is FORGED to every call, and changes nothing."""
    other = "B" if opened.token[30] == "A" else "A"
    assert set(await verdicts_on(stub, opened.token[:30] + other + opened.token[31:])) == {"VERDICT_FORGED"}


async def test_a_token_of_another_application_is_unknown(tmp_path: Path, clock: ManualClock) -> None:
    """A session of another application is UNKNOWN to every call, and changes nothing."""
    config = config_for(tmp_path, "[applications.default]\n[applications.shop]\n")
    async with serving(config, clock) as app, stub_for(app.address) as stub:
        created = await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
        assert set(await verdicts_on(stub, created.token, "shop")) == {"VERDICT_UNKNOWN"}
        assert await revision_of(stub) == created.revision
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
    ("ValidateSessions", "requests", loose.ValidateSessionsRequest(requests=[loose.ValidateSessionRequest()] * 1001)),
    (
        "ValidateSessions",
        "application",
        loose.ValidateSessionsRequest(requests=[{"token": "TOKEN"}, {"token": "TOKEN", "application": "nowhere"}]),
    ),
]


def with_token(request: Any, token: str) -> Any:
    """The request with a real token in the place of the word TOKEN."""
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
    """A bad field is INVALID_ARGUMENT with the field named, whatever else is right with the call."""
    refused = await refusal_of(getattr(stub, rpc)(with_token(request_, opened.token)))
    assert (refused.code, refused.fields) == (INVALID, [field])
    assert opened.token not in refused.message


@pytest.mark.usefixtures("unchanged")
async def test_data_that_would_grow_too_large(stub: AsyncStub, opened: pb.CreateSessionResponse) -> None:
    """Data is refused at one byte over the policy's limit, what is there already counted, and the limit is told."""
    room = 65536 - len("cart3 apples") - len("k")
    update = loose.UpdateSessionDataRequest(session={"token": opened.token}, set={"k": bytes(room + 1)})
    refused = await refusal_of(stub.UpdateSessionData(update))
    assert (refused.code, refused.fields) == (INVALID, ["set"])
    assert "65536" in refused.message


async def test_data_up_to_the_limit(stub: AsyncStub, opened: pb.CreateSessionResponse) -> None:
    """Data is taken up to exactly the policy's limit."""
    room = 65536 - len("cart3 apples") - len("k")
    update = loose.UpdateSessionDataRequest(session={"token": opened.token}, set={"k": bytes(room)})
    assert (await stub.UpdateSessionData(update)).version == 2


@pytest.mark.usefixtures("unchanged")
async def test_a_message_over_four_megabytes(stub: AsyncStub) -> None:
    """A message over the server's bound is refused before it is read."""
    refused = await refusal_of(stub.CreateSession(loose.CreateSessionRequest(data={"k": bytes(5 * 1024 * 1024)})))
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.usefixtures("unchanged")
async def test_an_unknown_session_is_not_found(stub: AsyncStub) -> None:
    """A session id that names no session is NOT_FOUND to every call that takes one."""
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
    """Where one question of a batch is refused no other has had effects: nothing is renewed, nothing is active."""
    created = await stub.CreateSession(loose.CreateSessionRequest(subject="ada"))
    for _ in range(3):
        clock.advance(25 * 60_000)
        renewed = (await stub.ValidateSession(loose.ValidateSessionRequest(token=created.token))).renewed_token
    assert renewed
    before = (await revision_of(stub), await session_of(stub, created.session.session_id))
    clock.advance(60_000)
    batch = loose.ValidateSessionsRequest(requests=[{"token": renewed}, {"token": renewed, "min_revision": 10**6}])
    refused = await refusal_of(stub.ValidateSessions(batch))
    assert refused.code == grpc.StatusCode.OUT_OF_RANGE
    # A change that had been set off would be in the log before this one.
    after = await stub.CreateSession(loose.CreateSessionRequest())
    assert (after.revision - 1, await session_of(stub, created.session.session_id)) == before


# Page tokens


async def test_a_page_token_of_another_question(stub: AsyncStub) -> None:
    """A page token is refused where any field of its question has changed, and where it is another call's."""
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
    """How a subscription is refused."""
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
    """A subscription with a bad field is INVALID_ARGUMENT with the field named."""
    refused = await subscription_refused(stub, **fields)
    assert (refused.code, refused.fields) == (INVALID, [field])


async def test_every_damaged_cursor_is_refused(stub: AsyncStub) -> None:
    """A cursor with any one character changed or cut is refused as a bad cursor."""
    cursor = (await first_of(stub, loose.SubscribeRequest(start=pb.STREAM_START_NOW))).cursor
    damaged = [cursor[:-1], cursor + "A", cursor + "=", " " + cursor]
    damaged += [cursor[:n] + ("B" if cursor[n] == "A" else "A") + cursor[n + 1 :] for n in range(len(cursor))]
    for text in damaged:
        refused = await subscription_refused(stub, cursor=text)
        assert (refused.code, refused.fields) == (INVALID, ["cursor"]), text


async def test_a_foreign_cursor_is_refused(app: App, stub: AsyncStub) -> None:
    """A cursor of another authority is refused, and the text says so."""
    foreign = encode_cursor(bytes(16), Revision(0))
    refused = await subscription_refused(stub, cursor=foreign)
    assert (refused.code, refused.fields) == (INVALID, ["cursor"])
    assert "another authority" in refused.message


async def test_a_cursor_ahead_of_the_log(app: App, stub: AsyncStub) -> None:
    """A cursor ahead of the log is OUT_OF_RANGE, and the text names horizon and head."""
    await stub.CreateSession(loose.CreateSessionRequest())
    identity = app.authority.describe().authority_id
    for position in (2, 2**64 - 1):
        refused = await subscription_refused(stub, cursor=encode_cursor(identity, Revision(position)))
        assert refused.code == grpc.StatusCode.OUT_OF_RANGE
        assert f"revision {position} is ahead of the log" in refused.message
        assert "from revision 0 to 1" in refused.message


async def test_a_cursor_from_before_the_horizon(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A cursor from before the horizon is OUT_OF_RANGE, and the text names the horizon; at the horizon it resumes."""
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
    identity = app.authority.describe().authority_id
    resumed = await first_of(stub, loose.SubscribeRequest(cursor=encode_cursor(identity, Revision(horizon))))
    assert resumed.checkpoint.revision == horizon


# Bytes


async def raw_call(app: App, rpc: str, raw: bytes) -> Refusal:
    """Send bytes as they are."""
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
        ("ValidateSessions", b"\x0a\x03\x12\x01\xff", "requests.token"),
        ("CreateSession", b"\xff\xff\xff\xff", "request"),
        ("CreateSession", b"\x12\x7f", "request"),
        ("GetSession", b"\x07", "request"),
    ],
)
async def test_bytes_that_are_no_message(app: App, rpc: str, raw: bytes, field: str) -> None:
    """Invalid UTF-8 names its field, other broken bytes the request: INVALID_ARGUMENT, and nothing changed."""
    refused = await raw_call(app, rpc, raw)
    assert (refused.code, refused.fields) == (INVALID, [field])


@pytest.mark.usefixtures("unchanged")
async def test_a_subscription_that_is_no_message(app: App) -> None:
    """A stream's request that is no message is refused like any other."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        method: Any = channel.unary_stream("/sessiond.v1.SessionAuthority/Subscribe")
        refused = await refusal_of(method(b"\x0a\x01\xff").read())
    assert (refused.code, refused.fields) == (INVALID, ["cursor"])
