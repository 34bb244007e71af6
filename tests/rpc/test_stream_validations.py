"""A stream of validations: each request is answered once, as ValidateSession would, and none holds up another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

from sessiond.app import App
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.service.validation_stream import _GUESS_PAUSE, _Turns
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import MINUTE, authority, create, loose, validate
from tests.rpc.refusals import refusal_of
from tests.support.clock import ManualClock
from tests.support.held import held, until
from tests.support.server import AsyncStub, config_for, serving, stub_for
from tests.support.tokens import at_revision, revision_in
from tests.support.validation_streams import Batches, batches

PADDING = {"padding": bytes(60_000)}


def verdicts(answers: list[Any]) -> list[str]:
    """Return the verdict of each answer, or the code of its failure."""
    return [
        code_pb2.Code.Name(answer.code)
        if isinstance(answer, pb.ValidationFailure)
        else pb.Verdict.Name(answer.verdict).removeprefix("VERDICT_")
        for answer in answers
    ]


def fields_of(failure: pb.ValidationFailure) -> list[str]:
    """Return the fields that a failure names."""
    request = error_details_pb2.BadRequest()
    assert failure.details[0].Unpack(request)
    return [violation.field for violation in request.field_violations]


def tasks_of(owner: str) -> int:
    """Return how many tasks in this process run a method of the authority's class of this name."""
    return sum(task.get_coro().__qualname__.startswith(owner) for task in asyncio.all_tasks())  # type: ignore[union-attr]  # a coroutine has a name


def open_streams() -> int:
    """Return how many streams the authority serves."""
    return tasks_of("_Stream.write")


async def tokens_of(stub: AsyncStub, count: int, **fields: Any) -> list[str]:
    """Open sessions, and return their tokens."""
    return [(await create(stub, f"user-{number}", **fields)).token for number in range(count)]


# Answers


async def test_a_batch_is_answered_in_order(stub: AsyncStub) -> None:
    """If nothing has to wait, a batch is answered by one message, whose responses are in the order of the requests."""
    tokens = await tokens_of(stub, 20)
    async with batches(stub) as stream:
        answers = await stream.ask(7, *({"token": token} for token in tokens))
        assert [answer.session.subject for answer in answers] == [f"user-{number}" for number in range(20)]
        assert len(stream.messages) == 1
        assert not stream.messages[0].indexes


REQUESTS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "with a CSRF token": {"with_csrf_token": True},
    "with data": {"data": {}},
    "with a client": {"client": {"ip_address": "192.0.2.7", "user_agent": "x"}},
    "passive": {"passive": True},
    "requirements": {"requirements": {"min_level": 3, "csrf": {"csrf_token": "x"}}},
    "an unknown application": {"application": "shopp"},
    "a bad address": {"client": {"ip_address": "nowhere"}},
    "a bad key": {"data": {"keys": ["a\0b"]}},
    "a damaged consistency token": {"at_least": "x"},
    "no token": {"token": ""},
    "malformed": {"token": "x"},
    "forged": {"token": "A" * 70},
}


async def test_every_answer_is_that_of_a_unary_call(stub: AsyncStub) -> None:
    """Whatever a request asks, its answer on a stream equals the response to ValidateSession, or the error of it."""
    own = await create(stub, data={"cart": b"3 apples"})
    requests = [loose.ValidateSessionRequest(**({"token": own.token} | fields)) for fields in REQUESTS.values()]
    await asyncio.gather(*(stub.ValidateSession(request) for request in requests), return_exceptions=True)
    async with batches(stub) as stream:  # everything that there is to record has been recorded
        answers = await stream.ask(1, *requests)
    assert {"VALID", "INSUFFICIENT", "MALFORMED", "FORGED", "INVALID_ARGUMENT"} == set(verdicts(answers))
    for name, request, answer in zip(REQUESTS, requests, answers, strict=True):
        if isinstance(answer, pb.ValidationFailure):
            refused = await refusal_of(stub.ValidateSession(request))
            assert (refused.code.value[0], refused.message) == (answer.code, answer.message), name
            assert fields_of(answer) == refused.fields, name
        else:
            assert answer == await stub.ValidateSession(request), name


