"""Validations that are under way at the same time share a stream, and to its caller each is a call like any other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from sessiond.access.callers import Callers
from sessiond.app import App, services_of
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.server import RpcServer
from sessiond.rpc.service.validation_stream import ValidationStreams
from sessiond.rpc.stream_limit import StreamBounds
from sessiond_client import (
    AsyncClient,
    ClientClosed,
    ClientContext,
    DeadlineExceeded,
    InvalidArgument,
    Unavailable,
    Validation,
    calls,
    coalescing,
)
from sessiond_client.coalescing import Questions
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.clients.relay import Counting, Dropping
from tests.support.clock import ManualClock
from tests.support.held import held, until
from tests.support.server import config_for, serving, stub_for
from tests.support.validation_streams import batches

MANY = 60


def streams() -> int:
    """How many streams of validations the authority in this process serves."""
    return sum(task.get_coro().__qualname__ == "_Stream.write" for task in asyncio.all_tasks())  # type: ignore[union-attr]  # a coroutine has a name


async def opened(client: AsyncClient, count: int = MANY) -> list[str]:
    """The tokens of that many sessions, of the subjects `user-0` and so on."""
    created = await asyncio.gather(*(client.create(subject=f"user-{number}") for number in range(count)))
    return [one.token.reveal() for one in created]


async def all_at_once(asking: AsyncClient, tokens: Sequence[str], **more: Any) -> list[Validation]:
    """Validate all of them at the same time."""
    return await asyncio.gather(*(asking.validate(token, **more) for token in tokens))


def subjects(answers: Sequence[Validation]) -> list[str]:
    """The subjects in answers."""
    return [answer.session.subject if answer.session else "" for answer in answers]


@pytest.fixture
async def client(app: App) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(app.address) as client:
        yield client


# Which way


@asynccontextmanager
async def counted(app: App, **options: Any) -> AsyncIterator[tuple[AsyncClient, Callable[[], int]]]:
    """A client, and a function that returns how many gRPC calls it has made since it was last asked."""
    relay = Counting(app.address)
    seen = 0

    def calls_made() -> int:
        nonlocal seen
        made, seen = relay.calls - seen, relay.calls
        return made

    async with relay.running() as address, AsyncClient(address, **options) as client:
        yield client, calls_made


async def test_a_lone_validation_is_a_call_of_its_own(app: App) -> None:
    """Validations one after the other are unary calls, and no stream is opened for them."""
    async with counted(app) as (client, calls_made):
        tokens = await opened(client, 5)
        calls_made()
        for number, token in enumerate(tokens):
            assert subjects([await client.validate(token)]) == [f"user-{number}"]
        assert calls_made() == 5
        assert streams() == 0


async def test_many_validations_share_a_stream(app: App) -> None:
    """Of many validations at the same time only the first few are calls of their own; the rest are on one stream."""
    async with counted(app) as (client, calls_made):
        tokens = await opened(client)
        calls_made()
        for _ in range(3):
            assert subjects(await all_at_once(client, tokens)) == [f"user-{number}" for number in range(MANY)]
        assert calls_made() <= 3 * coalescing._FEW + 1
        assert streams() == 1


async def test_a_client_may_be_told_not_to(app: App) -> None:
    """With `coalesce=False` every validation is a call of its own."""
    async with counted(app, coalesce=False) as (client, calls_made):
        tokens = await opened(client)
        calls_made()
        await all_at_once(client, tokens)
        assert calls_made() == MANY


async def test_other_calls_are_never_on_the_stream(client: AsyncClient) -> None:
    """Calls other than `validate` are made as before while the stream is in use."""
    tokens = await opened(client)
    validations = asyncio.gather(*(client.validate(token) for token in tokens))
    data = await asyncio.gather(*(client.get_data(token=token) for token in tokens))
    assert all(one.verdict == "VALID" for one in data)
    assert subjects(await validations) == [f"user-{number}" for number in range(MANY)]


async def test_the_first_question_is_not_lost(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that is queued before the stream has begun to send is sent, although no other one follows it."""
    (token,) = await opened(client, 1)
    monkeypatch.setattr(coalescing, "_FEW", 1)
    assert subjects([await client.validate(token)]) == ["user-0"]
    assert streams() == 1


async def test_the_stream_has_a_connection_of_its_own(app: App) -> None:
    """Calls, events and validations each have their own connection, so that open streams never starve a call."""
    relay = Counting(app.address)
    async with relay.running() as address, AsyncClient(address) as client, client.events(start="earliest") as events:
        tokens = await opened(client)
        assert (await anext(events)).subject.startswith("user-")
        assert relay.connections == 2
        await all_at_once(client, tokens)
        assert relay.connections == 3


