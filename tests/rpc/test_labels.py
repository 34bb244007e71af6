"""Labels: public key-value pairs of sessions, by which sessions are listed, followed and revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import MINUTE, authority, create, login, loose, policy, validate
from tests.rpc.refusals import refusal_of, revision_of, session_of
from tests.support.clock import ManualClock
from tests.support.held import held
from tests.support.server import AsyncStub, sqlite_of
from tests.support.streams import position, read

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EIGHT = {f"key-{number}": "v" for number in range(8)}


@pytest.fixture
async def stub(tmp_path: Path, clock: ManualClock) -> AsyncIterator[AsyncStub]:
    """Return a client of an authority with two applications."""
    async with authority(tmp_path, clock, policy(), extra={"shop": policy()}) as (_, stub):
        yield stub


async def listed(stub: AsyncStub, labels: Mapping[str, str], application: str = "", **conditions: Any) -> list[str]:
    """Return the ids that a filter by labels lists, oldest first."""
    request = loose.ListSessionsRequest(application=application, filter={"labels": labels, **conditions})
    return [session.session_id for session in (await stub.ListSessions(request)).sessions][::-1]


async def opened(stub: AsyncStub, clock: ManualClock, subject: str = "ada", **labels: str) -> pb.CreateSessionResponse:
    """Open a session with these labels, newer than the earlier ones."""
    clock.advance(1)
    return await create(stub, subject, labels=labels)


# Which sessions and events have labels


async def test_they_are_shown_everywhere(stub: AsyncStub) -> None:
    """Every view of a session and every event of it shows its labels."""
    labels = {"tenant": "acme", "idp.sid": "_0-a", "device": "Ada's phone \u2603"}
    own = await create(stub, labels=labels)
    named = {"session_id": own.session.session_id}
    refreshed = await stub.RefreshSession(loose.RefreshSessionRequest(token=own.token))
    rolled = await stub.RollSession(loose.RollSessionRequest(token=own.token))
    elevated = await login(stub, rolled.token, elevate=True)
    views = [own.session, refreshed.session, rolled.session, elevated.session]
    views += [(await validate(stub, elevated.token)).session, await session_of(stub, own.session.session_id)]
    views += (await stub.ListSessions(pb.ListSessionsRequest())).sessions
    await stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set={"a": b"1"}))
    views += [(await stub.RevokeSession(loose.RevokeSessionRequest(session=named))).session]
    assert [dict(view.labels) for view in views] == [labels] * len(views)
    events = (await stub.ListActivity(pb.ListActivityRequest(subject="ada"))).events
    assert len(events) == 7
    assert [dict(event.labels) for event in events] == [labels] * 7


async def test_a_guest_has_labels_too(stub: AsyncStub, clock: ManualClock) -> None:
    """A guest's labels can be found, and are kept at the login."""
    guest = await opened(stub, clock, "", campaign="spring")
    assert await listed(stub, {"campaign": "spring"}, subject="") == [guest.session.session_id]
    own = await login(stub, guest.token)
    assert dict(own.session.labels) == {"campaign": "spring"}
    assert await listed(stub, {"campaign": "spring"}, subject="ada") == [guest.session.session_id]


# Filters


async def test_a_filter_wants_all_of_its_labels(stub: AsyncStub, clock: ManualClock) -> None:
    """A filter finds exactly the sessions of its application that have all of its labels, with key and value."""
    one = (await opened(stub, clock, tenant="acme", region="eu")).session.session_id
    two = (await opened(stub, clock, tenant="acme", region="us")).session.session_id
    three = (await opened(stub, clock, tenant="other", region="eu")).session.session_id
    bob = (await opened(stub, clock, "bob", tenant="acme")).session.session_id
    bare = (await opened(stub, clock)).session.session_id
    theirs = (await create(stub, application="shop", labels={"tenant": "acme"})).session.session_id
    assert await listed(stub, {}) == [one, two, three, bob, bare]
    assert await listed(stub, {"tenant": "acme"}) == [one, two, bob]
    assert await listed(stub, {"region": "eu"}) == [one, three]
    assert await listed(stub, {"tenant": "acme", "region": "eu"}) == [one]
    assert await listed(stub, {"tenant": "acme"}, subject="ada") == [one, two]
    assert await listed(stub, {"tenant": "ACME"}) == []
    assert await listed(stub, {"tenant": "acm"}) == []
    assert await listed(stub, {"region": "acme"}) == []
    assert await listed(stub, {"tenant": "acme", "region": "mars"}) == []
    assert await listed(stub, {"tenant": "acme"}, application="shop") == [theirs]


async def test_a_filter_of_eight(stub: AsyncStub, clock: ManualClock) -> None:
    """A filter can have all eight labels that a session may have; if one differs, it finds nothing."""
    own = await opened(stub, clock, **EIGHT)
    assert await listed(stub, EIGHT) == [own.session.session_id]
    assert await listed(stub, EIGHT | {"key-7": "w"}) == []


