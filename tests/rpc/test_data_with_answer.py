"""Session data in a response: a web request needs one call, and its response never mixes two states."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond.authority.results import AnswerSpec
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Caller
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.login import Login
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub
from tests.attacks.story import MINUTE, authority, create, fresh_id, login, loose, policy, validate
from tests.rpc.refusals import refusal_of, revision_of
from tests.support.clock import ManualClock
from tests.support.held import held
from tests.support.server import AsyncStub, sqlite_of
from tests.support.tokens import revision_in

CART = {"cart": b"3 apples", "theme": b"dark", "empty": b""}
RULES = policy(reactions={SignalType.REPORTED: Reaction.STEP_UP}, guessing=GuessLimits(deny_valid=True, lock_after=1))


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
async def served(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[tuple[App, AsyncStub]]:
    """An authority that stores data unencrypted, and one that encrypts it."""
    async with authority(tmp_path, clock, RULES, encrypt_data=request.param) as served:
        yield served


@pytest.fixture
def app(served: tuple[App, AsyncStub]) -> App:
    return served[0]


@pytest.fixture
def stub(served: tuple[App, AsyncStub]) -> AsyncStub:
    return served[1]


async def asked(stub: AsyncStub, token: str, *, batch: bool, **fields: Any) -> pb.ValidateSessionResponse:
    """Ask one question, alone or in a batch of three."""
    if not batch:
        return await validate(stub, token, **fields)
    questions = [{"token": "x"}, {"token": token, **fields}, {"token": token}]
    answers = (await stub.ValidateSessions(loose.ValidateSessionsRequest(requests=questions))).responses
    assert not answers[2].HasField("data")
    return answers[1]


async def changed(
    stub: AsyncStub, session_id: str, values: Mapping[str, bytes], **fields: Any
) -> pb.UpdateSessionDataResponse:
    """Change a session's data, by its id."""
    request = loose.UpdateSessionDataRequest(session={"session_id": session_id}, set=values, **fields)
    answer: pb.UpdateSessionDataResponse = await stub.UpdateSessionData(request)
    return answer


batch = pytest.mark.parametrize("batch", [False, True], ids=["alone", "in a batch"])


# What a response contains


@batch
@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ([], CART),
        (["cart"], {"cart": b"3 apples"}),
        (["empty"], {"empty": b""}),
        (["cart", "theme", "cart"], {"cart": b"3 apples", "theme": b"dark"}),
        (["nothing"], {}),
        (["nothing", "theme"], {"theme": b"dark"}),
        (["Cart"], {}),
    ],
)
async def test_all_or_some_keys(stub: AsyncStub, batch: bool, keys: list[str], values: dict[str, bytes]) -> None:
    """The response has all data, or the requested keys, with its version; without a request for data it has none."""
    own = await create(stub, data=CART)
    answer = await asked(stub, own.token, batch=batch, data={"keys": keys})
    assert answer.verdict == pb.VERDICT_VALID
    assert (dict(answer.data.values), answer.data.version) == (values, 1)
    assert not (await asked(stub, own.token, batch=batch)).HasField("data")


@batch
async def test_only_if_newer(stub: AsyncStub, batch: bool) -> None:
    """Data that is not newer than the caller's is left out, and `session.data_version` is the current version."""
    own = await create(stub, data=CART)
    for version in (2, 3):
        await changed(stub, own.session.session_id, {"cart": b"%d" % version})
    for newer_than, comes in ((0, True), (1, True), (2, True), (3, False), (4, False), (2**64 - 1, False)):
        answer = await asked(stub, own.token, batch=batch, data={"newer_than": newer_than})
        assert answer.verdict == pb.VERDICT_VALID
        assert (answer.HasField("data"), answer.session.data_version) == (comes, 3)
        if comes:
            assert (answer.data.values["cart"], answer.data.version) == (b"3", 3)


@batch
async def test_no_data_yet(stub: AsyncStub, batch: bool) -> None:
    """A session without data has an empty map at version 0, and no version newer than 0."""
    own = await create(stub)
    answer = await asked(stub, own.token, batch=batch, data={})
    assert answer.HasField("data")
    assert (dict(answer.data.values), answer.data.version, answer.session.data_version) == ({}, 0, 0)
    assert not (await asked(stub, own.token, batch=batch, data={"newer_than": 1})).HasField("data")
    await changed(stub, own.session.session_id, {"a": b"1"})
    await stub.UpdateSessionData(loose.UpdateSessionDataRequest(session={"token": own.token}, delete=["a"]))
    answer = await asked(stub, own.token, batch=batch, data={"newer_than": 1})
    assert (answer.HasField("data"), dict(answer.data.values), answer.data.version) == (True, {}, 2)