async def test_a_wrong_request_fails_alone(stub: AsyncStub) -> None:
    """A wrong request gets a failure that names its field; the other requests of the batch and the stream go on."""
    (token,) = await tokens_of(stub, 1)
    async with batches(stub) as stream:
        good, wrong = {"token": token}, {"token": token, "application": "a\0b"}
        assert verdicts(await stream.ask(1, good, wrong, good)) == ["VALID", "INVALID_ARGUMENT", "VALID"]
        assert verdicts(await stream.ask(2, good)) == ["VALID"]


async def test_an_empty_batch_is_answered(stub: AsyncStub) -> None:
    """A batch without requests is answered by a message without responses."""
    async with batches(stub) as stream:
        await stream.send(9)
        assert await stream.read() == pb.StreamValidationsResponse(batch_id=9)


async def test_a_thousand_requests_in_a_batch(stub: AsyncStub) -> None:
    """A batch may have a thousand requests, each of which is answered once."""
    tokens = await tokens_of(stub, 4)
    async with batches(stub) as stream:
        answers = await stream.ask(1, *({"token": tokens[number % 4]} for number in range(1_000)))
        assert [answer.session.subject for answer in answers] == [f"user-{number % 4}" for number in range(1_000)]


# Waiting


async def test_a_slow_request_delays_no_other(app: App, stub: AsyncStub) -> None:
    """While one request of a batch waits for the store, the rest of its batch and later batches are answered."""
    slow, fast = await tokens_of(stub, 2)
    async with batches(stub) as stream:
        async with held(app) as waiting:
            await stream.send(1, {"token": fast}, {"token": slow, "data": {}}, {"token": fast})
            await waiting(1)
            assert verdicts(await stream.until((1, 0), (1, 2))) == ["VALID", "VALID"]
            assert verdicts(await stream.ask(2, {"token": fast})) == ["VALID"]
            assert (1, 1) not in stream.answers
        (late,) = await stream.until((1, 1))
        assert late.session.subject == "user-0"


async def test_each_request_has_its_own_state_to_wait_for(stub: AsyncStub) -> None:
    """A consistency token that the log does not have is a failure of its request only, and so is a known one."""
    token, known = (await create(stub)).token, await create(stub)
    unknown = at_revision(known.consistency_token, revision_in(known) + 1_000)
    async with batches(stub) as stream:
        wanted = (unknown, known.consistency_token, "")
        answers = await stream.ask(1, *({"token": token, "at_least": at_least} for at_least in wanted))
        assert verdicts(answers) == ["OUT_OF_RANGE", "VALID", "VALID"]


@pytest.mark.parametrize(("waiting", "is_read"), [(999, True), (1_000, False)])
async def test_waiting_requests_are_bounded(app: App, stub: AsyncStub, waiting: int, is_read: bool) -> None:
    """While a thousand requests of a stream wait, it reads no further batch; then it goes on, and nothing is lost."""
    (token,) = await tokens_of(stub, 1)
    async with batches(stub) as stream, batches(stub) as other:
        async with held(app):
            await stream.send(1, *([{"token": token, "data": {}}] * waiting))
            await until(lambda: tasks_of("_Stream._judge") == waiting)
            await stream.send(2, {"token": "x"})
            reading = asyncio.create_task(stream.read())
            if is_read:
                await reading
            for batch in range(20):  # another stream is served all the while
                await other.ask(batch, {"token": "x"})
            assert reading.done() is is_read
        await reading
        answers = await stream.until((2, 0), *((1, index) for index in range(waiting)))
        assert verdicts(answers) == ["MALFORMED", *["VALID"] * waiting]


async def test_data_of_many_sessions_arrives_in_parts(stub: AsyncStub) -> None:
    """A batch whose session data is far larger than a message is answered completely, in messages of a bounded size."""
    tokens = await tokens_of(stub, 100, data=PADDING)
    async with batches(stub) as stream:
        answers = await stream.ask(1, *({"token": token, "data": {}} for token in tokens))
        assert [answer.session.subject for answer in answers] == [f"user-{number}" for number in range(100)]
        assert all(answer.data.values == PADDING for answer in answers)
        assert max(message.ByteSize() for message in stream.messages) < 256 * 1024


