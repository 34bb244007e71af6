"""The client for threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, overload

import grpc

from sessiond_client import calls
from sessiond_client.answers import Page
from sessiond_client.connection import DEFAULT_TIMEOUT, Connection, as_method
from sessiond_client.errors import from_rpc
from sessiond_client.rpc import Call
from sessiond_client.subscription import ENDED, EventQuery, Position, subscribe_request
from sessiond_client.values import Checkpoint, Event
from sessiond_stubs.v1 import session_authority_pb2 as pb
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = ["Client", "Events"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item", bound=Event | Checkpoint)


def _unary(call: Callable[Concatenate[str, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """A method that makes one call."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._ask(call(self._application, *args, **kwargs))

    as_method(method, call)
    return method


def _pages(call: Callable[Concatenate[str, P], Call[Page[T]]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    """A method that goes through all pages of a call, asking for each when it is needed."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        question = call(self._application, *args, **kwargs)
        while True:
            page = self._ask(question)
            yield from page.items
            if not page.next_page_token:
                return
            question.request.page_token = page.next_page_token

    as_method(method, call)
    return method


class Client(Connection):
    """Asks one authority on behalf of one application. Safe to share between threads; a context manager.

    The same surface as `AsyncClient`. See `Connection` for the parameters and `sessiond_client.calls` for the calls.
    """

    def __init__(
        self,
        target: str,
        *,
        application: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        safe_retries: bool = True,
    ) -> None:
        super().__init__(
            target, application=application, timeout=timeout, credentials=credentials, safe_retries=safe_retries
        )
        self._channel: grpc.Channel = self._open(grpc)
        self._stub = SessionAuthorityStub(self._channel)

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
    def events(self, *, include_checkpoints: Literal[False] = ..., **query: Unpack[EventQuery]) -> Events[Event]: ...
    @overload
    def events(
        self, *, include_checkpoints: Literal[True], **query: Unpack[EventQuery]
    ) -> Events[Event | Checkpoint]: ...
    def events(self, *, include_checkpoints: bool = False, **query: Unpack[EventQuery]) -> Events[Any]:
        """Follow the event stream over broken connections and restarts, each event once.

        See `EventQuery` for the parameters and `Events` for the guarantees.
        """
        request = subscribe_request(self._application, **query)
        events: Events[Any] = Events(self._stub.Subscribe, Position(request, include_checkpoints=include_checkpoints))
        self._streams.add(events)
        return events

    def _ask(self, call: Call[T]) -> T:
        try:
            request = self._identified(call)
            answer = getattr(self._stub, call.rpc.name)(request, timeout=self._deadline(call.timeout))
        except grpc.RpcError as error:
            raise from_rpc(error) from None
        return call.read(answer)

    def close(self) -> None:
        """End all streams and the channel."""
        for events in tuple(self._streams):
            events.close()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Events(Generic[Item]):
    """An endless iterator over the event stream that repairs itself; a context manager.

    Each event under the filter comes once, in the order of revisions. A broken stream is resumed after the last item
    that was handed out, with growing pauses. Raises `OutOfRange` if the position is no longer in the log (rebuild what
    you keep from `list`, and subscribe again), `InvalidArgument` for a cursor of another authority or a wrong filter.
    Ends only by `close`, from any thread. One thread iterates.
    """

    def __init__(self, subscribe: Callable[[pb.SubscribeRequest], Any], position: Position) -> None:
        self._subscribe = subscribe
        self._position = position
        self._call: Any = None
        self._closed = threading.Event()
        self._changing_call = threading.Lock()

    @property
    def cursor(self) -> str | None:
        """The resume position: that of the last item handed out, or of a later checkpoint that was skipped."""
        return self._position.cursor

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        while (stream := self._stream()) is not None:
            try:
                item = self._position.step(next(stream))
            except StopIteration:
                broken = ENDED
            except grpc.RpcError as error:
                broken = from_rpc(error)
            except BaseException:
                self._drop()  # Ctrl-C: what the stream had under way is asked for again
                raise
            else:
                if item is not None:
                    return item  # type: ignore[return-value]  # checkpoints come only if the caller asked for them
                continue
            self._drop()
            if not self._closed.is_set():
                self._closed.wait(self._position.pause_after(broken))
        raise StopIteration

    def close(self) -> None:
        """End the iteration and cancel the call. Safe to repeat, and from another thread."""
        self._closed.set()
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stream(self) -> Any:
        """The call under way, or a new one from the position; None when closed."""
        with self._changing_call:
            if self._closed.is_set():
                return None
            if self._call is None:
                self._call = self._subscribe(self._position.request())
            return self._call

    def _drop(self) -> None:
        with self._changing_call:
            call, self._call = self._call, None
        if call is not None:
            call.cancel()