@batch
async def test_nothing_with_a_denial(stub: AsyncStub, clock: ManualClock, batch: bool) -> None:
    """INSUFFICIENT, for any unmet requirement, and every other denial come without data."""
    own = await create(stub, data=CART)
    lacking: list[dict[str, Any]] = [
        {"min_level": 3},
        {"csrf": {"csrf_token": "x"}},
        {"companion": {"purpose": "pay"}},
    ]
    for requirements in lacking:
        answer = await asked(stub, own.token, batch=batch, data={}, requirements=requirements)
        assert (answer.verdict, answer.HasField("data")) == (pb.VERDICT_INSUFFICIENT, False)
    held_back = await create(stub, data=CART)
    named = {"session_id": held_back.session.session_id}
    await stub.ReportSignal(loose.ReportSignalRequest(session=named, reason="odd"))
    answer = await asked(stub, held_back.token, batch=batch, data={})
    assert (answer.verdict, answer.HasField("data")) == (pb.VERDICT_INSUFFICIENT, False)
    entered = await login(stub, own.token)
    answer = await asked(stub, own.token, batch=batch, data={})
    assert (answer.verdict, answer.HasField("data")) == (pb.VERDICT_SUPERSEDED, False)
    clock.advance(30 * MINUTE)
    answer = await asked(stub, entered.token, batch=batch, data={})
    assert (answer.verdict, answer.HasField("data")) == (pb.VERDICT_EXPIRED_IDLE, False)
    source = pb.ClientContext(ip_address="203.0.113.66")
    await validate(stub, "x", source)
    await stub.ListSourceLocks(pb.ListSourceLocksRequest())
    fresh = await create(stub, data=CART)
    answer = await asked(stub, fresh.token, batch=batch, data={}, client=source)
    assert (answer.verdict, answer.HasField("data")) == (pb.VERDICT_LOCKED, False)


@batch
async def test_with_a_renewed_token(stub: AsyncStub, clock: ManualClock, batch: bool) -> None:
    """One response has data, CSRF token, renewed token and its cookie; the renewed token's first use has data too."""
    own = await create(stub, data=CART)
    for _ in range(3):
        clock.advance(20 * MINUTE)
        answer = await asked(stub, own.token, batch=batch, data={}, with_csrf_token=True)
        assert (answer.verdict, dict(answer.data.values)) == (pb.VERDICT_VALID, CART)
    assert answer.next_step == pb.NEXT_STEP_REPLACE_TOKEN
    assert answer.csrf_token == own.csrf_token
    assert answer.renewed_token in answer.cookies.set_cookie[0]
    used = await asked(stub, answer.renewed_token, batch=batch, data={})
    assert (used.session.generation, dict(used.data.values)) == (1, CART)
    late = await asked(stub, own.token, batch=batch, data={"keys": ["cart"]})
    assert (late.renewed_token, dict(late.data.values)) == (answer.renewed_token, {"cart": b"3 apples"})


async def test_it_is_activity_like_any_other(stub: AsyncStub, clock: ManualClock) -> None:
    """A question for data keeps the session alive, and a passive one does not."""
    own = await create(stub, data=CART)
    for passive in (False, False, True):
        clock.advance(30 * MINUTE - 1)
        assert (await validate(stub, own.token, data={}, passive=passive)).verdict == pb.VERDICT_VALID
    clock.advance(1)
    assert (await validate(stub, own.token, data={})).verdict == pb.VERDICT_EXPIRED_IDLE


async def test_it_goes_along_with_a_login(stub: AsyncStub) -> None:
    """A guest's data becomes the subject's at the login, with the same version, so a caller's copy stays valid."""
    guest = await create(stub, "", data=CART)
    own = await login(stub, guest.token)
    answer = await validate(stub, own.token, data={})
    assert (dict(answer.data.values), answer.data.version) == (CART, 1)
    assert not (await validate(stub, own.token, data={"newer_than": 1})).HasField("data")


async def test_the_largest_data(stub: AsyncStub) -> None:
    """One response can contain the largest data that the policy allows, and so can a whole batch."""
    big = {f"{number:02}": bytes([number]) * (1024 - 2) for number in range(64)}
    own = await create(stub, data=big)
    questions = [{"token": own.token, "data": {}}] * 20
    for answer in (await stub.ValidateSessions(loose.ValidateSessionsRequest(requests=questions))).responses:
        assert dict(answer.data.values) == big


