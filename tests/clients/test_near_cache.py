"""A client with a near cache, against a real authority: what it answers itself, what it asks, and when it is closed."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import json
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.app import App
from sessiond_client import (
    AsyncClient,
    Client,
    ClientClosed,
    ClientContext,
    DataRequest,
    DeadlineExceeded,
    InvalidArgument,
    NearCacheStats,
    NextStep,
    Requirements,
    SessionData,
    SessiondError,
    Token,
    Unavailable,
    Verdict,
    calls,
)
from sessiond_client.near_cache import boot_millis
from tests.attacks.story import policy
from tests.attacks.test_guessing import SHUT, forged, guess
from tests.clients.calls_of import TOKEN, ending_of
from tests.clients.either import CLIENTS, Either, Kind
from tests.clients.front import Front
from tests.clients.test_secrets import shown
from tests.support.clock import ManualClock
from tests.support.server import AsyncStub, ServerProcess, config_for, serving

SEEN = ClientContext(ip_address="203.0.113.66", user_agent="Firefox")
ELSEWHERE = ClientContext(ip_address="203.0.113.67", user_agent="Firefox")
PATIENCE = 20


def stats(client: Either) -> NearCacheStats:
    found = client.client.near_cache
    assert found is not None
    return found


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds. Fails if it does not come to hold."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - threads that change it set no event of this loop
            await asyncio.sleep(0.01)


@asynccontextmanager
async def near(kind: Kind, target: str, *, opens: bool = True, **options: Any) -> AsyncIterator[Either]:
    """A client with a near cache that is open."""
    async with Either(kind, target, near_cache=True, **options) as client:
        if opens:
            await opened(client)
        yield client


async def opened(client: Either) -> None:
    await client.validate("not a token")  # the first question begins to follow
    await until(lambda: stats(client).is_open)


def follows(client: Either, clock: ManualClock) -> None:
    """Let the cache's own clock jump when the authority's clock is set."""
    started = clock.now()

    def now() -> int:
        return boot_millis() + clock.now() - started

    assert client.client._near is not None
    assert client.client._following is not None
    client.client._near.cache._clock = client.client._following._conversation.clock = now


@pytest.fixture
async def front(app: App) -> AsyncIterator[Front]:
    """A front of `app`, running; its address is `address`."""
    front = Front(app.address)
    async with front.running() as address:
        front.address = address  # type: ignore[attr-defined]  # for the tests below
        yield front


@pytest.fixture(params=CLIENTS, ids=lambda kind: str(kind.__name__))
async def client(request: pytest.FixtureRequest, front: Any, clock: ManualClock) -> AsyncIterator[Either]:
    """A client of each kind in turn, with a near cache that is open, behind a front."""
    async with near(request.param, front.address, opens=False) as client:
        follows(client, clock)
        await opened(client)
        yield client


@pytest.fixture
async def plain(app: App) -> AsyncIterator[AsyncClient]:
    """A client without a near cache, straight to the authority."""
    async with AsyncClient(app.address) as plain:
        yield plain


# Answers from memory


async def test_a_repeated_question_is_answered_from_memory(client: Either, front: Front, plain: AsyncClient) -> None:
    """The second time a question is answered without a call, as the first time, data and CSRF token included."""
    made = await plain.create(subject="ada", client=SEEN, data={"cart": b"1"}, labels={"tenant": "acme"})
    before = stats(client)
    for question in ({}, {"client": SEEN}, {"data": True}, {"with_csrf_token": True}, {"passive": True, "data": True}):
        asked = front.asked
        first = await client.validate(made.token, **question)
        assert front.asked == asked + 1
        assert [await client.validate(token, **question) for token in (made.token, made.token.reveal())] == [first] * 2
        assert front.asked == asked + 1
        assert (first.verdict, first.next_step) == (Verdict.VALID, NextStep.PROCEED)
        assert (first.data is not None) is ("data" in question)
        assert (first.csrf_token == made.csrf_token) is ("with_csrf_token" in question)
    after = stats(client)
    assert (after.hits - before.hits, after.misses - before.misses, after.entries) == (10, 5, 5)


async def test_a_closed_cache_asks(front: Any) -> None:
    """Until it follows, a client asks each time, and counts that."""
    async with near(AsyncClient, front.address, opens=False) as client:
        assert stats(client) == NearCacheStats(False, 0, 0, 0, 0, 0, 0, 0, None)
        await client.validate("not a token")
        assert stats(client).closed == 1


CHANGES_OF_A_MAPPING: tuple[Callable[[Any], Any], ...] = (
    lambda found: found.__setitem__("cart", b"2"),
    lambda found: found.__delitem__("cart"),
    lambda found: found.update(cart=b"2"),
    lambda found: found.pop("cart"),
    lambda found: found.popitem(),
    lambda found: found.clear(),
    lambda found: found.setdefault("other", b"2"),
    lambda found: found.__ior__({"cart": b"2"}),
)


async def test_no_caller_changes_an_answer(client: Either, plain: AsyncClient) -> None:
    """What callers get can be copied and written, but not changed for the others."""
    made = await plain.create(subject="ada", data={"cart": b"1"}, labels={"tenant": "acme"})
    for _ in range(2):
        answer = await client.validate(made.token, data=True)
        for mapping in (answer.data.values, answer.session.labels):
            for change in CHANGES_OF_A_MAPPING:
                with pytest.raises(TypeError, match="change a copy"):
                    change(mapping)
        with pytest.raises(AttributeError):
            answer.session.subject = "eve"
        assert json.loads(json.dumps(answer.session.labels)) == {"tenant": "acme"}
        copies = [copy.copy(answer.data.values), copy.deepcopy(answer.data.values)]
        copies += [pickle.loads(pickle.dumps(answer.data.values)), dict(answer.data.values)]
        for own in copies:
            own["cart"] = b"2"
    assert (await client.validate(made.token, data=True)).data.values == {"cart": b"1"}
    assert stats(client).hits == 2


async def test_arguments_that_the_caller_changes_later(client: Either, plain: AsyncClient) -> None:
    """A question is what it was when it was asked, whatever becomes of its objects; a generator is read once."""
    made = await plain.create(subject="ada", data={"a": b"1", "b": b"2"})
    keys = ["a"]
    request = DataRequest(keys=keys)  # type: ignore[arg-type]  # a list is accepted
    assert (await client.validate(made.token, data=request)).data.values == {"a": b"1"}
    keys.append("b")
    assert (await client.validate(made.token, data=DataRequest(keys=("a",)))).data.values == {"a": b"1"}
    assert stats(client).hits == 1
    assert (await client.validate(made.token, data=request)).data.values == {"a": b"1", "b": b"2"}
    one = DataRequest(keys=(key for key in ["a"]))  # type: ignore[arg-type]  # so is any iterable
    assert (await client.validate(made.token, data=one)).data.values == {"a": b"1"}
    assert (await client.validate(made.token, data=DataRequest())).data.values == {"a": b"1", "b": b"2"}
    assert (await client.validate(made.token, data=True)).data.values == {"a": b"1", "b": b"2"}


async def test_each_client_context_has_answers_of_its_own(client: Either, front: Front, plain: AsyncClient) -> None:
    """A question about another client is asked, whatever is known of the first one."""
    made = await plain.create(subject="ada", client=SEEN)
    asked = front.asked
    contexts = [None, SEEN, ELSEWHERE, replace(SEEN, device_id="d"), replace(SEEN, user_agent="Firefox ")]
    for number, context in enumerate(contexts):
        await client.validate(made.token, client=context)
        assert front.asked == asked + number + 1
    assert await client.validate(made.token, client=replace(SEEN)) is not None
    assert front.asked == asked + len(contexts)


# What always goes to the authority


async def test_what_is_always_asked(client: Either, front: Front, plain: AsyncClient) -> None:
    """CSRF and companion requirements, met or not, and `at_least` go to the authority each time."""
    made = await plain.create(subject="ada")
    companion = await plain.issue_companion_token(made.token, "pay")
    good = Requirements(csrf=made.csrf_token), Requirements(companion=("pay", companion.companion_token))
    bad = Requirements(csrf="wrong"), Requirements(csrf=None), Requirements(companion=("pay", None))
    await client.validate(made.token)
    questions: list[dict[str, Any]] = [{"requirements": one} for one in (*good, *bad)]
    for question in [*questions, {"at_least": made.consistency_token}]:
        asked = front.asked
        answers = [await client.validate(made.token, **question) for _ in range(3)]
        assert front.asked == asked + 3
        needed = question.get("requirements")
        assert {answer.verdict for answer in answers} == {Verdict.INSUFFICIENT if needed in bad else Verdict.VALID}


async def test_a_denial_is_never_kept(client: Either, front: Front, plain: AsyncClient, clock: ManualClock) -> None:
    """Each verdict but VALID is asked for each time, whatever makes it."""
    made, ended = await plain.create(subject="ada"), await plain.create(subject="ada")
    await plain.revoke(token=ended.token)
    level = {"requirements": Requirements(min_level=2)}
    for token, question, verdict in (
        ("x", {}, Verdict.MALFORMED),
        (forged(), {}, Verdict.FORGED),
        (ended.token, {}, Verdict.REVOKED),
        (made.token, level, Verdict.INSUFFICIENT),
    ):
        asked = front.asked
        assert {(await client.validate(token, **question)).verdict for _ in range(3)} == {verdict}
        assert front.asked == asked + 3
    clock.advance(31 * 60_000)
    await until(lambda: stats(client).is_open)
    assert {(await client.validate(made.token)).verdict for _ in range(3)} == {Verdict.EXPIRED_IDLE}
    assert stats(client).hits == 0


async def test_a_due_renewal_is_never_kept(
    client: Either, front: Front, plain: AsyncClient, clock: ManualClock
) -> None:
    """While a renewal is due, each question is asked, so that each answer has the new token and its cookie."""
    made = await plain.create(subject="ada")
    for _ in range(3):
        clock.advance(20 * 60_000)
        await until(lambda: stats(client).is_open)
        answer = await client.validate(made.token)
    asked = front.asked
    answers = [answer, *[await client.validate(made.token) for _ in range(3)]]
    assert front.asked == asked + 3
    assert {one.next_step for one in answers} == {NextStep.REPLACE_TOKEN}
    assert all(one.renewed_token == answer.renewed_token for one in answers)
    new = answer.renewed_token
    await client.validate(new)  # the first use, which is an event
    await client.validate(new)
    asked = front.asked
    assert (await client.validate(new)).valid
    assert front.asked == asked


# Wrong arguments

WRONG: list[dict[str, Any]] = [
    {"passive": 1},
    {"passive": 0},
    {"with_csrf_token": 0},
    {"data": 0},
    {"client": "203.0.113.66"},
    {"client": replace(SEEN, certificate_thumbprint=bytearray())},  # type: ignore[arg-type]
    {"requirements": {}},
    {"at_least": None},
    {"timeout": -1},
    {"timeout": float("nan")},
    {"timeout": "1"},
    {"timeout": True},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:30])
async def test_a_wrong_argument_is_refused_although_it_equals_a_right_one(
    client: Either, plain: AsyncClient, wrong: dict[str, Any]
) -> None:
    """A wrong argument is an InvalidArgument also when the question that it looks like is known."""
    made = await plain.create(subject="ada")
    for passive in (False, True):
        for seen in (None, SEEN):
            for data in (False, True, None):
                await client.validate(made.token, passive=passive, client=seen, data=data)
    with pytest.raises(InvalidArgument):
        await client.validate(made.token, **{"client": SEEN, **wrong})


class NotAToken:
    """Something that reveals a secret and is no token."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def reveal(self) -> str:
        return self.secret