async def test_streams_take_turns() -> None:
    """Other work runs between two turns; a stream decides less in its turn while others wait for theirs."""
    turns, order = _Turns(UnaryCalls()), list[str]()

    async def stream(name: str) -> None:
        for _ in range(3):
            async with turns.next() as size:
                order.append(f"{name} {size}")

    async def other() -> None:
        while sum(one != "other" for one in order) < 9:
            order.append("other")
            await asyncio.sleep(0)

    await asyncio.gather(stream("alone"))
    assert order == ["alone 64"] * 3
    order.clear()
    await asyncio.gather(other(), *(stream(str(number)) for number in range(3)))
    decided = [index for index, one in enumerate(order) if one != "other"]
    assert all(later - earlier > 1 for earlier, later in pairwise(decided))
    assert [order[index] for index in decided[:6]] == ["0 64", *(f"{number % 3} 32" for number in range(1, 6))]


async def test_forged_tokens_make_slices_smaller(stub: AsyncStub) -> None:
    """A slice has fewer forged tokens than answers that are repeated: refusing one takes longer."""
    (token,) = await tokens_of(stub, 1)
    async with batches(stub) as stream:
        await stream.ask(1, {"token": token})
        counts = []
        for number, one in ((2, token), (3, token[:-8] + "AAAAAAAA")):
            stream.messages.clear()
            await stream.ask(number, *({"token": one} for _ in range(128)))
            counts.append([len(message.indexes) for message in stream.messages])
        assert counts == [[64, 64], [22] * 5 + [18]]


async def test_guesses_slow_down_their_own_stream(stub: AsyncStub) -> None:
    """A stream pauses after each forged token, so a thousand of them take as long as the pauses; others wait less."""
    (token,) = await tokens_of(stub, 1)
    loop, forged = asyncio.get_running_loop(), token[:-8] + "AAAAAAAA"
    async with batches(stub) as guessing, batches(stub) as honest:
        await honest.ask(0, {"token": token})
        begun = loop.time()
        async with asyncio.TaskGroup() as group:
            deciding = group.create_task(guessing.ask(1, *({"token": forged} for _ in range(1_000))))
            for number in range(1, 21):
                assert verdicts(await honest.ask(number, {"token": token})) == ["VALID"]
            assert not deciding.done()
        assert set(verdicts(deciding.result())) == {"FORGED"}
        assert loop.time() - begun > 0.8 * 1_000 * _GUESS_PAUSE  # timers are rounded to milliseconds


# Rules, limits and ends


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (loose.StreamValidationsRequest(batch_id=2, requests=[{"token": "x"}] * 1_001), "requests"),
        (loose.StreamValidationsRequest(batch_id=1, requests=[{"token": "x"}]), "batch_id"),
    ],
    ids=["too many requests", "a number in use"],
)
async def test_a_caller_that_breaks_the_rules(app: App, stub: AsyncStub, wrong: Any, field: str) -> None:
    """A batch that is too large, or has the number of an unanswered one, ends the stream with INVALID_ARGUMENT."""
    (token,) = await tokens_of(stub, 1)
    async with batches(stub) as stream, held(app) as waiting:
        await stream.send(1, {"token": token, "data": {}})
        await waiting(1)
        await stream.call.write(wrong)
        error = await stream.error()
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert (error.details() or "").startswith(f"{field}: ")


async def test_a_number_may_be_used_again(stub: AsyncStub) -> None:
    """Once a batch is answered, its number may be used for another one."""
    (token,) = await tokens_of(stub, 1, data={"cart": b"3 apples"})
    async with batches(stub) as stream:
        for _ in range(3):
            stream.answers.clear()
            assert verdicts(await stream.ask(1, {"token": token, "data": {}})) == ["VALID"]