class Counting(grpc.aio.UnaryUnaryClientInterceptor):
    """Counts the calls on a channel."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Count the call, and make it."""
        self.calls.append(details.method.rpartition(b"/")[2].decode())
        return await continuation(details, request)


async def test_a_page_with_a_cart_is_one_call(app: App, stub: AsyncStub, clock: ManualClock) -> None:
    """A page that checks the session, shows the cart and has a form needs one call, even if a renewal is due."""
    own = await create(stub, data=CART)
    counting = Counting()
    async with grpc.aio.insecure_channel(app.address, interceptors=[counting]) as channel:
        shop: AsyncStub = SessionAuthorityStub(channel)
        for visits in range(1, 4):
            clock.advance(20 * MINUTE)
            page = await validate(shop, own.token, data={"keys": ["cart"]}, with_csrf_token=True)
            assert (page.verdict, page.session.subject) == (pb.VERDICT_VALID, "ada")
            assert (dict(page.data.values), page.csrf_token) == ({"cart": b"3 apples"}, own.csrf_token)
            assert counting.calls == ["ValidateSession"] * visits
    assert page.cookies.set_cookie


# Data that cannot be read


async def damage(app: App, session_id: str, key: str) -> None:
    """Make one stored value unreadable."""
    sql = "UPDATE session_data SET value = zeroblob(64), sealed = 1 WHERE session_id = ? AND key = ?"
    await sqlite_of(app)._db.all(sql, (SessionId.parse(session_id), key))


async def test_damaged_data(app: App, stub: AsyncStub) -> None:
    """If a requested value cannot be read, the call is DATA_LOSS; in a batch only that session comes without data."""
    first, broken, last = [await create(stub, subject, data=CART) for subject in ("ada", "bob", "eve")]
    await damage(app, broken.session.session_id, "theme")
    refused = await refusal_of(validate(stub, broken.token, data={}))
    assert refused.code == grpc.StatusCode.DATA_LOSS
    assert broken.token not in refused.message
    questions = [{"token": one.token, "data": {}} for one in (first, broken, last)]
    answers = (await stub.ValidateSessions(loose.ValidateSessionsRequest(requests=questions))).responses
    assert [answer.verdict for answer in answers] == [pb.VERDICT_VALID] * 3
    assert [answer.HasField("data") for answer in answers] == [True, False, True]
    assert (dict(answers[0].data.values), dict(answers[2].data.values)) == (CART, CART)
    assert (answers[1].session.subject, answers[1].session.data_version) == ("bob", 1)


async def test_what_is_not_damaged_can_be_read(app: App, stub: AsyncStub) -> None:
    """One unreadable value does not affect other keys, a current copy, or the session itself."""
    broken = await create(stub, data=CART)
    await damage(app, broken.session.session_id, "theme")
    assert dict((await validate(stub, broken.token, data={"keys": ["cart"]})).data.values) == {"cart": b"3 apples"}
    assert not (await validate(stub, broken.token, data={"newer_than": 1})).HasField("data")
    assert (await validate(stub, broken.token)).verdict == pb.VERDICT_VALID
    for named in ({"token": broken.token}, {"session_id": broken.session.session_id}):
        some = loose.GetSessionDataRequest(session=named, keys=["cart", "empty"])
        assert dict((await stub.GetSessionData(some)).data) == {"cart": b"3 apples", "empty": b""}
        refused = await refusal_of(stub.GetSessionData(loose.GetSessionDataRequest(session=named)))
        assert refused.code == grpc.StatusCode.DATA_LOSS
    assert (await stub.RevokeSession(loose.RevokeSessionRequest(session={"token": broken.token}))).revoked


# Concurrent changes


async def test_no_data_of_the_next_owner(app: App, stub: AsyncStub) -> None:
    """A guest's question in progress while a subject logs in does not return the data that the subject then stores."""
    guest = await create(stub, "", data={"cart": b"3 apples"})
    ours = app.authority
    call = ours.call("default", Caller("test"), None)
    session_id = SessionId.parse(guest.session.session_id)
    async with held(app) as waiting:
        # Committed in one group: the login, and then the subject's own data.
        changes = asyncio.gather(
            ours.logins.authenticate(call, Token(guest.token), Login("ada"), AnswerSpec(lambda _: b"")),
            ours.data.update(call, session_id, {"pin": b"4711"}, AnswerSpec(lambda _: b"")),
        )
        await waiting(1)
        question = asyncio.ensure_future(validate(stub, guest.token, data={}))
        await waiting(2)
    await changes
    answer = await question
    assert answer.verdict == pb.VERDICT_SUPERSEDED
    assert (answer.HasField("data"), answer.HasField("session")) == (False, False)