async def test_only_a_token_is_a_token(client: Either, plain: AsyncClient) -> None:
    """What only looks like a token is refused, although the answer about its secret is known."""
    made = await plain.create(subject="ada")
    await client.validate(made.token)
    for other in (NotAToken(made.token.reveal()), made.token.reveal().encode(), None):
        with pytest.raises(InvalidArgument):
            await client.validate(other)


async def test_a_wrong_address_is_refused_each_time(client: Either, plain: AsyncClient) -> None:
    """An `ip_address` that is none is refused by the authority each time, with the field named."""
    made = await plain.create(subject="ada")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=re.escape("client.ip_address")):
            await client.validate(made.token, client=ClientContext(ip_address="somewhere"))


@pytest.mark.parametrize("kind", CLIENTS)
def test_validate_has_the_signature_of_its_call(kind: Kind) -> None:
    """`validate` of each client takes what `calls.validate` takes, with the same defaults, and shows that."""
    described = list(inspect.signature(calls.validate).parameters.values())[1:]
    code = kind.validate.__code__  # what it takes, not what it shows
    defaults = kind.validate.__kwdefaults__ or {}
    shows = list(inspect.signature(kind.validate).parameters.values())[1:]
    assert [(one.name, one.kind, one.default) for one in shows] == [
        (one.name, one.kind, one.default) for one in described
    ]
    assert code.co_varnames[: code.co_argcount] == ("self", "token")
    keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    assert {name: defaults[name] for name in keywords} == {
        one.name: one.default for one in described if one.kind is one.KEYWORD_ONLY
    }


