"""The client for threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, overload
from weakref import finalize

import grpc

from sessiond_client import calls, forks
from sessiond_client.answers import Page, Validation
from sessiond_client.backup import Backup
from sessiond_client.connection import Channels, Connection, as_method, channel_options, closed, never, shows_settings
from sessiond_client.errors import ClientClosed, SessiondError, from_rpc
from sessiond_client.flow import Send, Wait
from sessiond_client.kinds import Seconds
from sessiond_client.near_question import Miss, NearQuestions
from sessiond_client.near_sync import Flights, FollowingThread
from sessiond_client.outcome import Outcome, attempt
from sessiond_client.questions import DataRequest, Requirements
from sessiond_client.rpc import Call
from sessiond_client.settings import ClientOptions, Settings
from sessiond_client.subscription import ENDED, EventQuery, Position, subscription
from sessiond_client.tls import ChannelCredentials
from sessiond_client.tokens import Token
from sessiond_client.values import Checkpoint, ClientContext, Event

__all__ = ["Client", "Events"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item", bound=Event | Checkpoint)


def _unary(call: Callable[Concatenate[str, P], Call[T]]) -> Callable[Concatenate[Client, P], T]:
    """A method that makes one call and returns its answer."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        prepared = attempt(call, self._application, *args, **kwargs)
        del args, kwargs  # they may hold a token, and this frame is part of the traceback
        outcome = self._outcome_of(prepared)
        del prepared
        return outcome.get()

    as_method(method, call)
    return method