async def test_a_caller_may_end_its_side(app: App, stub: AsyncStub) -> None:
    """After the caller has ended its side, what it sent is answered, and the stream ends with OK."""
    (token,) = await tokens_of(stub, 1)
    async with batches(stub) as stream:
        async with held(app) as waiting:
            await stream.send(1, {"token": token, "data": {}})
            await waiting(1)
            await stream.call.done_writing()
        assert verdicts(await stream.until((1, 0))) == ["VALID"]
        assert await stream.read() is None
        assert await stream.call.code() == grpc.StatusCode.OK


async def test_a_shutdown_answers_what_has_begun(tmp_path: Path, clock: ManualClock) -> None:
    """When the authority stops, requests that wait are answered first; the stream then ends with UNAVAILABLE."""
    async with serving(config_for(tmp_path), clock) as app, stub_for(app.address) as stub, batches(stub) as stream:
        (token,) = await tokens_of(stub, 1)
        async with held(app) as waiting:
            await stream.send(1, {"token": token, "data": {}})
            await waiting(1)
            stopping = asyncio.create_task(app.stop())
            await asyncio.sleep(0)
        assert verdicts(await stream.until((1, 0))) == ["VALID"]
        assert (await stream.error()).code() == grpc.StatusCode.UNAVAILABLE
        await stopping
        app.stop = _stopped  # type: ignore[method-assign]  # it has stopped already


async def _stopped() -> None: ...


async def test_streams_are_bounded(tmp_path: Path, clock: ManualClock) -> None:
    """One connection may have half of the streams; one more is refused with the remedy until one ends."""
    config = config_for(tmp_path, "[server]\nmax_validation_streams = 4\n")
    async with serving(config, clock) as app, stub_for(app.address) as one, stub_for(app.address) as two:
        streams = [Batches(stub) for stub in (one, one, two, two)]
        for stream in streams:
            await stream.ask(1, {"token": "x"})
        for stub in (one, two):
            error = await Batches(stub).error()
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "server.max_validation_streams" in (error.details() or "")
        await streams[0].call.done_writing()
        assert await streams[0].read() is None
        assert verdicts(await Batches(one).ask(1, {"token": "x"})) == ["MALFORMED"]


async def test_a_caller_that_does_not_read_is_ended(tmp_path: Path) -> None:
    """A caller that asks for much and reads nothing is cut off after the write timeout, with what waits bounded."""
    config = config_for(tmp_path, '[server]\nsubscriber_write_timeout = "500ms"\n')
    async with serving(config, ManualClock()) as app, stub_for(app.address) as stub, stub_for(app.address) as other:
        tokens = await tokens_of(stub, 50, data=PADDING)
        async with batches(stub) as stream, batches(other) as honest:
            for batch in range(8):  # 24 MB of answers
                await stream.send(batch, *({"token": token, "data": {}} for token in tokens))
            assert verdicts(await honest.ask(1, {"token": tokens[0]})) == ["VALID"]
            assert open_streams() == 2
            await until(lambda: open_streams() == 1)
            error = await stream.error()
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "did not read" in (error.details() or "")
            assert len(stream.answers) < 400
            assert verdicts(await honest.ask(2, {"token": tokens[0]})) == ["VALID"]


async def test_a_caller_that_hangs_up_leaves_nothing(app: App, stub: AsyncStub) -> None:
    """When a caller hangs up, its waiting requests are dropped, and its place is free for another stream."""
    (token,) = await tokens_of(stub, 1)
    async with held(app) as waiting:
        async with batches(stub) as stream:
            await stream.send(1, *([{"token": token, "data": {}}] * 30))
            await waiting(16)  # more data at once would take too much memory
            assert open_streams() == 1
        await until(lambda: not tasks_of("_Stream."))


async def test_activity_counts(tmp_path: Path, clock: ManualClock) -> None:
    """A validation on a stream is activity: it keeps a session alive past its idle timeout."""
    async with authority(tmp_path, clock) as (_, stub), batches(stub) as stream:
        own = await create(stub)
        for batch in range(3):
            clock.advance(20 * MINUTE)
            assert verdicts(await stream.ask(batch, {"token": own.token})) == ["VALID"]
        clock.advance(31 * MINUTE)
        assert (await validate(stub, own.token)).verdict == pb.VERDICT_EXPIRED_IDLE