async def test_the_session_is_as_new_as_its_data(app: App, stub: AsyncStub) -> None:
    """A response's session and data have the same version, even if the data changes while it is read."""
    own = await create(stub, data={"cart": b"3 apples"})
    named = {"session_id": own.session.session_id}
    async with held(app) as waiting:
        change = asyncio.ensure_future(
            stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set={"cart": b"4 apples"}))
        )
        await waiting(1)
        question = asyncio.ensure_future(validate(stub, own.token, data={}))
        await waiting(2)
    changed, answer = await change, await question
    assert (dict(answer.data.values), answer.data.version) == ({"cart": b"4 apples"}, changed.version)
    assert answer.session.data_version == changed.version
    assert revision_in(answer) == revision_in(changed)


async def test_two_hundred_writers(stub: AsyncStub) -> None:
    """While two hundred calls write, the data and the session in a response always have the same version."""
    own = await create(stub, data={"one": b"0", "other": b"0"})
    written = {1: b"0"}
    done = asyncio.Event()

    async def write(number: int) -> None:
        value = b"%d" % number
        answer = await changed(stub, own.session.session_id, {"one": value, "other": value}, data={})
        assert answer.data.version == answer.version
        assert dict(answer.data.values) == {"one": value, "other": value}
        written[answer.version] = value

    async def read(token: str) -> list[pb.ValidateSessionResponse]:
        answers = []
        while not done.is_set():
            answers.append(await validate(stub, token, data={}))
        return answers

    readers = [asyncio.ensure_future(read(own.token)) for _ in range(4)]
    await asyncio.gather(*(write(number) for number in range(1, 201)))
    done.set()
    answers = [answer for part in await asyncio.gather(*readers) for answer in part]
    assert len(answers) > 4
    for answer in answers:
        assert answer.verdict == pb.VERDICT_VALID
        value = written[answer.data.version]
        assert dict(answer.data.values) == {"one": value, "other": value}
        assert answer.session.data_version == answer.data.version
    assert sorted(written) == list(range(1, 202))


async def test_a_logout_meanwhile(stub: AsyncStub) -> None:
    """A question that races with the session's end has all the data, or no VALID and none: never an empty cart."""
    for _ in range(30):
        own = await create(stub, data=CART)
        named = {"session_id": own.session.session_id}
        logout = asyncio.ensure_future(stub.RevokeSession(loose.RevokeSessionRequest(session=named)))
        alone = [asyncio.ensure_future(validate(stub, own.token, data={})) for _ in range(4)]
        batch = loose.ValidateSessionsRequest(requests=[{"token": own.token, "data": {}}] * 3)
        answers = [*(await stub.ValidateSessions(batch)).responses, *(await asyncio.gather(*alone))]
        assert (await logout).revoked
        for answer in answers:
            if answer.verdict == pb.VERDICT_VALID:
                assert dict(answer.data.values) == CART
            else:
                assert (answer.verdict, answer.HasField("data")) == (pb.VERDICT_REVOKED, False)


async def test_an_end_while_data_is_read(app: App, stub: AsyncStub) -> None:
    """A session that ends after it was judged, but before its data is read, is REVOKED and has no data."""
    own = await create(stub, data=CART)
    async with held(app) as waiting:
        logout = asyncio.ensure_future(
            stub.RevokeSession(loose.RevokeSessionRequest(session={"session_id": own.session.session_id}))
        )
        await waiting(1)
        question = asyncio.ensure_future(validate(stub, own.token, data={}))
        await waiting(2)
    assert (await logout).revoked
    answer = await question
    assert (answer.verdict, answer.HasField("data")) == (pb.VERDICT_REVOKED, False)


# Changing and reading in one call