async def test_a_large_question_is_a_call_of_its_own(app: App) -> None:
    """A question that would delay the others is not put on the stream."""
    async with counted(app) as (client, calls_made):
        tokens = await opened(client)
        calls_made()
        agent = ClientContext(user_agent="x" * 20_000)
        answers = await asyncio.gather(all_at_once(client, tokens), all_at_once(client, tokens[:10], client=agent))
        assert subjects(answers[0] + answers[1]) == [f"user-{number}" for number in [*range(MANY), *range(10)]]
        assert calls_made() >= 10


async def test_an_unused_stream_is_ended(app: App, client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that nobody uses gives its place back, and the next burst opens another one."""
    monkeypatch.setattr(coalescing, "_IDLE", 0.05)
    tokens = await opened(client)
    for _ in range(2):
        await all_at_once(client, tokens)
        assert streams() == 1
        await until(lambda: streams() == 0)


# Each for itself


async def test_a_wrong_question_fails_alone(client: AsyncClient) -> None:
    """A wrong question raises what a unary call would; the others beside it are answered."""
    tokens = await opened(client)
    wrong = [client.validate(token, client=ClientContext(ip_address="nowhere")) for token in tokens[:5]]
    answers, refused = await asyncio.gather(all_at_once(client, tokens), asyncio.gather(*wrong, return_exceptions=True))
    assert subjects(answers) == [f"user-{number}" for number in range(MANY)]
    with pytest.raises(InvalidArgument) as alone:
        await client.validate(tokens[0], client=ClientContext(ip_address="nowhere"))
    for error in refused:
        assert isinstance(error, InvalidArgument)
        assert (error.message, error.violations) == (alone.value.message, alone.value.violations)
        assert error.violations[0].field == "client.ip_address"
    assert len({id(error) for error in refused}) == 5


async def test_a_slow_question_delays_no_other(app: App, client: AsyncClient) -> None:
    """While some questions wait for the store, those beside and after them are answered; then they are too."""
    tokens = await opened(client)
    await all_at_once(client, tokens)
    async with held(app) as waiting:
        slow = [asyncio.create_task(client.validate(token, data=True)) for token in tokens[:5]]
        fast = asyncio.create_task(all_at_once(client, tokens))
        assert subjects(await fast) == [f"user-{number}" for number in range(MANY)]
        await waiting(5)
        assert subjects(await all_at_once(client, tokens)) == [f"user-{number}" for number in range(MANY)]
        assert not any(task.done() for task in slow)
    assert subjects(await asyncio.gather(*slow)) == [f"user-{number}" for number in range(5)]


async def test_each_has_its_own_deadline(app: App, client: AsyncClient) -> None:
    """A question whose time is up raises, while those beside it with more time wait on and are answered."""
    tokens = await opened(client)
    await all_at_once(client, tokens)
    async with held(app):
        patient = [asyncio.create_task(client.validate(token, data=True, timeout=30)) for token in tokens[:5]]
        hasty = [asyncio.create_task(client.validate(token, data=True, timeout=0.1)) for token in tokens[5:10]]
        for error in await asyncio.gather(*hasty, return_exceptions=True):
            assert isinstance(error, DeadlineExceeded)
            assert error.status == "DEADLINE_EXCEEDED"
        assert not any(task.done() for task in patient)
    assert subjects(await asyncio.gather(*patient)) == [f"user-{number}" for number in range(5)]
    assert subjects(await all_at_once(client, tokens)) == [f"user-{number}" for number in range(MANY)]


async def test_one_may_be_cancelled(app: App, client: AsyncClient) -> None:
    """A cancelled validation ends at once; its late answer is dropped, and goes to no other."""
    tokens = await opened(client)
    await all_at_once(client, tokens)
    async with held(app) as waiting:
        tasks = [asyncio.create_task(client.validate(token, data=True)) for token in tokens[:10]]
        await waiting(10)
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks[::2], return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError) for error in ended)
    assert subjects(await asyncio.gather(*tasks[1::2])) == [f"user-{number}" for number in range(1, 10, 2)]
    assert streams() == 1


async def test_calls_under_way_end_with_the_client(app: App) -> None:
    """When the client is closed, validations on the stream raise `ClientClosed`, and so do later ones."""
    client = AsyncClient(app.address)
    tokens = await opened(client)
    async with held(app):
        tasks = [asyncio.create_task(client.validate(token, data=True)) for token in tokens]
        await until(lambda: streams() == 1)
        await client.close()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, ClientClosed) for error in ended)
    with pytest.raises(ClientClosed):
        await client.validate(tokens[0])
    await until(lambda: streams() == 0)


# Servers


async def test_a_restart_is_not_noticed(tmp_path: Path) -> None:
    """Validations that are under way when the authority restarts are repeated on a new stream, and all are answered."""
    config = config_for(tmp_path)
    answers: list[list[Validation]] = []

    async def use(client: AsyncClient, tokens: list[str], rounds: int) -> None:
        for _ in range(rounds):
            answers.append(await all_at_once(client, tokens, timeout=20))

    async with serving(config) as app:
        address = app.address
        client = AsyncClient(address)
        tokens = await opened(client)
        using = asyncio.create_task(use(client, tokens, 30))
        await until(lambda: len(answers) > 3)
    assert not using.done()
    async with serving(replace(config, listen=address)):
        await using
        await use(client, tokens, 3)
        assert streams() == 1
        await client.close()
    for answer in answers:
        assert subjects(answer) == [f"user-{number}" for number in range(MANY)]


async def test_without_retries_a_broken_stream_is_unavailable(app: App) -> None:
    """With `retries=0` the loss of the connection is `Unavailable` for each validation under way, as for a call."""
    relay = Dropping(app.address)
    async with AsyncClient(app.address) as other:
        tokens = await opened(other)
    async with relay.running() as address, AsyncClient(address, retries=0, timeout=30) as client:
        async with held(app) as waiting:
            tasks = [asyncio.create_task(client.validate(token, data=True)) for token in tokens]
            await waiting(16 + coalescing._FEW - 1)  # more data at once would take too much memory
            relay.dropped.set()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in ended} == {Unavailable}
        assert len({id(error) for error in ended}) == MANY


async def test_an_older_server_gets_unary_calls(app: App) -> None:
    """Against a server without the RPC all validations are answered by unary calls, and it is tried only once."""
    services = services_of(app.authority, StreamBounds(), UnaryCalls())
    older = [service for service in services if not isinstance(service, ValidationStreams)]
    server = RpcServer(older, Callers())
    relay = Counting(await server.start("127.0.0.1:0"))
    async with relay.running() as address, AsyncClient(address) as client:
        tokens = await opened(client)
        for extra in (1, 0, 0):
            before = relay.calls
            assert subjects(await all_at_once(client, tokens)) == [f"user-{number}" for number in range(MANY)]
            assert relay.calls - before == MANY + extra
    await server.stop(0)


async def test_a_server_without_a_free_place_gets_unary_calls(tmp_path: Path, clock: ManualClock) -> None:
    """If the authority serves no further stream, validations are unary calls; a stream is tried again after a while."""
    config = config_for(tmp_path, "[server]\nmax_validation_streams = 1\n")
    async with serving(config, clock) as app, stub_for(app.address) as stub, AsyncClient(app.address) as client:
        tokens = await opened(client)
        async with batches(stub) as other:
            await other.ask(1, {"token": "x"})
            for _ in range(2):
                assert subjects(await all_at_once(client, tokens)) == [f"user-{number}" for number in range(MANY)]
                assert streams() == 1
        await until(lambda: streams() == 0)
        coalescer = client._coalescer
        assert coalescer is not None
        coalescer._not_before -= 1.0  # the pause is over
        assert subjects(await all_at_once(client, tokens)) == [f"user-{number}" for number in range(MANY)]
        assert streams() == 1


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    """Sees unary calls."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen.append(bytes(details.method).decode().rpartition("/")[2])
        return await continuation(details, request)


class _Streams(grpc.aio.StreamStreamClientInterceptor):
    """Sees streams."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        self.seen.append("StreamValidations")
        return await continuation(details, requests)


async def test_an_interceptor_sees_everything(app: App) -> None:
    """With an interceptor for unary calls, it sees every validation; one for streams sees the stream."""
    interceptors: list[Any] = [_Unary(), _Streams()]
    for interceptor in interceptors:
        async with AsyncClient(app.address, interceptors=[interceptor]) as client:
            tokens = await opened(client)
            assert subjects(await all_at_once(client, tokens)) == [f"user-{number}" for number in range(MANY)]
            is_unary = isinstance(interceptor, _Unary)
            assert interceptor.seen.count("StreamValidations") == (0 if is_unary else 1)
            assert interceptor.seen.count("ValidateSession") == (MANY if is_unary else 0)


# Whose answer


async def test_a_storm_mixes_nothing_up(app: App, client: AsyncClient) -> None:
    """In a storm of quick, slow, wrong and cancelled validations each caller gets the answer to its own question."""
    tokens = await opened(client)
    chance = random.Random(7)
    faults: list[str] = []

    async def one(number: int) -> None:
        more: dict[str, Any] = chance.choice([{}, {}, {}, {"data": True}, {"passive": True}, {"with_csrf_token": True}])
        if chance.random() < 0.1:
            more["client"] = ClientContext(ip_address="nowhere")
        try:
            async with asyncio.timeout(chance.choice([None, None, None, 0.0005, 0.002])):
                answer = await client.validate(tokens[number], **more)
        except (TimeoutError, InvalidArgument):
            return
        if answer.session is None or answer.session.subject != f"user-{number}":
            faults.append(f"user-{number} got {answer.session}")
        if (answer.data is not None, answer.csrf_token is not None) != ("data" in more, "with_csrf_token" in more):
            faults.append(f"user-{number} got the answer to another question")

    async def worker() -> None:
        for _ in range(60):
            await one(chance.randrange(MANY))

    await asyncio.gather(*(worker() for _ in range(40)))
    assert not faults
    assert streams() == 1


def _asked(questions: Questions, names: Sequence[str]) -> dict[str, asyncio.Future[Any]]:
    """Queue questions with these tokens; the futures of their replies."""
    loop = asyncio.get_running_loop()
    replies = {name: loop.create_future() for name in names}
    for name, reply in replies.items():
        request = calls.validate("shop", name).request
        questions.queue.append((reply, request, request.ByteSize(), 0.0))
    return replies


def _answers(batch: pb.StreamValidationsRequest, chance: random.Random) -> list[pb.StreamValidationsResponse]:
    """The answers to a batch, each with its question's token, in parts of random sizes and order."""
    numbers = list(range(len(batch.requests)))
    if chance.random() < 0.2:
        chance.shuffle(numbers)
        return [_part(batch, sorted(numbers), indexed=False)]
    chance.shuffle(numbers)
    cuts = sorted(chance.sample(range(1, len(numbers)), min(3, len(numbers) - 1)))
    bounds = zip([0, *cuts], [*cuts, len(numbers)], strict=True)
    return [_part(batch, numbers[begin:end], indexed=True) for begin, end in bounds]


def _part(batch: pb.StreamValidationsRequest, numbers: list[int], *, indexed: bool) -> pb.StreamValidationsResponse:
    part = pb.StreamValidationsResponse(batch_id=batch.batch_id, indexes=numbers if indexed else [])
    for number in numbers:
        part.responses.add(consistency_token=batch.requests[number].token)
    return part


@pytest.mark.parametrize("broken", [False, True])
async def test_answers_in_any_order(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    """However answers are divided and ordered, each goes to its question; if indexes were ignored, this would fail."""
    if broken:
        own = coalescing._reply_to
        monkeypatch.setattr(
            coalescing, "_reply_to", lambda batch, _: own(batch, next(i for i, q in enumerate(batch) if q))
        )
    chance, questions = random.Random(11), Questions()
    replies: dict[str, asyncio.Future[Any]] = {}
    pending: list[pb.StreamValidationsResponse] = []
    for number in range(200):
        replies |= _asked(questions, [f"{number}-{index}" for index in range(chance.randrange(2, 30))])
        while (batch := questions.take()) is not None:
            pending += _answers(batch, chance)
        chance.shuffle(pending)
        while len(pending) > 20:
            questions.answer(pending.pop())
    while pending:
        questions.answer(pending.pop())
    assert not questions
    wrong = [name for name, reply in replies.items() if reply.result().consistency_token != name]
    assert bool(wrong) is broken


@pytest.mark.parametrize(
    "wrong",
    [
        pb.StreamValidationsResponse(batch_id=1, responses=[pb.ValidateSessionResponse()]),
        pb.StreamValidationsResponse(batch_id=1, responses=[pb.ValidateSessionResponse()] * 2, indexes=[0]),
        pb.StreamValidationsResponse(batch_id=1, responses=[pb.ValidateSessionResponse()], indexes=[3]),
        pb.StreamValidationsResponse(batch_id=1, responses=[pb.ValidateSessionResponse()] * 2, indexes=[1, 1]),
        pb.StreamValidationsResponse(batch_id=2, responses=[pb.ValidateSessionResponse()], indexes=[0]),
        pb.StreamValidationsResponse(batch_id=1, failures=[pb.ValidationFailure(index=3)]),
    ],
    ids=["too few", "too few indexes", "no such index", "twice", "no such batch", "a failure of nothing"],
)
async def test_answers_that_do_not_fit_are_refused(wrong: pb.StreamValidationsResponse) -> None:
    """An answer of which it is not certain whose it is goes to nobody: the client gives the stream up."""
    questions = Questions()
    replies = _asked(questions, ["a", "b", "c"])
    questions.take()
    with pytest.raises(ValueError, match="answer"):
        questions.answer(wrong)
    assert sum(reply.done() for reply in replies.values()) <= 1


async def test_a_batch_is_bounded() -> None:
    """A batch has at most 256 questions and half a MiB; the rest is left for the next one, and nothing is lost."""
    questions = Questions()
    replies = _asked(questions, [f"{number}-{'x' * 3_000}" for number in range(700)])
    sizes = []
    while (batch := questions.take()) is not None:
        assert batch.ByteSize() < 600_000
        sizes.append(len(batch.requests))
    assert max(sizes) <= 256
    assert sum(sizes) == len(replies) == 700
