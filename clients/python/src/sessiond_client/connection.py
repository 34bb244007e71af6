"""How a client reaches an authority: its channels and their options, for both clients."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Self, TypeVar, Unpack
from weakref import WeakSet

from sessiond_client import forks
from sessiond_client.arguments import invalid_argument
from sessiond_client.errors import ClientClosed, SessiondError, Unauthenticated, Unavailable, Violation
from sessiond_client.flow import Flows
from sessiond_client.key_files import KEY_VARIABLE, key_in
from sessiond_client.near_cache import NearCache, NearCacheStats
from sessiond_client.near_question import NearQuestions
from sessiond_client.near_stream import Conversation
from sessiond_client.settings import ClientOptions, Settings
from sessiond_client.targets import is_local, problem_of_target
from sessiond_client.tls import credentials_of, options_in
from sessiond_client.tokens import Token
from sessiond_stubs.v1.session_authority_pb2_grpc import SessionAuthorityStub

__all__ = ["Channels", "Connection", "as_method", "channel_options", "closed", "never", "shows_settings"]

_CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    # gRPC would send even calls to loopback, tokens included, through the proxy that `http_proxy`, `https_proxy` or
    # `grpc_proxy` names in the environment.
    ("grpc.enable_http_proxy", 0),
    # DNS records must not set retries or load balancing.
    ("grpc.service_config_disable_resolution", 1),
    # Each client has its own connection. Otherwise all clients of the process would share one, with its limit of
    # concurrent calls and the waits after a failed attempt to connect.
    ("grpc.use_local_subchannel_pool", 1),
    # Detects a dead connection under a quiet stream. The authority closes a connection that
    # sends pings more often than every 20 s (GOAWAY, too_many_pings).
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # An authority restarts within a second, but gRPC's default waits grow to two minutes. `min_reconnect_backoff_ms` is
    # also the time limit of one attempt to connect.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_STREAMS_PER_CHANNEL = 100
"""Keeps the streams of one channel well below what an authority serves on one connection by default."""


def channel_options(settings: Settings) -> list[tuple[str, Any]]:
    """The options of a channel. The caller's `channel_options` override the defaults of this package."""
    return list({**dict(_CHANNEL_OPTIONS), **dict(settings.channel_options)}.items())


F = TypeVar("F", bound=Callable[..., None])


class Opened(NamedTuple):
    """A channel and the stub that makes calls on it."""

    channel: Any
    stub: Any


def never() -> bool:
    """False: credentials that do not change."""
    return False