async def test_ended_sessions_are_found_by_their_labels(stub: AsyncStub, clock: ManualClock) -> None:
    """Revoked and expired sessions keep their labels and are listed by them, each in its state."""
    gone = await opened(stub, clock, tenant="acme")
    idle = await opened(stub, clock, tenant="acme")
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": gone.token}))
    clock.advance(30 * MINUTE)
    assert await listed(stub, {"tenant": "acme"}) == []
    for state, session in ((pb.SESSION_STATE_REVOKED, gone), (pb.SESSION_STATE_EXPIRED, idle)):
        assert await listed(stub, {"tenant": "acme"}, state=state) == [session.session.session_id]


async def test_pages_of_a_filtered_list(stub: AsyncStub, clock: ManualClock) -> None:
    """Pages under a filter by labels contain each session once, and a page token is valid for that filter only."""
    wanted = []
    for number in range(7):
        wanted.append((await opened(stub, clock, tenant="acme", number=str(number))).session.session_id)
        await opened(stub, clock, tenant="other")
    found: list[str] = []
    request = loose.ListSessionsRequest(page_size=2, filter={"labels": {"tenant": "acme"}})
    while True:
        page = await stub.ListSessions(request)
        found += [session.session_id for session in page.sessions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
        await opened(stub, clock, tenant="acme")  # newer than the first page, so on no page
    assert found == wanted[::-1]
    first = await stub.ListSessions(loose.ListSessionsRequest(page_size=2, filter={"labels": {"tenant": "acme"}}))
    other = loose.ListSessionsRequest(filter={"labels": {"tenant": "other"}}, page_token=first.next_page_token)
    assert (await refusal_of(stub.ListSessions(other))).fields == ["page_token"]


# Replaced values


async def test_a_replaced_value_is_the_only_one(stub: AsyncStub, clock: ManualClock) -> None:
    """A login adds its labels to the existing ones; a new value of a label is found, and the old one is not."""
    guest = await opened(stub, clock, "", tenant="acme", device="phone")
    own = await login(stub, guest.token, labels={"tenant": "other", "idp.sid": "7"})
    session_id = own.session.session_id
    assert dict(own.session.labels) == {"tenant": "other", "device": "phone", "idp.sid": "7"}
    assert await listed(stub, {"tenant": "acme"}) == []
    assert await listed(stub, {"tenant": "other", "device": "phone", "idp.sid": "7"}) == [session_id]
    again = await login(stub, own.token, labels={"tenant": "acme"})
    assert await listed(stub, {"tenant": "acme"}) == [session_id]
    assert await listed(stub, {"tenant": "other"}) == []
    answer = await stub.RevokeSessions(loose.RevokeSessionsRequest(filter={"labels": {"tenant": "other"}}))
    assert answer.revoked_count == 0
    assert (await validate(stub, again.token)).verdict == pb.VERDICT_VALID


async def test_a_fresh_session_has_only_the_logins_labels(stub: AsyncStub, clock: ManualClock) -> None:
    """A session opened by `or_create` has only the labels of the login, as it gets none of the old data."""
    bob = await opened(stub, clock, "bob", tenant="acme")
    own = await login(stub, bob.token, or_create=True, labels={"device": "phone"})
    assert own.created
    assert dict(own.session.labels) == {"device": "phone"}


async def test_an_elevation_sets_labels(stub: AsyncStub, clock: ManualClock) -> None:
    """An elevation sets labels like any login."""
    own = await opened(stub, clock, tenant="acme")
    elevated = await login(stub, own.token, elevate=True, labels={"tenant": "other", "step": "otp"})
    assert dict(elevated.session.labels) == {"tenant": "other", "step": "otp"}
    assert await listed(stub, {"tenant": "other", "step": "otp"}) == [own.session.session_id]
    assert await listed(stub, {"tenant": "acme"}) == []


# Bulk revocation


async def test_revoking_by_labels(stub: AsyncStub, clock: ManualClock) -> None:
    """A bulk revocation ends the sessions of its application with all of its labels, except the excluded one."""
    doomed = [await opened(stub, clock, tenant="acme", region="eu") for _ in range(3)]
    kept = [
        await opened(stub, clock, tenant="acme", region="us"),
        await opened(stub, clock, region="eu"),
        await create(stub, application="shop", labels={"tenant": "acme", "region": "eu"}),
    ]
    request = loose.RevokeSessionsRequest(
        filter={"labels": {"tenant": "acme", "region": "eu"}},
        except_session_id=doomed[0].session.session_id,
        reason="tenant closed",
    )
    assert (await stub.RevokeSessions(request)).revoked_count == 2
    verdicts = [(await validate(stub, one.token)).verdict for one in [*doomed, *kept[:2]]]
    assert verdicts == [pb.VERDICT_VALID, pb.VERDICT_REVOKED, pb.VERDICT_REVOKED, pb.VERDICT_VALID, pb.VERDICT_VALID]
    assert (await validate(stub, kept[2].token, application="shop")).verdict == pb.VERDICT_VALID
    ended = await session_of(stub, doomed[1].session.session_id)
    assert ended.ending.cause.reason == "tenant closed"


async def test_a_login_meanwhile(tmp_path: Path, clock: ManualClock) -> None:
    """A session that a login gives another label just before the revocation reaches it no longer matches, and lives."""
    async with authority(tmp_path, clock) as (app, stub):
        own = await create(stub, labels={"idp.sid": "7"})
        async with held(app) as waiting:
            request = loose.RevokeSessionsRequest(filter={"labels": {"idp.sid": "7"}})
            logout = asyncio.ensure_future(stub.RevokeSessions(request))
            await waiting(1)  # the revocation looks for the sessions
            entered = asyncio.ensure_future(login(stub, own.token, labels={"idp.sid": "8"}))
            await waiting(2)
        assert (await entered).verdict == pb.VERDICT_VALID
        assert (await logout).revoked_count == 0
        assert (await validate(stub, (await entered).token)).verdict == pb.VERDICT_VALID


async def test_revoking_many_by_labels(stub: AsyncStub, clock: ManualClock) -> None:
    """All matching sessions end, even if they are more than one batch."""
    for _ in range(230):
        await create(stub, labels={"idp.sid": "7"})
    last = await create(stub)
    request = loose.RevokeSessionsRequest(filter={"labels": {"idp.sid": "7"}})
    assert (await stub.RevokeSessions(request)).revoked_count == 230
    assert (await validate(stub, last.token)).verdict == pb.VERDICT_VALID


async def test_empty_labels_are_no_condition(stub: AsyncStub) -> None:
    """A bulk revocation whose only condition is an empty map of labels is refused."""
    own = await create(stub)
    refused = await refusal_of(stub.RevokeSessions(loose.RevokeSessionsRequest(filter={"labels": {}})))
    assert refused.fields == ["whole_application"]
    assert (await validate(stub, own.token)).verdict == pb.VERDICT_VALID


# Events


async def followed(stub: AsyncStub, labels: Mapping[str, str], **conditions: Any) -> list[tuple[str, str]]:
    """Return the events' types and sessions of a stream from the beginning under a filter by labels."""
    head = await revision_of(stub)
    request = loose.SubscribeRequest(start=pb.STREAM_START_EARLIEST, filter={"labels": labels, **conditions})
    request.checkpoint_interval.FromMilliseconds(100)
    stream = stub.Subscribe(request)
    items = [await read(stream)]
    while position(items[-1]) < head:
        items.append(await read(stream))
    stream.cancel()
    events = [item.event for item in items if item.HasField("event")]
    kinds = [pb.EventType.Name(event.type).removeprefix("EVENT_TYPE_SESSION_") for event in events]
    return list(zip(kinds, [event.session_id for event in events], strict=True))


async def test_a_stream_by_labels(stub: AsyncStub, clock: ManualClock) -> None:
    """A stream under a filter by labels has the events of sessions that have all of them after the event."""
    guest = await opened(stub, clock, "", tenant="acme")
    await opened(stub, clock, tenant="other")
    own = await login(stub, guest.token, labels={"tenant": "other", "device": "phone"})
    session_id = own.session.session_id
    await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": own.token}))
    assert await followed(stub, {"tenant": "acme"}) == [("CREATED", session_id)]
    lives = [("AUTHENTICATED", session_id), ("ROLLED", session_id), ("REVOKED", session_id)]
    assert await followed(stub, {"device": "phone"}) == lives
    assert [kind for kind, _ in await followed(stub, {"tenant": "other"})] == [
        "CREATED",
        "AUTHENTICATED",
        "ROLLED",
        "REVOKED",
    ]
    assert await followed(stub, {"tenant": "other", "device": "phone"}, types=[pb.EVENT_TYPE_SESSION_REVOKED]) == [
        ("REVOKED", session_id)
    ]
    assert await followed(stub, {"tenant": "other"}, subjects=["bob"]) == []
    assert await followed(stub, {"tenant": "acme", "device": "phone"}) == []


async def test_a_stream_by_labels_that_is_resumed(tmp_path: Path, clock: ManualClock) -> None:
    """Under the filter, too, a cursor resumes exactly after itself, even from the store after a restart."""
    wanted = loose.EventFilter(labels={"tenant": "acme"})
    async with authority(tmp_path, clock) as (_, stub):
        for number in range(4):
            await opened(stub, clock, tenant="acme" if number % 2 else "other")
        stream = stub.Subscribe(loose.SubscribeRequest(start=pb.STREAM_START_EARLIEST, filter=wanted))
        items = [await read(stream) for _ in range(2)]
        stream.cancel()
    assert [item.event.revision for item in items] == [0, 2]
    async with authority(tmp_path, clock) as (_, stub):
        stream = stub.Subscribe(loose.SubscribeRequest(cursor=items[1].cursor, filter=wanted))
        checkpoint, event = [await read(stream) for _ in range(2)]
        stream.cancel()
    assert (checkpoint.checkpoint.revision, event.event.revision) == (2, 4)
    assert dict(event.event.labels) == {"tenant": "acme"}


# Invalid labels


BAD = {
    "nine": {f"key-{number}": "v" for number in range(9)},
    "empty key": {"": "v"},
    "long key": {"k" * 65: "v"},
    "upper case": {"Tenant": "acme"},
    "space": {"ten ant": "acme"},
    "umlaut": {"ten\u00e4nt": "acme"},
    "slash": {"a/b": "v"},
    "newline": {"tenant\n": "acme"},
    "U+0000 in a key": {"ten\0ant": "acme"},
    "empty value": {"tenant": ""},
    "long value": {"tenant": "v" * 257},
    "U+0000 in a value": {"tenant": "ac\0me"},
}
CALLS = {
    "CreateSession": "labels",
    "AuthenticateSession": "labels",
    "ListSessions": "filter.labels",
    "RevokeSessions": "filter.labels",
    "Subscribe": "filter.labels",
}


def asked(name: str, token: str, labels: Mapping[str, str]) -> Any:
    """Return a request with these labels."""
    match name:
        case "CreateSession":
            return loose.CreateSessionRequest(subject="ada", labels=labels)
        case "AuthenticateSession":
            return loose.AuthenticateSessionRequest(token=token, subject="ada", labels=labels)
        case _:
            return getattr(loose, name + "Request")(filter={"labels": labels})


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", CALLS)
async def test_what_is_no_label(stub: AsyncStub, name: str, bad: str) -> None:
    """An invalid label is INVALID_ARGUMENT with the field's name, in every call, and changes nothing."""
    own = await create(stub, labels={"tenant": "acme"})
    before = await revision_of(stub)
    call = getattr(stub, name)(asked(name, own.token, BAD[bad]))
    refused = await refusal_of(call.read() if name == "Subscribe" else call)
    assert (refused.code, refused.fields) == (INVALID, [CALLS[name]])
    assert await revision_of(stub) == before
    assert await session_of(stub, own.session.session_id) == own.session


@pytest.mark.parametrize(
    "labels",
    [
        {"k" * 64: "v" * 256},
        {"a": "\U0001f9ff" * 256},
        {"0.a_b-c": " leading and trailing "},
        EIGHT,
    ],
    ids=["longest", "wide", "signs", "eight"],
)
async def test_what_is_a_label(stub: AsyncStub, labels: dict[str, str]) -> None:
    """The longest key and value, all allowed characters, and eight labels are stored unchanged and can be found."""
    own = await create(stub, labels=labels)
    assert dict(own.session.labels) == labels
    assert await listed(stub, labels) == [own.session.session_id]


@pytest.mark.parametrize("elevate", [False, True], ids=["login", "elevation"])
async def test_never_more_than_eight(stub: AsyncStub, elevate: bool) -> None:
    """A login that would give a session a ninth label is refused and changes nothing; replacing a value is allowed."""
    own = await create(stub, labels=EIGHT)
    before = await revision_of(stub)
    refused = await refusal_of(login(stub, own.token, elevate=elevate, labels={"ninth": "v"}))
    assert (refused.code, refused.fields) == (INVALID, ["labels"])
    assert await revision_of(stub) == before
    again = await login(stub, own.token, elevate=elevate, labels={"key-7": "w"})
    assert dict(again.session.labels) == EIGHT | {"key-7": "w"}


async def test_pruned_labels_are_gone(tmp_path: Path, clock: ManualClock) -> None:
    """When an ended session is pruned, its labels are removed from the index, and equal labels of others stay."""
    async with authority(tmp_path, clock) as (app, stub):
        guest = await opened(stub, clock, "", tenant="acme")
        await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": guest.token}))
        clock.advance(24 * 60 * MINUTE)
        own = await opened(stub, clock, tenant="acme")
        await app.sweeper.prune()
        rows = await sqlite_of(app)._db.all("SELECT session_id, key, value FROM session_labels")
        assert [(row["key"], row["value"]) for row in rows] == [("tenant", "acme")]
        assert await listed(stub, {"tenant": "acme"}) == [own.session.session_id]
        assert await listed(stub, {"tenant": "acme"}, state=pb.SESSION_STATE_REVOKED) == []
