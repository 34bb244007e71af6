"""The client for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, overload

import grpc
import grpc.aio

from sessiond_client import calls
from sessiond_client.answers import Page
from sessiond_client.connection import Connection, as_method
from sessiond_client.errors import from_rpc
from sessiond_client.rpc import Call
from sessiond_client.subscription import ENDED, EventQuery, Position, subscribe_request
from sessiond_client.values import Checkpoint, Event
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = ["AsyncClient", "AsyncEvents"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item", bound=Event | Checkpoint)


def _unary(
    call: Callable[Concatenate[str, P], Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """A method that makes one call."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._ask(call(self._application, *args, **kwargs))

    as_method(method, call)
    return method


def _pages(
    call: Callable[Concatenate[str, P], Call[Page[T]]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    """A method that goes through all pages of a call, asking for each when it is needed."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        question = call(self._application, *args, **kwargs)
        while True:
            page = await self._ask(question)
            for item in page.items:
                yield item
            if not page.next_page_token:
                return
            question.request.page_token = page.next_page_token

    as_method(method, call)
    return method


class AsyncClient(Connection):
    """Asks one authority on behalf of one application, from one event loop. An async context manager.

    The same surface as `Client`. See `Connection` for the parameters and `sessiond_client.calls` for the calls. It may
    be made before the loop runs: the channel is opened at the first use.
    """

    _channel: grpc.aio.Channel | None = None
    _opened_stub: Any = None

    create = _unary(calls.create)
    validate = _unary(calls.validate)
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

    @overload
    def events(
        self, *, include_checkpoints: Literal[False] = ..., **query: Unpack[EventQuery]
    ) -> AsyncEvents[Event]: ...
    @overload
    def events(
        self, *, include_checkpoints: Literal[True], **query: Unpack[EventQuery]
    ) -> AsyncEvents[Event | Checkpoint]: ...
    def events(self, *, include_checkpoints: bool = False, **query: Unpack[EventQuery]) -> AsyncEvents[Any]:
        """Follow the event stream over broken connections and restarts, each event once.

        See `EventQuery` for the parameters and `AsyncEvents` for the guarantees.
        """
        request = subscribe_request(self._application, **query)
        events: AsyncEvents[Any] = AsyncEvents(
            self._subscribe, Position(request, include_checkpoints=include_checkpoints)
        )
        self._streams.add(events)
        return events

    def _stub(self) -> Any:
        if self._channel is None:
            self._channel = self._open(grpc.aio)  # not in __init__: a channel belongs to the loop that runs
            self._opened_stub = SessionAuthorityStub(self._channel)
        return self._opened_stub

    def _subscribe(self, request: pb.SubscribeRequest) -> Any:
        return self._stub().Subscribe(request)

    async def _ask(self, call: Call[T]) -> T:
        try:
            request = self._identified(call)
            answer = await getattr(self._stub(), call.rpc.name)(request, timeout=self._deadline(call.timeout))
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
        return call.read(answer)

    async def close(self) -> None:
        """End all streams and the channel."""
        for events in tuple(self._streams):
            await events.close()
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncEvents(Generic[Item]):
    """An endless asynchronous iterator over the event stream that repairs itself; an async context manager.

    Each event under the filter comes once, in the order of revisions. A broken stream is resumed after the last item
    that was handed out, with growing pauses. Raises `OutOfRange` if the position is no longer in the log (rebuild what
    you keep from `list`, and subscribe again), `InvalidArgument` for a cursor of another authority or a wrong filter.
    Ends only by `close`. A cancelled `anext`, as by a timeout, loses nothing: the next one goes on. One task iterates.
    """

    def __init__(self, subscribe: Callable[[pb.SubscribeRequest], Any], position: Position) -> None:
        self._subscribe = subscribe
        self._position = position
        self._call: Any = None
        self._closed = asyncio.Event()

    @property
    def cursor(self) -> str | None:
        """The resume position: that of the last item handed out, or of a later checkpoint that was skipped."""
        return self._position.cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._closed.is_set():
            try:
                response = await self._read()
            except grpc.aio.AioRpcError as error:
                broken = from_rpc(error)
            except asyncio.CancelledError:
                self._drop()
                if self._closed.is_set() and not _cancelled_by_caller():
                    break  # `close` has cancelled the call under our hands; nobody has cancelled us
                raise
            else:
                if response is not grpc.aio.EOF:
                    item = self._position.step(response)
                    if item is not None:
                        return item  # type: ignore[return-value]  # checkpoints come only if the caller asked for them
                    continue
                broken = ENDED
            self._drop()
            await self._pause(self._position.pause_after(broken))
        raise StopAsyncIteration

    async def close(self) -> None:
        """End the iteration and cancel the call. Safe to repeat, and while another task iterates."""
        self._closed.set()
        self._drop()

    aclose = close  # what contextlib.aclosing and async generators call it

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _read(self) -> Any:
        if self._call is None:
            self._call = self._subscribe(self._position.request())
        return await self._call.read()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()


def _cancelled_by_caller() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