# One asks for all


async def test_many_with_one_question_make_one_call(client: Either, front: Front, plain: AsyncClient) -> None:
    """Of thirty callers with one question at once one asks, and the others get its answer."""
    made = await plain.create(subject="ada", data={"cart": b"1"})
    asked = front.asked
    front.gate.clear()
    tasks = [asyncio.ensure_future(client.validate(made.token, data=True)) for _ in range(12)]
    await front.until_held()
    await asyncio.sleep(0.1)  # the rest must have arrived by now, or they ask later, of memory
    front.gate.set()
    answers = await asyncio.gather(*tasks)
    assert front.asked == asked + 1
    assert all(answer == answers[0] and answer.valid for answer in answers)


async def test_a_waiter_does_not_get_an_answer_from_before_it_asked(
    client: Either, front: Front, plain: AsyncClient
) -> None:
    """A caller who asks after an awaited revocation is denied, also if it waits for one that asked before."""
    made = await plain.create(subject="ada")
    front.gate.clear()
    early = asyncio.ensure_future(client.validate(made.token))
    await front.until_held()  # the authority has said yes, and that is on its way
    await plain.revoke(token=made.token, wait_for_caches=True)
    late = [asyncio.ensure_future(client.validate(made.token)) for _ in range(3)]
    await asyncio.sleep(0.05)
    front.gate.set()
    assert (await early).valid  # it asked before
    assert {(await one).verdict for one in late} == {Verdict.REVOKED}
    assert (await client.validate(made.token)).verdict is Verdict.REVOKED


