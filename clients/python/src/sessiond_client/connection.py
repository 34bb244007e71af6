"""How a client reaches an authority: what both clients set on their channels, and why."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, Unpack
from weakref import WeakSet

from sessiond_client import forks
from sessiond_client.arguments import refusal
from sessiond_client.errors import ClientClosed, Violation
from sessiond_client.flow import Flows
from sessiond_client.settings import ClientOptions, Settings
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = ["Channels", "Connection", "as_method", "channel_options", "closed", "shows_settings"]

_CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    # gRPC would send even calls to loopback, tokens included, through the proxy that `http_proxy`, `https_proxy` or
    # `grpc_proxy` names in the environment.
    ("grpc.enable_http_proxy", 0),
    # The name service does not get to set retries or load balancing.
    ("grpc.service_config_disable_resolution", 1),
    # A connection of its own. Otherwise gRPC shares it between all clients of the process: their limit of concurrent
    # calls, and the waits after a failed connection.
    ("grpc.use_local_subchannel_pool", 1),
    # Notices a dead connection under a quiet stream. The authority allows one ping a minute and answers more of them
    # with GOAWAY (too_many_pings).
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # An authority that restarts is back in a second; gRPC's own waits grow to two minutes. The second one limits an
    # attempt to connect.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_STREAMS_PER_CHANNEL = 100
"""As many as an authority serves on one connection by default."""


def channel_options(settings: Settings) -> list[tuple[str, Any]]:
    """The options of a channel; the caller's own override ours."""
    return list({**dict(_CHANNEL_OPTIONS), **dict(settings.channel_options)}.items())


F = TypeVar("F", bound=Callable[..., None])


class Opened(NamedTuple):
    """A channel and the stub that makes calls on it."""

    channel: Any
    stub: Any


class Channels:
    """The channels of one client: one for calls, and others for streams, which would use up its limit of calls.

    Opened when they are first needed: a client that has not been used yet survives a fork, and may be made before its
    event loop runs. `opener` makes a channel; `asynchronous`: one of `grpc.aio`.
    """

    def __init__(self, opener: Callable[[], Any], *, asynchronous: bool = False) -> None:
        self._opener = opener
        self._asynchronous = asynchronous
        self._lock = threading.RLock()  # reentrant: the garbage collector may end a stream while it is held
        self._generation: int | None = None
        self._calls: Opened | None = None
        self._streams: list[tuple[Opened, WeakSet[Any]]] = []
        self._closed = False

    def check(self) -> None:
        """Raise `ClientForked` in a child of the process that opened a channel, `ClientClosed` after `close`."""
        if self._generation is not None:
            forks.check(self._generation)
        if self._closed:
            raise closed(during=False)

    @property
    def inherited(self) -> bool:
        """Whether the parent process opened them."""
        return self._generation not in (None, forks.generation())

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def for_calls(self) -> Any:
        """The stub of all unary calls."""
        opened = self._calls
        if opened is None:
            with self._lock:
                opened = self._calls = self._calls or self._open()
        return opened.stub

    def for_stream(self, stream: Any) -> Any:
        """A stub for this stream, whose channel it uses until it is forgotten or collected."""
        with self._lock:
            found = [entry for entry in self._streams if stream in entry[1]]
            found += [entry for entry in self._streams if len(entry[1]) < _STREAMS_PER_CHANNEL]
            if not found:
                found.append((self._open(), WeakSet()))
                self._streams.append(found[0])
            opened, streams = found[0]
            streams.add(stream)
            return opened.stub

    def streams(self) -> list[Any]:
        """The streams that are under way."""
        with self._lock:
            return [stream for _, streams in self._streams for stream in streams]

    def forget(self, stream: Any) -> None:
        """The stream has ended."""
        with self._lock:
            for _, streams in self._streams:
                streams.discard(stream)

    def close(self) -> list[Any]:
        """Let no further call begin; the channels that are left to close."""
        with self._lock:
            self._closed = True
            opened = [self._calls, *(channel for channel, _ in self._streams)]
            self._calls, self._streams = None, []
            return [item.channel for item in opened if item is not None]

    def _open(self) -> Opened:
        self.check()
        forks.check_new(asynchronous=self._asynchronous)
        if self._asynchronous:
            forks.asyncio_opened(self)
        self._generation = forks.generation()
        forks.watch(self)
        channel = self._opener()
        return Opened(channel, SessionAuthorityStub(channel))


def shows_settings(init: F) -> F:
    """Let `help` and `inspect` show each option of a client's constructor, with its default."""
    target, *options = inspect.signature(Settings).parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    target = target.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    init.__signature__ = inspect.Signature([own, target, *options])  # type: ignore[attr-defined]
    return init


class Connection:
    """The settings of a client and the state of its connection. Each client does its I/O itself."""

    def __init__(self, target: str, **options: Unpack[ClientOptions]) -> None:
        """`target` is `host:port` or `unix:/path`; see `ClientOptions`. Raises `InvalidArgument`.

        Nothing is sent before the first call.
        """
        self._settings = Settings(target=target, **options).checked()
        if self._settings.retries < 0:
            raise refusal(Violation("retries", "must be 0 or more"))
        self._flows = Flows(self._settings.timeout, self._settings.retries, self._settings.safe_retries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.target} application={self.application or 'default'}>"

    @property
    def target(self) -> str:
        """Where the authority is."""
        return self._settings.target

    @property
    def application(self) -> str:
        """The application that every call is about; empty means `default`."""
        return self._settings.application

    @property
    def _application(self) -> str:
        return self._settings.application


def closed(*, during: bool) -> ClientClosed:
    """The exception for a call of a closed client, or for one that was under way when it was closed."""
    if during:
        return ClientClosed("the client was closed during the call", status="CANCELLED")
    return ClientClosed("the client is closed: make a new one", status="FAILED_PRECONDITION")


def as_method(method: Callable[..., Any], call: Callable[..., Any], pages: str = "") -> None:
    """Give a client's method the name, documentation and signature of the call that it makes.

    `pages` is the type of what a method returns that goes through all pages; empty for a method that makes one call.
    """
    functools.update_wrapper(method, call)  # keeps `__wrapped__`: type hints are looked up in the call's module
    signature = inspect.signature(call)
    answer = str(signature.return_annotation).removeprefix("Call[").removesuffix("]")
    if pages:
        answer = f"{pages}[{answer.removeprefix('Page[').removesuffix(']')}]"
    _, *parameters = signature.parameters.values()  # the first is the application, which the client knows
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect.signature looks for it
        parameters=[own, *parameters], return_annotation=answer
    )
    method.__annotations__ = {**{item.name: item.annotation for item in parameters}, "return": answer}