@pytest.mark.parametrize("by", ["token", "session_id"])
async def test_a_change_answers_with_the_result(stub: AsyncStub, by: str) -> None:
    """A change that asks for data returns the merged result: old and newly set keys, without the deleted ones."""
    own = await create(stub, data=CART)
    named = {by: own.token if by == "token" else own.session.session_id}

    async def change(**fields: Any) -> pb.UpdateSessionDataResponse:
        request = loose.UpdateSessionDataRequest(session=named, **fields)
        answer: pb.UpdateSessionDataResponse = await stub.UpdateSessionData(request)
        assert answer.verdict == pb.VERDICT_VALID
        return answer

    merged = await change(set={"cart": b"4 apples", "new": b"1"}, delete=["theme"], data={})
    assert (merged.version, merged.data.version) == (2, 2)
    assert dict(merged.data.values) == {"cart": b"4 apples", "new": b"1", "empty": b""}
    some = await change(set={"new": b"2"}, data={"keys": ["new", "theme"]})
    assert (dict(some.data.values), some.data.version) == ({"new": b"2"}, 3)
    assert not (await change(set={"new": b"3"})).HasField("data")
    for newer_than, comes in ((0, True), (5, True), (7, False), (8, False)):
        answer = await change(set={"new": b"4"}, data={"newer_than": newer_than})
        assert answer.HasField("data") == comes
    gone = await change(delete=["cart", "new", "empty"], data={})
    assert (gone.HasField("data"), dict(gone.data.values), gone.data.version) == (True, {}, 9)


async def test_a_change_that_is_repeated(stub: AsyncStub) -> None:
    """A retry with a request id returns the first result, data included, even if the data has changed since."""
    own = await create(stub, data=CART)
    request = loose.UpdateSessionDataRequest(
        session={"token": own.token}, set={"cart": b"4"}, data={"keys": ["cart"]}, request_id=fresh_id()
    )
    first = await stub.UpdateSessionData(request)
    await changed(stub, own.session.session_id, {"cart": b"5"})
    before = await revision_of(stub)
    again = await stub.UpdateSessionData(request)
    assert again == first
    assert (dict(again.data.values), again.data.version) == ({"cart": b"4"}, 2)
    assert await revision_of(stub) == before
    request.data.newer_than = 1
    assert (await refusal_of(stub.UpdateSessionData(request))).fields == ["request_id"]


async def test_a_change_that_is_refused_or_denied(stub: AsyncStub) -> None:
    """A failed condition, data that grows too large and a bad token return no data, and change nothing."""
    own = await create(stub, data=CART)
    before = await revision_of(stub)
    late = await refusal_of(changed(stub, own.session.session_id, {"a": b"1"}, expected_version=7, data={}))
    assert late.code == grpc.StatusCode.ABORTED
    large = await refusal_of(changed(stub, own.session.session_id, {"a": bytes(65_536)}, data={}))
    assert large.code == grpc.StatusCode.INVALID_ARGUMENT
    for token in ("x", "A" * 70):
        request = loose.UpdateSessionDataRequest(session={"token": token}, set={"a": b"1"}, data={})
        answer = await stub.UpdateSessionData(request)
        assert (answer.verdict != pb.VERDICT_VALID, answer.version, answer.HasField("data")) == (True, 0, False)
    assert await revision_of(stub) == before
    assert dict((await validate(stub, own.token, data={})).data.values) == CART


async def test_read_and_decide_in_one_call(stub: AsyncStub) -> None:
    """Ten writers that merge without reading lose nothing: each sees its own key, and the last sees all."""
    own = await create(stub)
    answers = await asyncio.gather(
        *(changed(stub, own.session.session_id, {f"item-{number}": b"1"}, data={}) for number in range(10))
    )
    assert sorted(answer.version for answer in answers) == list(range(1, 11))
    for number, answer in enumerate(answers):
        assert f"item-{number}" in answer.data.values
        assert len(answer.data.values) == answer.version


# Invalid keys


@pytest.mark.parametrize("bad", [[""], ["k" * 257], ["a\0b"], ["k"] * 1001], ids=["empty", "long", "null", "many"])
@pytest.mark.parametrize("name", ["ValidateSession", "ValidateSessions", "UpdateSessionData", "GetSessionData"])
async def test_what_is_no_key(stub: AsyncStub, name: str, bad: list[str]) -> None:
    """Invalid keys, or too many, are INVALID_ARGUMENT with the field's name, in every call that takes keys."""
    own = await create(stub, data=CART)
    before = await revision_of(stub)
    by_token, wanted = {"session": {"token": own.token}}, {"data": {"keys": bad}}
    requests: dict[str, dict[str, Any]] = {
        "ValidateSession": {"token": own.token, **wanted},
        "ValidateSessions": {"requests": [{"token": own.token}, {"token": own.token, **wanted}]},
        "UpdateSessionData": {**by_token, "set": {"a": b"1"}, **wanted},
        "GetSessionData": {**by_token, "keys": bad},
    }
    refused = await refusal_of(getattr(stub, name)(getattr(loose, name + "Request")(**requests[name])))
    field = {"GetSessionData": "keys", "ValidateSessions": "requests[1].data.keys"}.get(name, "data.keys")
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert await revision_of(stub) == before
