"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, overload
from weakref import finalize

import grpc.aio

from sessiond_client import calls, forks, reading
from sessiond_client.answers import Page, Validation
from sessiond_client.backup import AsyncBackup
from sessiond_client.coalescing import ALONE, coalescer_of
from sessiond_client.connection import Channels, Connection, as_method, channel_options, closed, never, shows_settings
from sessiond_client.errors import SessiondError, WrongEventLoop, from_rpc
from sessiond_client.flow import Flow, Send, Wait
from sessiond_client.kinds import Seconds
from sessiond_client.near_aio import FollowingTask
from sessiond_client.near_question import Miss, NearQuestions
from sessiond_client.outcome import Outcome, attempt, failure
from sessiond_client.questions import DataRequest, Requirements
from sessiond_client.rpc import Call
from sessiond_client.settings import ClientOptions, Settings
from sessiond_client.subscription import ENDED, EventQuery, Position, subscription
from sessiond_client.tls import ChannelCredentials
from sessiond_client.tokens import Token
from sessiond_client.values import Checkpoint, ClientContext, Event
from sessiond_stubs.v1.session_authority_pb2 import ValidateSessionResponse

__all__ = ["AsyncClient", "AsyncEvents"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item", bound=Event | Checkpoint)


def _unary(
    call: Callable[Concatenate[str, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """A method that makes one call and returns its answer."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        prepared = attempt(call, self._application, *args, **kwargs)
        del args, kwargs  # they may hold a token, and this frame is part of the traceback
        outcome: Outcome[Any] = prepared if prepared.error is not None else await self._outcome_of(prepared.value)
        del prepared
        return outcome.get()  # type: ignore[no-any-return]  # what the call reads

    as_method(method, call)
    return method


def _pages(
    call: Callable[Concatenate[str, P], Call[Page[T]]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    """A method that goes through all pages of a call and requests each page when it is needed."""

    def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        prepared = attempt(call, self._application, *args, **kwargs)
        del args, kwargs
        return self._all_pages(prepared.get())

    as_method(method, call, "AsyncIterator")
    return method


class _Calling(Connection):
    """How an `AsyncClient` makes its calls: the I/O of their flows."""

    def __init__(self, target: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(target, **options)
        self._channels = Channels(
            partial(_open, self._settings, self._tls),
            asynchronous=True,
            is_renewed=never if self._tls is None else self._tls.changed,
            key=self._key,
        )
        self._coalescer = coalescer_of(self._settings, self._channels, self._send)
        self._closing = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flights: dict[Any, asyncio.Event] = {}  # with a near cache: the questions that others wait for

    def _check(self) -> None:
        """Bind the client to the loop of its first call. Raises `WrongEventLoop` in another one."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise WrongEventLoop(
                "this AsyncClient belongs to another event loop: create one in each loop, inside the function that"
                " asyncio.run runs, or use Client",
                status="FAILED_PRECONDITION",
            )

    async def _outcome_of(self, call: Call[T]) -> Outcome[T]:
        """The outcome of a call."""
        return await self._outcome_of_flow(self._flows.of(call))

    async def _after(self, call: Call[T], began: float, reply: Any) -> Outcome[T]:
        """The outcome of a validation after its first attempt, on the stream. `reply`: None, if it was not made."""
        if reply is None:
            return await self._outcome_of(call)
        failed = None if reply is ALONE else reply
        return await self._outcome_of_flow(self._flows.after_first(call, began, failed), is_alone=reply is ALONE)

    async def _outcome_of_flow(self, flow: Flow[T], *, is_alone: bool = False) -> Outcome[T]:
        """The outcome of a call. `is_alone`: its first step must be a call of its own."""
        reply, coalescer = None, self._coalescer
        try:
            self._channels.check()
            self._check()
            while True:
                step = flow.send(reply)
                if isinstance(step, Wait):
                    reply = await self._wait(step)
                elif coalescer is None or step.name != "ValidateSession":
                    reply = await self._send(step)
                elif is_alone:
                    is_alone, reply = False, await coalescer.send_alone(step)
                elif (reply := await coalescer.send(step)) is ALONE:
                    reply = await coalescer.send_alone(step)
        except StopIteration as done:
            return Outcome(done.value)
        except BaseException as error:  # noqa: BLE001 - raised again by `Outcome.get`
            return failure(error)
        finally:
            flow.close()

    async def _outcome_of_miss(self, near: NearQuestions, miss: Miss) -> Outcome[Validation]:
        """The outcome of a question that the near cache could not answer. One task asks; the others wait for it."""
        try:
            self._channels.check()
            self._check()
            near.start()
            if not near.cache.is_open:
                return await self._ask(near, miss)  # nothing will be kept that others could wait for
            flight = self._flights.get(miss.key)
            if flight is None:
                self._flights[miss.key] = asyncio.Event()
                try:
                    return await self._ask(near, miss)
                finally:
                    self._flights.pop(miss.key).set()
            patience = self._settings.timeout if miss.call.timeout is None else miss.call.timeout
            began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await flight.wait()
            known = near.again(miss)
            if known is not None:
                return Outcome(known)
            miss.limit(patience - (time.monotonic() - began))
            return await self._ask(near, miss)
        except BaseException as error:  # noqa: BLE001 - raised again by `Outcome.get`
            return failure(error)

    async def _ask(self, near: NearQuestions, miss: Miss) -> Outcome[Validation]:
        while True:
            near.begin(miss)
            outcome = near.end(miss, await self._outcome_of(miss.call))
            if outcome is not None:
                return outcome

    async def _send(self, step: Send) -> Any:
        """The response to a request, or the `SessiondError` that it ended in."""
        try:
            self._channels.check()
            return await getattr(self._channels.for_calls(), step.name)(step.request, timeout=step.timeout)
        except grpc.aio.AioRpcError as error:
            return closed(during=True) if self._closing.is_set() else self._renewing(from_rpc(error))
        except SessiondError as error:
            return error
        except asyncio.CancelledError:
            if not self._closing.is_set() or _cancelled_by_caller():
                raise
            return closed(during=True)  # `close` cancelled the call; the caller was not cancelled
        except grpc.aio.UsageError:
            if not self._closing.is_set():
                raise
            return closed(during=False)  # this is how gRPC reports a channel that was just closed

    async def _wait(self, step: Wait) -> SessiondError | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(step.seconds):
                await self._closing.wait()
                return closed(during=False)
        return None


class AsyncClient(_Calling):
    """A client of one authority for one application, on one event loop. An async context manager.

    `AsyncClient("127.0.0.1:7443", application="shop")`. `target` is `host:port` or `unix:/path`; `ClientOptions`
    describes the other parameters. It has the same methods as `Client`, to await. It may be created before the loop
    runs, and belongs to the loop of its first call. A call that fails raises a `SessiondError`.
    """

    @shows_settings
    def __init__(self, target: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(target, **options)
        self._following: FollowingTask | None = None
        if self._near is not None:
            self._following = FollowingTask(self._channels, self._conversation(self._near))
            self._near.start = self._following.start
            finalize(self, self._following.release_from_any_thread).atexit = False

    create = _unary(calls.create)
    validate_many = _unary(calls.validate_many)
    authenticate = _unary(calls.authenticate)
    roll = _unary(calls.roll)
    refresh = _unary(calls.refresh)
    revoke = _unary(calls.revoke)
    revoke_all = _unary(calls.revoke_all)
    get = _unary(calls.get)
    get_data = _unary(calls.get_data)
    update_data = _unary(calls.update_data)
    issue_companion_token = _unary(calls.issue_companion_token)
    report_signal = _unary(calls.report_signal)
    authority = _unary(calls.authority)
    list = _pages(calls.list_sessions)
    list_page = _unary(calls.list_sessions)
    activity = _pages(calls.activity)
    activity_page = _unary(calls.activity)
    list_source_locks = _pages(calls.list_source_locks)
    list_source_locks_page = _unary(calls.list_source_locks)
    clear_source_lock = _unary(calls.clear_source_lock)
    create_caller = _unary(calls.create_caller)
    list_callers = _unary(calls.list_callers)
    rotate_caller = _unary(calls.rotate_caller)
    revoke_caller = _unary(calls.revoke_caller)
    update_caller_certificates = _unary(calls.update_caller_certificates)
    key_ring = _unary(calls.key_ring)
    add_sealing_key = _unary(calls.add_sealing_key)
    promote_sealing_key = _unary(calls.promote_sealing_key)
    retire_sealing_key = _unary(calls.retire_sealing_key)

    async def validate(  # noqa: D102 - `as_method` gives it the documentation of `calls.validate`
        self,
        token: str | Token,
        *,
        client: ClientContext | None = None,
        passive: bool = False,
        at_least: str = "",
        requirements: Requirements | None = None,
        with_csrf_token: bool = False,
        data: DataRequest | bool | None = None,
        timeout: Seconds | None = None,
    ) -> Validation:
        near = self._near
        if near is not None and at_least == "":
            known = near.known(token, client, passive, requirements, with_csrf_token, data, timeout)
            if known is not None:
                return known
        if near is None and (coalescer := self._coalescer) is not None and not self._flows.circuit.cause:
            usual = calls.usual_validation(
                self._application, token, client, passive, at_least, requirements, with_csrf_token, data, timeout
            )
            if usual is not None:
                del token, requirements  # they may hold secrets, and this frame is part of the traceback
                # What follows is `_outcome_of` for a first attempt on the stream that succeeds, without its flow.
                seconds, began, reply, waiting = self._flows.seconds(timeout), time.monotonic(), None, None
                try:
                    self._channels.check()
                    self._check()
                    waiting = coalescer.ask(usual.request, seconds, began)
                    if waiting is not None:
                        reply = await waiting
                        if type(reply) is ValidateSessionResponse:
                            self._flows.circuit.reached()
                            return reading.validation(reply)
                except BaseException as error:  # noqa: BLE001 - raised again by `Outcome.get`
                    ended: Outcome[Validation] = failure(error)
                else:
                    ended = await self._after(usual, began, reply)
                del usual, waiting
                return ended.get()
        prepared = attempt(
            calls.validate,
            self._application,
            token,
            client=client,
            passive=passive,
            at_least=at_least,
            requirements=requirements,
            with_csrf_token=with_csrf_token,
            data=data,
            timeout=timeout,
        )
        miss = None if near is None or at_least else near.missed(prepared)
        del token, requirements  # they may hold secrets, and this frame is part of the traceback
        outcome: Outcome[Validation]
        if prepared.error is not None:
            outcome = Outcome(error=prepared.error)
        elif near is None or miss is None:
            outcome = await self._outcome_of(prepared.value)
        else:
            outcome = await self._outcome_of_miss(near, miss)
        del prepared, miss
        return outcome.get()

    as_method(validate, calls.validate)

    @overload
    def events(
        self, *, include_checkpoints: Literal[False] = ..., **query: Unpack[EventQuery]
    ) -> AsyncEvents[Event]: ...
    @overload
    def events(
        self, *, include_checkpoints: Literal[True], **query: Unpack[EventQuery]
    ) -> AsyncEvents[Event | Checkpoint]: ...
    def events(self, *, include_checkpoints: bool = False, **query: Unpack[EventQuery]) -> AsyncEvents[Any]:
        """Follow the event stream across broken connections and restarts. Each event comes once, in order.

        `include_checkpoints`: also return a `Checkpoint` when the stream begins and while it is quiet. See `EventQuery`
        for the other parameters and `AsyncEvents` for the guarantees.
        """
        return attempt(self._follow, include_checkpoints, query).get()

    def backup(self) -> AsyncBackup:
        """Copy the authority's SQLite database while it runs. Needs the role `admin`. See `AsyncBackup`."""
        return AsyncBackup(self._channels)

    async def close(self) -> None:
        """End all streams, calls under way and connections. These calls, and all later ones, raise `ClientClosed`.

        Raises `WrongEventLoop` in a loop other than that of the calls, unless that loop is closed.
        """
        if self._channels.inherited:
            return  # they belong to the parent process
        if self._loop is not None and self._loop.is_closed():
            if self._following is not None:
                self._following.abandon()
            self._channels.close()  # nothing on that loop can run any more
            forks.asyncio_closed(self._channels)
            return
        self._check()
        self._closing.set()
        if self._following is not None:
            await self._following.close()
        if self._coalescer is not None:
            self._coalescer.close()
        for stream in self._channels.streams():
            stream.release()
        for channel in self._channels.close():
            await channel.close()
        forks.asyncio_closed(self._channels)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _follow(self, include_checkpoints: bool, query: Any) -> AsyncEvents[Any]:
        self._channels.check()
        return AsyncEvents(self._channels, subscription(self._application, include_checkpoints, **query), self._check)

    async def _all_pages(self, question: Call[Page[T]]) -> AsyncIterator[T]:
        while True:
            outcome: Outcome[Page[T]] = await self._outcome_of(question)
            if outcome.error is not None:
                del question
            page = outcome.get()
            for item in page.items:
                yield item
            if not page.next_page_token:
                return
            question.request.page_token = page.next_page_token


def _open(settings: Settings, tls: ChannelCredentials | None) -> Any:
    options, interceptors = channel_options(settings), list(settings.interceptors)
    found = settings.credentials if tls is None else tls.current()
    if found is None:
        return grpc.aio.insecure_channel(settings.target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(settings.target, found, options=options, interceptors=interceptors)


class AsyncEvents(Generic[Item]):
    """An endless asynchronous iterator over the event stream, which it resumes by itself; an async context manager.

    Each event that matches the filter comes once, in the order of revisions. A broken stream is resumed after the last
    item that was returned, with growing pauses (0.1 s to 5 s). It ends only by `close`. A cancelled `anext`, as by a
    timeout, loses nothing: the next one continues. Only one task may iterate. After a `break` the stream is released as
    soon as nothing refers to the iterator.

    Raises `OutOfRange` if the position is no longer in the log (rebuild what you keep from `list`, and subscribe
    again), and `InvalidArgument` for a cursor of another authority or a wrong filter. `NotServed`, `PermissionDenied`
    and `Unauthenticated` are raised too; every other failure is repaired.
    """

    def __init__(self, channels: Channels, position: Position, check: Callable[[], None]) -> None:
        self._position = position
        self._check = check
        self._stream = _Stream(channels)
        forks.keep_in_children(self._stream)
        finalize(self, self._stream.release_from_any_thread).atexit = False

    @property
    def cursor(self) -> str | None:
        """The position to resume from: that of the last item returned, or of a later checkpoint that was skipped.

        None before the first message, unless the query has `after`. Not a secret.
        """
        return self._position.cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        try:
            outcome: Outcome[Item | None] = Outcome(await self._next())
        except BaseException as error:  # noqa: BLE001 - raised again below
            outcome = failure(error)
        item = outcome.get()
        if item is None:
            raise StopAsyncIteration
        return item

    async def _next(self) -> Item | None:
        """The next item; None if the iterator is closed."""
        self._check()
        while (call := self._stream.call(self._position)) is not None:
            try:
                response = await call.read()
            except grpc.aio.AioRpcError as error:
                broken = from_rpc(error)
            except asyncio.CancelledError:
                self._stream.drop()
                if self._stream.closed.is_set() and not _cancelled_by_caller():
                    return None  # `close` cancelled the gRPC call; this task was not cancelled
                raise
            else:
                if response is not grpc.aio.EOF:
                    item = self._position.step(response)
                    if item is not None:
                        return item  # type: ignore[return-value]  # checkpoints come only if the caller asked for them
                    continue
                broken = ENDED
            self._stream.drop()
            if not self._stream.closed.is_set():
                await self._stream.pause(self._position.pause_after(broken))
        return None

    async def close(self) -> None:
        """End the iteration and cancel the gRPC call. May be called repeatedly, and while another task iterates."""
        self._stream.release()

    aclose = close  # the name that contextlib.aclosing and async generators use

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Stream:
    """The gRPC call of one iterator. It does not refer to the iterator, so that it can be released after it."""

    def __init__(self, channels: Channels) -> None:
        self.closed = asyncio.Event()
        self._channels = channels
        self._call: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fork_count = forks.fork_count()

    def call(self, position: Position) -> Any:
        """The current gRPC call, or a new one from the position; None when closed."""
        forks.check(self._fork_count)
        if self.closed.is_set() or self._channels.is_closed:
            return None
        if self._call is None:
            self._loop = asyncio.get_running_loop()
            self._call = self._channels.for_stream(self).Subscribe(position.request())
        return self._call

    async def pause(self, seconds: float) -> None:
        """Wait this long, or until the stream is closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.closed.wait()

    def drop(self) -> None:
        """Cancel the gRPC call; the next one resumes at the position."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def release(self) -> None:
        """End the stream for good."""
        if self._fork_count == forks.fork_count():
            self.closed.set()
            self.drop()
            self._channels.forget(self)

    def release_from_any_thread(self) -> None:
        """End the stream for good, from the garbage collector, which may run in any thread."""
        if self._loop is not None and self._fork_count == forks.fork_count():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and so is the call
                self._loop.call_soon_threadsafe(self.release)


def _cancelled_by_caller() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
