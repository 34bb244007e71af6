"""The call StreamValidations: batches of validations on one stream, each request answered as soon as it can be."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import structlog

from sessiond.access.limits import Account, CallLimiter
from sessiond.authority.authority import Authority
from sessiond.authority.question import Question
from sessiond.crypto.tokens import OpenedToken
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, InvalidField, LimitReached, Overloaded, Unavailable
from sessiond.rpc.failures import failure_of
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.service.validation import MAX_BATCH, ValidationService
from sessiond.rpc.status import status_message
from sessiond.rpc.stream_limit import StreamLimit
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["ValidationStreams"]

_log = structlog.get_logger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]

_SLICE, _SHARED_SLICE = 64, 32
"""Requests that are decided without letting other work run; the second while other streams wait. The answers to each
slice leave together."""
_JUDGED = 3
"""As how many requests of a slice one counts that must be judged: judging takes that much longer than repeating an
answer, and refusing a guess does too."""
_GUESSES = (pb.VERDICT_FORGED, pb.VERDICT_MALFORMED)
_GUESS_PAUSE = 0.0001
"""Seconds for which a stream decides nothing after each guess, about four times as long as a refusal takes. So the
guesses of a stream take a fifth of the time at most; honest clients have hardly any."""
_MAX_WAITING = 1_000
"""Requests of one stream that may wait. While there are that many, no further message is read."""
_DATA_SLOTS = 16
"""Requests of one stream whose session data may be in memory at once, from its reading until it is to be sent."""
_PART_BYTES = 128 * 1024
"""A message does not get larger by another answer than this."""
_MAX_UNSENT_BYTES = 1024 * 1024
"""While that many bytes of answers wait to be sent, none are added."""


class ValidationStreams:
    """The call StreamValidations.

    If a caller leaves a message unread for `write_timeout` seconds, its stream ends.
    """

    def __init__(
        self,
        authority: Authority,
        validations: ValidationService,
        write_timeout: float,
        max_streams: int,
        unary_calls: UnaryCalls,
        limiter: CallLimiter,
    ) -> None:
        self._authority = authority
        self._validations = validations
        self._write_timeout = write_timeout
        self._limit = StreamLimit(max_streams, "streams of validations", "server.max_validation_streams")
        self._turns = _Turns(unary_calls)
        self._limiter = limiter

    async def StreamValidations(
        self, batches: AsyncIterator[pb.StreamValidationsRequest], caller: Caller, context: Context
    ) -> None:
        """Answer batches until the caller ends its side, or the authority shuts down."""
        with self._limit.counted(caller.peer):
            stream = _Stream(self._authority, self._validations, caller, self._turns, self._limiter)
            reading = asyncio.create_task(stream.read(batches))
            writing = asyncio.create_task(stream.write(context, self._write_timeout))
            closing = asyncio.create_task(self._authority.reading.until_shutdown())
            try:
                await asyncio.wait((reading, writing, closing), return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()  # raises what is wrong with the caller's messages
                reading.cancel()
                await stream.finish(writing)
                if closing.done():
                    raise Unavailable("the authority is shutting down; repeat what is unanswered")
            finally:
                await stream.end(reading, writing, closing)


class _Stream:
    """One stream: what it has read and not yet answered."""

    def __init__(
        self,
        authority: Authority,
        validations: ValidationService,
        caller: Caller,
        turns: _Turns,
        limiter: CallLimiter,
    ) -> None:
        self._authority = authority
        self._validations = validations
        self._caller = caller
        self._turns = turns
        self._limiter = limiter
        # The stream is under way, so its caller's account stays.
        self._account: Account = limiter.account(caller)
        self._outbox = _Outbox()
        self._waiting: set[asyncio.Task[None]] = set()
        self._unanswered: Counter[int] = Counter()  # the waiting requests of each batch
        self._fewer_wait = asyncio.Event()
        self._guesses = 0  # since the last pause
        self._data_slots = asyncio.Semaphore(_DATA_SLOTS)

    async def read(self, batches: AsyncIterator[pb.StreamValidationsRequest]) -> None:
        """Answer all batches, or begin to. Raise `InvalidField` if the caller breaks the rules of the stream."""
        async for batch in batches:
            number, requests = batch.batch_id, batch.requests
            if len(requests) > MAX_BATCH:
                raise InvalidField("requests", f"has {len(requests)} entries; at most {MAX_BATCH} are allowed")
            if number in self._unanswered:
                raise InvalidField("batch_id", f"{number} is the number of a batch that is not answered yet")
            start = 0
            while start < max(1, len(requests)):
                async with self._turns.next() as size:
                    start = self._answer(number, requests, start, size)
                if self._guesses:
                    pause, self._guesses = self._guesses * _GUESS_PAUSE, 0
                    await asyncio.sleep(pause)
                await self._room()

    async def write(self, context: Context, timeout: float) -> None:
        """Send answers until there will be no more. Raise `Overloaded` if the caller does not read them."""
        while (message := await self._outbox.next()) is not None:
            try:
                # Not `wait_for`: on Python 3.11 it loses a cancellation that arrives when the write has finished.
                async with asyncio.timeout(timeout):
                    await context.write(message)
            except TimeoutError:
                raise Overloaded("the caller did not read its stream of validations in time") from None

    async def finish(self, writing: asyncio.Task[None]) -> None:
        """Wait until everything that was read is answered. Raises what `write` raises."""
        while self._waiting and not writing.done():
            await asyncio.wait((*self._waiting, writing), return_when=asyncio.FIRST_COMPLETED)
        self._outbox.close()
        await writing

    async def end(self, *tasks: asyncio.Task[None]) -> None:
        """End these tasks, and those of the waiting requests."""
        ending = (*tasks, *self._waiting)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    async def _room(self) -> None:
        """Wait until further requests may be read."""
        while len(self._waiting) >= _MAX_WAITING:
            self._fewer_wait.clear()
            await self._fewer_wait.wait()
        await self._outbox.room()

    def _answer(self, batch: int, requests: Sequence[pb.ValidateSessionRequest], start: int, size: int) -> int:
        """Answer a slice of a batch, as far as that is possible without waiting. Return where the next slice starts."""
        answer, answered = pb.StreamValidationsResponse(batch_id=batch), []
        responses, of, left, index = answer.responses, len(requests), size, start
        for index, request in enumerate(requests[start : start + size], start):
            try:
                self._account.take()
                if self._validations.answer_repeated(request, self._caller, responses):
                    answered.append(index)
                    left -= 1
                else:
                    left -= _JUDGED
                    question = self._validations.question(request, self._caller)
                    self._limiter.check(question.call.application)
                    self._limiter.charge(question.call.application)
                    found = self._validations.immediate(request, question)
                    if isinstance(found, pb.ValidateSessionResponse):
                        responses.append(found)
                        answered.append(index)
                        self._guesses += found.verdict in _GUESSES
                    else:
                        self._wait_for(batch, index, question, found)
            except Exception as error:  # noqa: BLE001 - it must not end the stream for the other requests
                del responses[len(answered) :]  # perhaps a part of a response
                left -= isinstance(error, LimitReached)
                _fill_failure(answer.failures.add(), index, error)
            if left <= 0:
                break
        if len(answered) < of:
            answer.indexes.extend(answered)
        if answered or answer.failures or not of:
            self._outbox.put(answer)
        return index + 1

    def _wait_for(self, batch: int, index: int, question: Question, opened: OpenedToken | None) -> None:
        self._unanswered[batch] += 1
        task = asyncio.create_task(self._judge(batch, index, question, opened))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _judge(self, batch: int, index: int, question: Question, opened: OpenedToken | None) -> None:
        answer = pb.StreamValidationsResponse(batch_id=batch)
        try:
            if opened is None:
                await self._authority.reading.wait_for(question.at_least)
            if question.data is None:
                await self._put_response(answer, index, question, opened)
            else:
                async with self._data_slots:
                    await self._put_response(answer, index, question, opened)
                    await self._outbox.room()
        except Exception as error:  # noqa: BLE001 - as in `_answer`
            _fill_failure(answer.failures.add(), index, error)
        self._unanswered[batch] -= 1
        if not self._unanswered[batch]:
            del self._unanswered[batch]
        self._outbox.merge(answer)
        self._fewer_wait.set()

    async def _put_response(
        self, answer: pb.StreamValidationsResponse, index: int, question: Question, opened: OpenedToken | None
    ) -> None:
        validation = self._authority.validation
        if opened is None:
            result = await validation.validate(question)
        else:
            result = await validation.judge(question, opened)
        answer.responses.append(self._validations.response(question.call, result))
        answer.indexes.append(index)


class _Turns:
    """The turns of all streams, so that many of them hold up other calls no longer than one does.

    After each turn they give way to unary calls, so that a call does not have to wait at each of its steps.
    """

    def __init__(self, unary_calls: UnaryCalls) -> None:
        self._unary_calls = unary_calls
        self._turn = asyncio.Lock()
        self._wanting = 0

    @asynccontextmanager
    async def next(self) -> AsyncIterator[int]:
        """Wait for a turn, and let other work run after it. Yields how many requests may be decided."""
        self._wanting += 1
        try:
            async with self._turn:
                begun = self._unary_calls.clock()
                yield _SLICE if self._wanting == 1 else _SHARED_SLICE
                await self._unary_calls.give_way(begun)
        finally:
            self._wanting -= 1


class _Outbox:
    """The messages of one stream that are still to be sent."""

    def __init__(self) -> None:
        self._messages: deque[pb.StreamValidationsResponse] = deque()
        self._open: dict[int, pb.StreamValidationsResponse] = {}  # by batch: the unsent message that takes more answers
        self._bytes = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, message: pb.StreamValidationsResponse) -> None:
        """Add a message."""
        self._messages.append(message)
        self._bytes += message.ByteSize()
        self._filled.set()

    def merge(self, answers: pb.StreamValidationsResponse) -> None:
        """Add answers to an unsent message of the same batch, or as a message of their own. They must have indexes."""
        mine, size = self._open.get(answers.batch_id), answers.ByteSize()
        if mine is None or mine.ByteSize() + size > _PART_BYTES:
            self._open[answers.batch_id] = answers
            self.put(answers)
            return
        mine.MergeFrom(answers)
        self._bytes += size

    async def room(self) -> None:
        """Wait until there is room for more."""
        while self._bytes >= _MAX_UNSENT_BYTES:
            self._room.clear()
            await self._room.wait()

    async def next(self) -> pb.StreamValidationsResponse | None:
        """Take the next message. None: the outbox is closed and empty."""
        while not self._messages:
            if self._closed:
                return None
            self._filled.clear()
            await self._filled.wait()
        message = self._messages.popleft()
        if self._open.get(message.batch_id) is message:
            del self._open[message.batch_id]
        self._bytes -= message.ByteSize()
        self._room.set()
        return message

    def close(self) -> None:
        """Say that nothing will be added."""
        self._closed = True
        self._filled.set()


def _fill_failure(failure: pb.ValidationFailure, index: int, error: Exception) -> None:
    status = status_message(error) if isinstance(error, AuthorityError) else failure_of("StreamValidations", error)
    failure.index, failure.code, failure.message = index, status.code, status.message
    failure.details.extend(status.details)