async def test_a_waiter_keeps_to_its_own_deadline(client: Either, front: Front, plain: AsyncClient) -> None:
    """Waiting for another caller's answer counts towards a call's own timeout."""
    made = await plain.create(subject="ada")
    loop = asyncio.get_running_loop()
    front.gate.clear()
    first = asyncio.ensure_future(client.validate(made.token))
    await front.until_held()
    began = loop.time()
    with pytest.raises(DeadlineExceeded):
        await client.validate(made.token, timeout=1.0)
    assert loop.time() - began < 1.8
    front.gate.set()
    assert (await first).valid


async def test_a_waiter_asks_if_the_first_one_fails(front: Any, plain: AsyncClient) -> None:
    """If the caller who asked is cancelled, those who waited for it ask themselves."""
    async with near(AsyncClient, front.address) as client:
        made = await plain.create(subject="ada")
        front.gate.clear()
        first = asyncio.ensure_future(client.client.validate(made.token))  # type: ignore[arg-type]
        await front.until_held()
        late = [asyncio.ensure_future(client.validate(made.token)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        front.gate.set()
        assert all([(await one).valid for one in late])
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_nobody_waits_while_it_is_closed(app: App, plain: AsyncClient) -> None:
    """A client whose cache is closed asks as a plain client does: callers with one question ask at the same time."""
    front = Front(app.address, hides=["Follow"])
    made = await plain.create(subject="ada")
    async with front.running() as address, near(AsyncClient, address, opens=False, coalesce=False) as client:
        front.gate.clear()
        tasks = [asyncio.ensure_future(client.validate(made.token)) for _ in range(5)]
        await front.until_held(5)
        front.gate.set()
        assert all([(await task).valid for task in tasks])


# Changes


async def test_an_awaited_revocation_holds_when_it_returns(client: Either, plain: AsyncClient) -> None:
    """When a revocation that waits for caches has returned, no question is answered with yes, a hundred times."""
    for _ in range(100):
        made = await plain.create(subject="ada")
        assert (await client.validate(made.token)).valid
        assert (await client.validate(made.token)).valid
        await plain.revoke(token=made.token, wait_for_caches=True)
        assert (await client.validate(made.token)).verdict is Verdict.REVOKED
    assert stats(client).hits == 100


async def test_changes_are_seen(client: Either, plain: AsyncClient) -> None:
    """Data, a login, a roll, a refresh and a plain revocation are seen here soon after they were made."""
    made = await plain.create(data={"cart": b"1"})
    token = made.token
    assert (await client.validate(token, data=True)).data.values == {"cart": b"1"}
    await plain.update_data(token=token, set={"cart": b"2"})

    async def comes(**expected: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await client.validate(token, data=True)
                if all(getattr(answer, name) == value for name, value in expected.items()):
                    return
                await asyncio.sleep(0.01)

    await comes(data=SessionData(values={"cart": b"2"}, version=2))
    logged_in = await plain.authenticate(token, "ada")
    await comes(valid=False)
    assert logged_in.token is not None
    token = logged_in.token
    await comes(valid=True)
    await plain.revoke(token=token)
    await comes(verdict=Verdict.REVOKED)


async def test_own_changes_are_seen_with_at_least(client: Either) -> None:
    """A caller who passes the consistency token of its change gets an answer from after it, every time."""
    made = await client.create(subject="ada", data={"n": b"0"})
    for number in range(30):
        await client.validate(made.token, data=True)
        changed = await client.update_data(token=made.token, set={"n": str(number).encode()})
        answer = await client.validate(made.token, data=True, at_least=changed.consistency_token)
        assert answer.data.values == {"n": str(number).encode()}


async def test_a_reload_of_the_policies_drops_everything(
    client: Either, front: Front, plain: AsyncClient, app: App, tmp_path: Path
) -> None:
    """After a change of the policies every question is asked again, and judged by the new rules."""
    made = await plain.create(subject="ada")
    await client.validate(made.token)
    asked = front.asked
    shorter = policy("owasp-low", absolute_timeout=1_800_000)
    reloaded = await app.reload(config_for(tmp_path, policies={"default": shorter}))
    assert reloaded.changed
    await until(lambda: stats(client).entries == 0)
    await until(lambda: stats(client).is_open)
    assert (await client.validate(made.token)).valid
    assert front.asked == asked + 1


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_locked_source_is_denied(kind: Kind, tmp_path: Path, clock: ManualClock) -> None:
    """With `deny_valid`, what is known of clients from a source is dropped when it is locked; the others' stays."""
    async with (
        serving(config_for(tmp_path, policies={"default": policy(guessing=SHUT)}), clock) as app,
        grpc.aio.insecure_channel(app.address) as channel,
        AsyncClient(app.address) as plain,
        near(kind, app.address) as client,
    ):
        contexts = (SEEN, ELSEWHERE, None)
        tokens = [(await plain.create(subject="ada", client=seen)).token for seen in contexts]
        for token, seen in zip(tokens, contexts, strict=True):
            assert (await client.validate(token, client=seen)).valid
        await guess(AsyncStub(channel), 100)
        await until(lambda: stats(client).dropped >= 1)
        assert not (await client.validate(tokens[0], client=SEEN)).valid
        hits = stats(client).hits
        assert (await client.validate(tokens[1], client=ELSEWHERE)).valid
        assert (await client.validate(tokens[2])).valid
        assert stats(client).hits == hits + 2


# Outages


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_server_that_is_gone(kind: Kind, tmp_path: Path) -> None:
    """When the authority is gone nothing is answered from memory any more: the call raises. Its return is noticed."""
    server = ServerProcess(tmp_path)
    address = await server.address()
    async with near(kind, address, timeout=5.0) as client:
        made = await client.create(subject="ada")
        ended = await client.create(subject="eve")
        for one in (made, ended):
            assert (await client.validate(one.token)).valid
            assert (await client.validate(one.token)).valid
        server.kill()
        await until(lambda: not stats(client).is_open)
        with pytest.raises(Unavailable):
            await client.validate(made.token)
        server = ServerProcess(tmp_path, listen=address)
        try:
            await server.address()
            async with AsyncClient(address) as plain:
                await plain.revoke(token=ended.token)
            await until(lambda: stats(client).is_open)
            assert (await client.validate(ended.token)).verdict is Verdict.REVOKED
            assert (await client.validate(made.token)).valid
            hits = stats(client).hits
            assert (await client.validate(made.token)).valid
            assert stats(client).hits == hits + 1
        finally:
            server.kill()


async def test_a_silent_authority(client: Either, front: Front, plain: AsyncClient) -> None:
    """If nothing arrives any more, the lease ends, and with it the answers from memory: at most five seconds later."""
    made = await plain.create(subject="ada")
    assert (await client.validate(made.token)).valid
    assert (await client.validate(made.token)).valid
    near_cache = client.client._near
    assert near_cache is not None
    until_then = near_cache.cache.follower.lease.until
    near_cache.cache._clock = lambda: until_then  # as if nothing had been granted until then
    front.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await client.validate(made.token, timeout=0.5)
    front.gate.set()


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_authority_that_does_not_know_follow(kind: Kind, app: App, plain: AsyncClient) -> None:
    """With an older authority the client works as one without a near cache, and does not ask for it again and again."""
    front = Front(app.address, hides=["Follow"])
    made = await plain.create(subject="ada")
    async with front.running() as address, near(kind, address, opens=False) as client:
        for _ in range(5):
            assert (await client.validate(made.token)).valid
        await until(lambda: front.calls["Follow"] == 1)
        await plain.revoke(token=made.token)
        assert (await client.validate(made.token)).verdict is Verdict.REVOKED
        assert (stats(client).hits, stats(client).closed, stats(client).is_open) == (0, 6, False)
        assert front.asked == 6
        assert front.calls["Follow"] == 1


async def test_an_authority_that_cannot_know_its_position(client: Either, front: Any, tmp_path: Path) -> None:
    """If the server that is asked does not know the log that is followed, the caller gets its answer all the same."""
    near_cache = client.client._near
    assert near_cache is not None
    async with serving(config_for(tmp_path / "other")) as other, AsyncClient(other.address) as stranger:
        made = await stranger.create(subject="ada")
        near_cache.cache.follower.cursor = made.consistency_token
        mine = await client.create(subject="ada")
        asked = front.asked
        assert (await client.validate(mine.token)).valid
        assert front.asked == asked + 2


# The end of a client


@pytest.mark.parametrize("kind", CLIENTS)
async def test_closing_ends_the_following_and_the_lease(kind: Kind, app: App, plain: AsyncClient) -> None:
    """After `close` nothing is answered, nothing follows any more, and no revocation waits for the cache."""
    made = await plain.create(subject="ada")
    async with near(kind, app.address) as client:
        await client.validate(made.token)
        assert (await client.validate(made.token)).valid
        assert app.authority.parts.caches.may_answer()
    assert not app.authority.parts.caches.may_answer()
    with pytest.raises(ClientClosed):
        await client.validate(made.token)
    assert stats(client).is_open is False
    assert following() == []
    async with asyncio.timeout(2):
        await plain.revoke(token=made.token, wait_for_caches=True)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_closing_a_client_that_never_asked(kind: Kind, app: App) -> None:
    """A client that was not used follows nothing, and is closed at once."""
    async with near(kind, app.address, opens=False):
        assert following() == []
    async with near(kind, app.address, opens=False) as client:
        await client.authority()
        assert following() == []


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_forgotten_client_ends_its_following(kind: Kind, app: App) -> None:
    """A client that nobody refers to any more is collected, and its thread or task ends; its lease is released."""
    client = Either(kind, app.address, near_cache=True)
    await opened(client)
    assert len(following()) == 1
    del client
    gc.collect()
    await until(lambda: following() == [])
    await until(lambda: not app.authority.parts.caches.may_answer())


async def test_closing_is_cancellable(app: App) -> None:
    """A caller that is cancelled while it closes a client is cancelled, and the client is closed all the same."""
    async with near(AsyncClient, app.address) as client:
        task = asyncio.ensure_future(client.client.close())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stats(client).is_open is False
    assert following() == []


def test_a_client_outlives_no_loop(tmp_path: Path) -> None:
    """After its loop has ended an AsyncClient answers nothing from memory once it is closed."""
    client: AsyncClient | None = None

    async def use() -> str:
        nonlocal client
        async with serving(config_for(tmp_path)) as app:
            client = AsyncClient(app.address, near_cache=True)
            made = await client.create(subject="ada")
            await opened(Either.of(client))
            await client.validate(made.token)
            assert (await client.validate(made.token)).valid
            return made.token.reveal()

    async def close_and_ask(token: str) -> None:
        assert client is not None
        await client.close()
        with pytest.raises(ClientClosed):
            await client.validate(token)

    asyncio.run(close_and_ask(asyncio.run(use())))


def following() -> list[str]:
    """The threads and tasks that follow an authority."""
    found = [thread.name for thread in threading.enumerate()]
    found += [task.get_name() for task in asyncio.all_tasks() if not task.done()]
    return [name for name in found if name == "sessiond near cache"]


async def test_a_process_ends_with_an_open_client(app: App) -> None:
    """A process that does not close its client ends at once, without an error."""
    program = (
        "import sys, time\n"
        "from sessiond_client import Client\n"
        "client = Client(sys.argv[1], near_cache=True)\n"
        "client.validate('x')\n"
        "while not client.near_cache.is_open: time.sleep(0.01)\n"
    )
    async with asyncio.timeout(PATIENCE):
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", program, app.address], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")


# Forks


async def test_a_child_process_answers_nothing_from_memory(app: App) -> None:
    """In a child what the parent's cache knows is a ClientForked, whoever held its lock; new clients' caches open."""
    async with asyncio.timeout(60):
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tests.clients.near_forking", app.address],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        *["ClientForked False; own: hit; unused: hit"] * 3,
        "parent: hit 0 0 0",
    ]


# Secrets


@pytest.mark.parametrize("kind", CLIENTS)
async def test_exceptions_show_no_token(kind: Kind, app: App, caplog: pytest.LogCaptureFixture) -> None:
    """No frame, repr or log of a failed question shows its token: wrong, late, unavailable, closed or forked."""
    front = Front(app.address)
    errors: list[BaseException] = []

    async def failing(asking: Either, **question: Any) -> None:
        error = await ending_of(asking, lambda client, **more: client.validate(TOKEN, **question, **more))
        assert isinstance(error, SessiondError)
        errors.append(error)

    with caplog.at_level("DEBUG"):
        async with front.running() as address, near(kind, address, retries=0) as client:
            await failing(client, passive=1)
            await failing(client, client=ClientContext(ip_address="somewhere"))
            front.gate.clear()
            held = asyncio.create_task(failing(client, timeout=1.0))
            await front.until_held()
            await failing(client, timeout=0.3)  # one that waits for it
            await held
            front.gate.set()
            assert TOKEN not in repr(vars(client.client)) + repr(vars(client.client._near))
            front.hides.add("ValidateSession")
            await failing(client)
        await failing(client)
    assert len({type(error) for error in errors}) >= 4
    assert [text for error in errors for text in shown(error)] == []
    assert TOKEN not in caplog.text


async def test_an_age_of_authentication_is_part_of_the_question(client: Either, plain: AsyncClient) -> None:
    """Two questions that differ in the greatest age of an authentication do not share an answer."""
    made = await plain.create(subject="ada")
    ages = [timedelta(hours=1), timedelta(hours=2), None]
    for age in ages:
        await client.validate(made.token, requirements=Requirements(max_authentication_age=age))
    assert stats(client).hits == 0
    for age in ages:
        await client.validate(made.token, requirements=Requirements(max_authentication_age=age))
    assert stats(client).hits == 3


def test_a_token_in_another_form_is_the_same(tmp_path: Path) -> None:
    """`Token` and `str` are one token for the cache, without a trace of either in it."""
    near_cache = Client("127.0.0.1:1", near_cache=True)._near
    assert near_cache is not None
    token = "text-of-a-token"
    call = calls.validate("", Token(token))
    assert near_cache.cache.digest(token) == near_cache.cache.digest(call.request.token)
