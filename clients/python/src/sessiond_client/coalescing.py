"""Puts validations that are under way at the same time into batches on one stream (StreamValidations).

A unary call costs a Python client several hundred microseconds, a question in a batch a tenth of that. Each validation
keeps its own deadline, cancellation and retries: to its caller, a question on the stream is a call like any other.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import grpc.aio

from sessiond_client import forks, reading
from sessiond_client.connection import Channels, closed
from sessiond_client.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    NotServed,
    SessiondError,
    Unavailable,
    from_failure,
    from_rpc,
)
from sessiond_client.flow import Send
from sessiond_client.settings import Settings
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["ALONE", "Coalescer", "Questions", "coalescer_of"]

_FEW = 3
"""With fewer validations under way, each is a call of its own, unless the stream is in use anyway."""
_MOST_QUESTIONS = 256
_MOST_BYTES = 512 * 1024
"""How large a batch may get. The authority takes 1,000 questions, and 4 MiB."""
_LARGE = 16 * 1024
"""A question from this size on is a call of its own: it would delay the others."""
_IDLE = 30.0
"""Seconds after which an unused stream is ended: the authority serves a limited number of them."""
_FIRST_BREAK = 1.0
_LONGEST_BREAK = 60.0
"""Seconds for which validations are calls of their own after the authority has refused a stream; they double."""

ALONE: Final = object()
"""The reply to a question that must become a call of its own."""

_Question = tuple[asyncio.Future[Any], Any, int, float]
"""Where the reply to a question goes, its request, the bytes of that, and until when it waits."""


class Questions:
    """The questions of one stream, without I/O: those to be sent, and those that were sent and not answered.

    A reply is a response message or a `SessiondError`.
    """

    def __init__(self) -> None:
        self.queue: deque[_Question] = deque()
        self._sent: dict[int, list[_Question | None]] = {}  # by batch; None: answered
        self._left: dict[int, int] = {}  # how many questions of the batch are not answered
        self._last_batch = 0

    def __bool__(self) -> bool:
        """Whether any question waits for its reply."""
        return bool(self.queue or self._sent)

    def take(self) -> pb.StreamValidationsRequest | None:
        """The next batch: what is queued, as far as it fits. None: nothing is queued."""
        batch: list[_Question | None] = []
        requests, size, queue = [], 0, self.queue
        while queue and len(batch) < _MOST_QUESTIONS and size < _MOST_BYTES:
            question = queue.popleft()
            reply, request, its_size, _ = question
            if not reply.done():  # otherwise its caller was cancelled, or its time is up
                batch.append(question)
                requests.append(request)
                size += its_size
        if not batch:
            return None
        self._last_batch += 1
        self._sent[self._last_batch], self._left[self._last_batch] = batch, len(batch)
        return pb.StreamValidationsRequest(batch_id=self._last_batch, requests=requests)

    def answer(self, message: pb.StreamValidationsResponse) -> None:
        """Pass answers on to their questions. Raises ValueError if it is not certain which ones they are."""
        number, responses, failures = message.batch_id, message.responses, message.failures
        indexes: Sequence[int] = message.indexes or range(len(responses))
        batch = self._sent.get(number, [])
        if len(indexes) != len(responses) or (not message.indexes and responses and len(responses) != len(batch)):
            raise ValueError("the answers do not fit the batch")
        for index, response in zip(indexes, responses, strict=True):
            reply = _reply_to(batch, index)
            if not reply.done():
                reply.set_result(reading.own_copy(response))
        for failure in failures:
            reply = _reply_to(batch, failure.index)
            if not reply.done():
                reply.set_result(from_failure(failure))
        self._left[number] -= len(responses) + len(failures)
        if not self._left[number]:
            del self._sent[number], self._left[number]

    def end(self, reply: Any) -> None:
        """Give every question this reply. Each one gets a copy of its own, because a call completes its exception."""
        for waiting, *_ in self._all():
            if not waiting.done():
                waiting.set_result(copy.copy(reply) if isinstance(reply, SessiondError) else reply)
        self.queue.clear()
        self._sent.clear()
        self._left.clear()

    def expire(self, now: float) -> float | None:
        """End the questions whose time is up. Returns the earliest deadline of the others; None: there are none."""
        earliest: float | None = None
        for reply, _, _, deadline in self._all():
            if reply.done():
                continue
            if deadline <= now:
                reply.set_result(_late())
            elif earliest is None or deadline < earliest:
                earliest = deadline
        return earliest

    def _all(self) -> Iterator[_Question]:
        yield from self.queue
        for batch in self._sent.values():
            yield from (question for question in batch if question is not None)


def _reply_to(batch: list[_Question | None], index: int) -> asyncio.Future[Any]:
    question = batch[index] if index < len(batch) else None
    if question is None:
        raise ValueError("an answer to no question")
    batch[index] = None
    return question[0]


def _late() -> SessiondError:
    return DeadlineExceeded("Deadline Exceeded", status="DEADLINE_EXCEEDED")


class Coalescer:
    """Decides for each validation of a client whether it is a call of its own or a question on the stream.

    `alone` makes a call of its own.
    """

    def __init__(
        self,
        channels: Channels,
        alone: Callable[[Send], Awaitable[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channels = channels
        self._alone = alone
        self._clock = clock
        self._calls = 0  # calls of their own that are under way
        self._stream: _Stream | None = None
        self._not_before = 0.0
        self._break = _FIRST_BREAK

    def send(self, step: Send) -> Awaitable[Any]:
        """The response to a validation, or the `SessiondError` that it ended in; `ALONE`: `send_alone` must make it."""
        now = self._clock()
        reply = self.ask(step.request, step.timeout, now)
        if reply is None:
            return self.send_alone(step)
        step.deadline = now + step.timeout
        return reply

    def ask(self, request: Any, timeout: float, now: float) -> asyncio.Future[Any] | None:
        """Where the reply to a question on the stream goes; None: `send_alone` must make it. See `send`."""
        stream = self._stream
        if self._calls < _FEW - 1 and (stream is None or not stream.questions):
            return None
        size = request.ByteSize()
        if size >= _LARGE or timeout <= 0 or now < self._not_before:
            return None
        if stream is None or stream.ended:
            stream = self._new_stream()
        return stream.reply_to(request, size, now + timeout)

    async def send_alone(self, step: Send) -> Any:
        """The outcome of a validation as a call of its own, within what is left of its time."""
        self._calls += 1
        try:
            if step.deadline is not None:
                step.timeout = max(0.0, step.deadline - self._clock())
            return await self._alone(step)
        finally:
            self._calls -= 1

    def close(self) -> None:
        """End the stream. The calls that wait for it end in `ClientClosed`."""
        if self._stream is not None:
            self._stream.end(closed(during=True))

    def _new_stream(self) -> _Stream:
        self._stream = _Stream(self._channels.for_validations(), self._clock, self._refused, self._served)
        return self._stream

    def _served(self) -> None:
        self._not_before, self._break = 0.0, _FIRST_BREAK

    def _refused(self, error: SessiondError) -> None:
        """Note that the authority serves no stream now; if it is older than the RPC, it never will."""
        if isinstance(error, NotServed):
            self._not_before = float("inf")
            return
        self._not_before = self._clock() + self._break
        self._break = min(_LONGEST_BREAK, 2 * self._break)


class _Stream:
    """One gRPC stream, with a task that sends batches and one that receives answers."""

    def __init__(
        self,
        stub: Any,
        clock: Callable[[], float],
        refused: Callable[[SessiondError], None],
        served: Callable[[], None],
    ) -> None:
        self.questions = Questions()
        self.ended = False
        self._clock = clock
        self._refused = refused
        self._served = served
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._queued = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._call = stub.StreamValidations()
        forks.keep_in_children(self)
        self._tasks = (
            self._loop.create_task(self._send(), name="sessiond validations, sending"),
            self._loop.create_task(self._receive(), name="sessiond validations, receiving"),
        )

    def reply_to(self, request: Any, size: int, deadline: float) -> asyncio.Future[Any]:
        """The reply to one question, of so many bytes."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        queue = self.questions.queue
        if not queue:
            self._queued.set()
        queue.append((reply, request, size, deadline))
        if deadline < self._timer_at:
            self._set_timer(deadline)
        return reply

    def end(self, reply: Any) -> None:
        """End the stream, and give this reply to all of its questions."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self.questions.end(reply)
        self._call.cancel()
        for task in self._tasks:
            task.cancel()

    async def _send(self) -> None:
        """Send what is queued as soon as the previous batch has been handed over."""
        try:
            while True:
                while (batch := self.questions.take()) is not None:
                    await self._call.write(batch)
                if not await self._wait_for_questions():
                    break
            self.ended = True  # by itself, unused
            await self._call.done_writing()
        except Exception:  # noqa: BLE001 - the stream is broken; the receiving task learns why
            self._call.cancel()  # if it is not broken, it is now

    async def _wait_for_questions(self) -> bool:
        """Whether a question was queued before the stream was unused for long."""
        self._queued.clear()
        while True:
            try:
                async with asyncio.timeout(_IDLE):
                    await self._queued.wait()
                return True
            except TimeoutError:
                if not self.questions:
                    return False

    async def _receive(self) -> None:
        """Pass answers on until the stream ends."""
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                self.questions.answer(message)
                self._served()
            self._break_off(Unavailable("the stream of validations ended", status="OK"))
        except grpc.aio.AioRpcError as error:
            self._break_off(from_rpc(error))
        except asyncio.CancelledError:
            self._break_off(Cancelled("the stream of validations was cancelled", status="CANCELLED"))
            raise
        except Exception:  # noqa: BLE001 - a message that makes no sense: what is unanswered is asked again
            self._break_off(InternalError("the stream of validations is broken", status="INTERNAL"))

    def _break_off(self, error: SessiondError) -> None:
        if self.ended:
            return
        if isinstance(error, Unavailable):
            self.end(error)
        else:
            self._refused(error)
            self.end(ALONE)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(at - self._clock(), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        earliest = self.questions.expire(self._clock())
        if earliest is not None:
            self._set_timer(earliest)


def coalescer_of(settings: Settings, channels: Channels, alone: Callable[[Send], Awaitable[Any]]) -> Coalescer | None:
    """The coalescer of a client; None if its validations are all calls of their own.

    An interceptor for unary calls would not see the questions on a stream.
    """
    intercepted = any(isinstance(item, grpc.aio.UnaryUnaryClientInterceptor) for item in settings.interceptors)
    return Coalescer(channels, alone) if settings.coalesce and not intercepted else None