class Retired:
    """Channels that no new call uses. They are closed when the next ones retire, or with the client.

    By then calls have ended. A stream that has not is ended, and resumes on a new channel.
    """

    def __init__(self, *, asynchronous: bool) -> None:
        self._asynchronous = asynchronous
        self._closing: set[Any] = set()
        self._calls: list[Opened] = []
        self.streams: list[tuple[Opened, WeakSet[Any]]] = []

    def add(self, calls: list[Opened], streams: list[tuple[Opened, WeakSet[Any]]]) -> None:
        """Retire channels, and close those that retired before."""
        for channel in self.close():
            if self._asynchronous:
                task = asyncio.get_running_loop().create_task(channel.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            else:
                channel.close()
        self._calls, self.streams = calls, streams

    def close(self) -> list[Any]:
        """Return the channels, which the caller must close."""
        opened = [*self._calls, *(channel for channel, _ in self.streams)]
        self._calls, self.streams = [], []
        return [item.channel for item in opened]


class Channels:
    """The channels of one client: one for calls, and separate ones for streams, so that streams never block calls.

    They are opened when they are first needed. So a client that has not been used yet survives a fork, and may be
    created before its event loop runs. `opener` opens a channel; `asynchronous` says that it is one of `grpc.aio`.
    `is_renewed` says whether a new channel would have other credentials than those that are open. Neither may refer to
    the client: its channels outlive a client that was forgotten, until what follows the authority has ended. `key` is
    the caller key that each call sends.
    """

    def __init__(
        self,
        opener: Callable[[], Any],
        *,
        asynchronous: bool = False,
        is_renewed: Callable[[], bool] = never,
        key: Token | None = None,
    ) -> None:
        self._opener = opener
        self._key = key
        self._asynchronous = asynchronous
        self._is_renewed = is_renewed
        self._old = Retired(asynchronous=asynchronous)
        self._lock = threading.RLock()  # reentrant: the garbage collector may end a stream while it is held
        self._fork_count: int | None = None
        self._calls: Opened | None = None
        self._validations: Opened | None = None
        self._streams: list[tuple[Opened, WeakSet[Any]]] = []
        self._closed = False

    def check(self) -> None:
        """Raise `ClientForked` in a child of the process that opened a channel, `ClientClosed` after `close`."""
        if self._fork_count is not None:
            forks.check(self._fork_count)
        if self._closed:
            raise closed(during=False)

    @property
    def inherited(self) -> bool:
        """Whether the parent process opened the channels."""
        return self._fork_count not in (None, forks.fork_count())

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def for_calls(self) -> Any:
        """The stub for all unary calls."""
        opened = self._calls
        if opened is None:
            with self._lock:
                opened = self._calls = self._calls or self._open()
        return opened.stub

    def for_validations(self) -> Any:
        """The stub for the stream of validations."""
        self.renew()
        with self._lock:
            opened = self._validations = self._validations or self._open()
            return opened.stub

    def for_stream(self, stream: Any) -> Any:
        """The stub for this stream. It occupies a place on the channel until it is forgotten or garbage-collected."""
        self.renew()
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
        """The open streams."""
        with self._lock:
            entries = (*self._streams, *self._old.streams)
            return [stream for _, streams in entries for stream in streams]

    def forget(self, stream: Any) -> None:
        """Release the place of a stream that has ended."""
        with self._lock:
            for _, streams in (*self._streams, *self._old.streams):
                streams.discard(stream)

    def renew(self) -> bool:
        """Open new channels from now on if their credentials would be others. Calls and streams under way go on.

        Called before a stream begins, and after a call that found no connection, or whose connection proved nothing.
        Return whether there are others.
        """
        if not self._is_renewed():
            return False
        with self._lock:
            calls = [opened for opened in (self._calls, self._validations) if opened is not None]
            self._old.add(calls, self._streams)
            self._calls, self._validations, self._streams = None, None, []
        return True

    def close(self) -> list[Any]:
        """Refuse further calls. Returns the channels, which the caller must close."""
        with self._lock:
            self._closed = True
            opened = [self._calls, self._validations, *(channel for channel, _ in self._streams)]
            self._calls, self._validations, self._streams = None, None, []
            return [*self._old.close(), *(item.channel for item in opened if item is not None)]

    def _open(self) -> Opened:
        self.check()
        self.renew()
        forks.check_new(asynchronous=self._asynchronous)
        if self._asynchronous:
            forks.asyncio_opened(self)
        self._fork_count = forks.fork_count()
        forks.keep_in_children(self)
        channel = self._opener()
        stub: Any = SessionAuthorityStub(channel)
        return Opened(channel, stub if self._key is None else _WithKey(stub, self._key))


class _WithKey:
    """A stub whose calls send a caller key."""

    def __init__(self, stub: Any, key: Token) -> None:
        self._stub = stub
        self._key = key

    def __getattr__(self, name: str) -> Any:
        send, key = getattr(self._stub, name), self._key

        def call(*args: Any, **kwargs: Any) -> Any:  # not a `partial`, whose repr would show the key
            return send(*args, metadata=(("authorization", f"Bearer {key.reveal()}"),), **kwargs)

        setattr(self, name, call)
        return call


def shows_settings(init: F) -> F:
    """Make `help` and `inspect` show each option of a client's constructor, with its default."""
    target, *options = inspect.signature(Settings).parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    target = target.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    init.__signature__ = inspect.Signature([own, target, *options])  # type: ignore[attr-defined]
    return init


_PROTECT_KEY = (
    "use TLS, a Unix socket or a loopback address, or set allow_remote_plaintext if something else encrypts the "
    "connection"
)


class Connection:
    """What `Client` and `AsyncClient` share: settings, retries and the state of the connection, but no I/O."""

    _channels: Channels

    def __init__(self, target: str, **options: Unpack[ClientOptions]) -> None:
        """`target` is `host:port` or `unix:/path`; for the other arguments see `ClientOptions`.

        Connects at the first call, not before. Raises `InvalidArgument` if one of them is wrong.
        """
        self._settings = Settings(target=target, **options).checked()
        if problem := problem_of_target(self._settings.target):
            raise invalid_argument(Violation("target", problem))
        if self._settings.retries < 0:
            raise invalid_argument(Violation("retries", "must be 0 or more"))
        for name in ("near_cache_entries", "near_cache_bytes"):
            if getattr(self._settings, name) < 1:
                raise invalid_argument(Violation(name, "must be 1 or more"))
        # Checked here, because gRPC would show a wrong key in its error.
        key = self._settings.key
        self._key = None if key is None else Token(key)
        if self._key is not None and not (self._key.reveal().isascii() and self._key.reveal().isprintable()):
            raise invalid_argument(Violation("key", "must be a caller key, as `sessionctl callers add` shows it"))
        self._tls = credentials_of(self._settings.target, self._settings.tls, self._settings.credentials)
        is_plain = self._tls is None and self._settings.credentials is None
        allows = self._settings.allow_remote_plaintext or is_local(self._settings.target)
        if self._key is not None and is_plain and not allows:
            raise invalid_argument(Violation("key", f"would be sent to {self.target} unencrypted; {_PROTECT_KEY}"))
        self._flows = Flows(self._settings.timeout, self._settings.retries, self._settings.safe_retries)
        self._near: NearQuestions | None = None
        if self._settings.near_cache:
            self._near = NearQuestions(NearCache(self._settings.near_cache_entries, self._settings.near_cache_bytes))

    @classmethod
    def from_environment(cls, **options: Unpack[ClientOptions]) -> Self:
        """A client of the authority that the environment names. `options` override the environment.

        SESSIOND_TARGET (127.0.0.1:7443 if it is not set), SESSIOND_APPLICATION, SESSIOND_TLS (true or false),
        SESSIOND_TLS_CA, SESSIOND_TLS_CLIENT_CERTIFICATE and SESSIOND_TLS_CLIENT_KEY (paths of PEM files),
        SESSIOND_KEY_FILE (the path of a file whose only line is the key of this caller) and
        SESSIOND_ALLOW_REMOTE_PLAINTEXT (true or false). An empty variable counts as not set. Raises `InvalidArgument`.
        """
        found: dict[str, Any] = {**options_in(os.environ), **options}
        if "key" not in options and (path := os.environ.get(KEY_VARIABLE)):
            found["key"] = key_in(path, KEY_VARIABLE)
        return cls(found.pop("target"), **found)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.target} application={self.application or 'default'}>"

    @property
    def target(self) -> str:
        """The address of the authority: `host:port` or `unix:/path`."""
        return self._settings.target

    @property
    def application(self) -> str:
        """The application that every call is about; empty means `default`."""
        return self._settings.application

    @property
    def near_cache(self) -> NearCacheStats | None:
        """What the near cache did and how it is now; None: this client has none."""
        return None if self._near is None else self._near.cache.stats()

    def _conversation(self, near: NearQuestions) -> Conversation:
        """The conversation that feeds the near cache."""
        return Conversation(near.cache, (self.application or "default",))

    def _renewing(self, error: SessiondError) -> SessiondError:
        """The exception of a call; if it had no connection, the next attempt uses files that have changed.

        So does one whose connection had a certificate that has expired: it was refused before it did anything.
        """
        if self._tls is None or not isinstance(error, (Unavailable, Unauthenticated)):
            return error
        is_renewed = self._channels.renew()
        if is_renewed and isinstance(error, Unauthenticated):
            return Unavailable("the certificate was replaced; call again", status="UNAVAILABLE")
        return error

    @property
    def _application(self) -> str:
        return self._settings.application


def closed(*, during: bool) -> ClientClosed:
    """The exception for a call on a closed client, or (`during`) for one under way when the client was closed."""
    if during:
        return ClientClosed("the client was closed during the call", status="CANCELLED")
    return ClientClosed("the client is closed: create a new one", status="FAILED_PRECONDITION")


def as_method(method: Callable[..., Any], call: Callable[..., Any], pages: str = "") -> None:
    """Give a client's method the name, documentation and signature of the call that it makes.

    `pages` is the iterator type that a method returns if it goes through all pages; empty if it makes one call.
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