def _pages(call: Callable[Concatenate[str, P], Call[Page[T]]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    """A method that goes through all pages of a call and requests each page when it is needed."""

    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        prepared = attempt(call, self._application, *args, **kwargs)
        del args, kwargs
        return self._all_pages(prepared.get())

    as_method(method, call, "Iterator")
    return method


class Client(Connection):
    """A client of one authority for one application. Safe to share between threads; a context manager.

    `Client("127.0.0.1:7443", application="shop")`. `target` is `host:port` or `unix:/path`; `ClientOptions` describes
    the other parameters. It has the same methods as `AsyncClient`. A call that fails raises a `SessiondError`.
    """

    @shows_settings
    def __init__(self, target: str, **options: Unpack[ClientOptions]) -> None:
        super().__init__(target, **options)
        self._channels = Channels(
            partial(_open, self._settings, self._tls),
            is_renewed=never if self._tls is None else self._tls.changed,
            key=self._key,
        )
        self._closing = threading.Event()
        self._following: FollowingThread | None = None
        if self._near is not None:
            self._following = FollowingThread(self._channels, self._conversation(self._near))
            self._near.start = self._following.start
            self._flights = Flights()
            finalize(self, self._following.release).atexit = False

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

    def validate(  # noqa: D102 - `as_method` gives it the documentation of `calls.validate`
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
        outcome = self._outcome_of(prepared) if near is None or miss is None else self._outcome_of_miss(near, miss)
        del prepared, miss
        return outcome.get()

    as_method(validate, calls.validate)

    @overload
    def events(self, *, include_checkpoints: Literal[False] = ..., **query: Unpack[EventQuery]) -> Events[Event]: ...
    @overload
    def events(
        self, *, include_checkpoints: Literal[True], **query: Unpack[EventQuery]
    ) -> Events[Event | Checkpoint]: ...
    def events(self, *, include_checkpoints: bool = False, **query: Unpack[EventQuery]) -> Events[Any]:
        """Follow the event stream across broken connections and restarts. Each event comes once, in order.

        `include_checkpoints`: also return a `Checkpoint` when the stream begins and while it is quiet. See `EventQuery`
        for the other parameters and `Events` for the guarantees.
        """
        return attempt(self._follow, include_checkpoints, query).get()

    def backup(self) -> Backup:
        """Copy the authority's SQLite database while it runs. Needs the role `admin`. See `Backup`."""
        return Backup(self._channels)

    def close(self) -> None:
        """End all streams, calls under way and connections. These calls, and all later ones, raise `ClientClosed`."""
        if self._channels.inherited:
            return  # they belong to the parent process
        self._closing.set()
        if self._following is not None:
            self._following.close()
        for stream in self._channels.streams():
            stream.release()
        for channel in self._channels.close():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _follow(self, include_checkpoints: bool, query: Any) -> Events[Any]:
        self._channels.check()
        return Events(self._channels, subscription(self._application, include_checkpoints, **query))

    def _outcome_of(self, prepared: Outcome[Call[T]]) -> Outcome[T]:
        """The outcome of a call; if its arguments were refused, that."""
        return Outcome(error=prepared.error) if prepared.error is not None else attempt(self._run, prepared.get())

    def _outcome_of_miss(self, near: NearQuestions, miss: Miss) -> Outcome[Validation]:
        """The outcome of a question that the near cache could not answer. One thread asks; the others wait for it."""
        usable = attempt(self._channels.check)
        if usable.error is not None:
            return Outcome(error=usable.error)  # in a child process, the parent may have held any lock
        near.start()
        if not near.cache.is_open:
            return self._ask(near, miss)  # nothing will be kept that others could wait for
        flight = self._flights.take_off(miss.key)
        if flight is None:
            try:
                return self._ask(near, miss)
            finally:
                self._flights.land(miss.key)
        patience = self._settings.timeout if miss.call.timeout is None else miss.call.timeout
        began = time.monotonic()
        flight.wait(patience)
        known = near.again(miss)
        if known is not None:
            return Outcome(known)
        miss.limit(patience - (time.monotonic() - began))
        return self._ask(near, miss)

    def _ask(self, near: NearQuestions, miss: Miss) -> Outcome[Validation]:
        while True:
            near.begin(miss)
            outcome = near.end(miss, attempt(self._run, miss.call))
            if outcome is not None:
                return outcome

    def _all_pages(self, question: Call[Page[T]]) -> Iterator[T]:
        while True:
            outcome = attempt(self._run, question)
            if outcome.error is not None:
                del question
            page = outcome.get()
            yield from page.items
            if not page.next_page_token:
                return
            question.request.page_token = page.next_page_token

    def _run(self, call: Call[T]) -> T:
        self._channels.check()
        reply: Any = None
        with contextlib.closing(self._flows.of(call)) as flow:
            try:
                while True:
                    step = flow.send(reply)
                    reply = self._wait(step) if isinstance(step, Wait) else self._send(step)
            except StopIteration as done:
                answer: T = done.value
                return answer

    def _send(self, step: Send) -> Any:
        """The response to a request, or the `SessiondError` that it ended in."""
        try:
            self._channels.check()
            send = getattr(self._channels.for_calls(), step.name)
            with forks.in_grpc():
                return send(step.request, timeout=step.timeout)
        except grpc.RpcError as error:
            return closed(during=True) if self._closing.is_set() else self._renewing(from_rpc(error))
        except SessiondError as error:
            return error
        except ValueError:
            if not self._closing.is_set():
                raise
            return closed(during=False)  # this is how gRPC reports a channel that was just closed

    def _wait(self, step: Wait) -> SessiondError | None:
        return closed(during=False) if self._closing.wait(step.seconds) else None


def _open(settings: Settings, tls: ChannelCredentials | None) -> Any:
    options, found = channel_options(settings), settings.credentials if tls is None else tls.current()
    if found is None:
        channel = grpc.insecure_channel(settings.target, options=options)
    else:
        channel = grpc.secure_channel(settings.target, found, options=options)
    interceptors: Any = settings.interceptors
    return grpc.intercept_channel(channel, *interceptors) if interceptors else channel


class Events(Generic[Item]):
    """An endless iterator over the event stream, which it resumes by itself; a context manager.

    Each event that matches the filter comes once, in the order of revisions. A broken stream is resumed after the last
    item that was returned, with growing pauses (0.1 s to 5 s). It ends only by `close`, from any thread. Only one
    thread may iterate. After a `break` the stream is released as soon as nothing refers to the iterator.

    Raises `OutOfRange` if the position is no longer in the log (rebuild what you keep from `list`, and subscribe
    again), and `InvalidArgument` for a cursor of another authority or a wrong filter. `NotServed`, `PermissionDenied`
    and `Unauthenticated` are raised too; every other failure is repaired.
    """

    def __init__(self, channels: Channels, position: Position) -> None:
        self._position = position
        self._stream = _Stream(channels)
        forks.keep_in_children(self._stream)
        finalize(self, self._stream.release).atexit = False

    @property
    def cursor(self) -> str | None:
        """The position to resume from: that of the last item returned, or of a later checkpoint that was skipped.

        None before the first message, unless the query has `after`. Not a secret.
        """
        return self._position.cursor

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        item = attempt(self._next).get()
        if item is None:
            raise StopIteration
        return item

    def _next(self) -> Item | None:
        """The next item; None if the iterator is closed."""
        while (call := self._stream.call(self._position)) is not None:
            try:
                item = self._position.step(next(call))
            except StopIteration:
                broken = ENDED
            except grpc.RpcError as error:
                broken = from_rpc(error)
            except BaseException:
                self._stream.drop()  # such as Ctrl-C: items that were in transit are requested again
                raise
            else:
                if item is not None:
                    return item  # type: ignore[return-value]  # checkpoints come only if the caller asked for them
                continue
            self._stream.drop()
            if not self._stream.closed.is_set():
                self._stream.closed.wait(self._position.pause_after(broken))
        return None

    def close(self) -> None:
        """End the iteration and cancel the gRPC call. May be called repeatedly and from another thread."""
        self._stream.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Stream:
    """The gRPC call of one iterator. It does not refer to the iterator, so that it can be released after it."""

    def __init__(self, channels: Channels) -> None:
        self.closed = threading.Event()
        self._channels = channels
        self._call: Any = None
        self._fork_count = forks.fork_count()
        self._changing_call = threading.Lock()

    def call(self, position: Position) -> Any:
        """The current gRPC call, or a new one from the position; None when closed."""
        forks.check(self._fork_count)
        with self._changing_call:
            try:
                if not (self.closed.is_set() or self._channels.is_closed) and self._call is None:
                    self._call = self._channels.for_stream(self).Subscribe(position.request())
            except (ClientClosed, ValueError):
                if not self._channels.is_closed:
                    raise  # otherwise the client was just closed, for which gRPC raises ValueError
            return self._call

    def drop(self) -> None:
        """Cancel the gRPC call; the next one resumes at the position."""
        with self._changing_call:
            call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def release(self) -> None:
        """End the stream for good."""
        if self._fork_count == forks.fork_count():
            self.closed.set()
            self.drop()
            self._channels.forget(self)
