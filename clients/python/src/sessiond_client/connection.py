"""How a client reaches an authority: what both clients set on their channel, and why."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4
from weakref import WeakSet

import grpc

from sessiond_client.calls import RPCS
from sessiond_client.rpc import Call

__all__ = ["DEFAULT_TIMEOUT", "Connection", "as_method", "channel_options"]

DEFAULT_TIMEOUT = 5.0
"""Seconds a call may take, unless its client or the call itself sets another limit."""

_RETRY_POLICY = {
    "maxAttempts": 5,  # over about two seconds: a restart
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2.5,
    # gRPC's server answers CANCELLED to a call that arrives while it shuts down. A call that the caller itself cancels
    # is not repeated. DEADLINE_EXCEEDED is not here: the deadline is for all attempts together, so no time is left.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}


def channel_options(*, safe_retries: bool) -> tuple[tuple[str, str | int], ...]:
    """How a channel behaves. gRPC itself repeats a call, with the same bytes and therefore with the same id.

    It repeats after UNAVAILABLE and CANCELLED, up to four times with growing pauses and within the call's deadline, and
    only while no part of an answer has arrived: a call that breaks off half-way through its answer is not repeated.
    """
    names = [
        {"service": "sessiond.v1.SessionAuthority", "method": rpc.name}
        for rpc in RPCS
        if rpc.repeatable or safe_retries  # with safe retries, every other call has a `request_id`
    ]
    config = {"methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}]}
    return (("grpc.service_config", json.dumps(config)), *_CHANNEL_OPTIONS)


_CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config_disable_resolution", 1),  # the name service does not get to change what is safe to repeat
    # gRPC keeps a call's bytes for repeating it, by default at most 256 KiB, and does not repeat a longer call, such as
    # a large batch. This is more than the longest message that an authority accepts.
    ("grpc.per_rpc_retry_buffer_size", 8 * 1024 * 1024),
    # Notices a dead connection under a quiet stream. The authority allows one ping a minute and answers more of them
    # with GOAWAY (too_many_pings).
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # An authority that restarts is back in a second; gRPC's own waits grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class Connection:
    """The settings of a client. Each client manages its channel itself."""

    def __init__(
        self,
        target: str,
        *,
        application: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
        safe_retries: bool = True,
    ) -> None:
        """`target` is `host:port` or `unix:/path`.

        `application` is the one that every call is about; empty means `default`. `timeout` is in seconds, for each
        call (for each page of a listing); a stream of events has none. Without `credentials` the channel is
        plaintext: for a Unix socket, for loopback, or behind a proxy that adds TLS.

        `safe_retries`: each changing call carries a `request_id` of its own, so that gRPC may repeat it too when the
        authority is unreachable, and it still takes effect once; `channel_options` says what is repeated when. Each id
        costs the authority a sealed answer, kept for 24 hours. Without it, all changing calls but `revoke` are sent
        once, and after `Unavailable` and `Cancelled` it is unknown whether they took effect.
        """
        self._target = target
        self._application = application
        self._timeout = timeout
        self._credentials = credentials
        self._safe_retries = safe_retries
        self._streams: WeakSet[Any] = WeakSet()  # `close` ends these

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._target} application={self._application or 'default'}>"

    @property
    def target(self) -> str:
        """Where the authority is."""
        return self._target

    @property
    def application(self) -> str:
        """The application that every call is about; empty means `default`."""
        return self._application

    def _open(self, library: Any) -> Any:
        """A channel of `grpc` or of `grpc.aio`."""
        options = channel_options(safe_retries=self._safe_retries)
        if self._credentials is None:
            return library.insecure_channel(self._target, options=options)
        return library.secure_channel(self._target, self._credentials, options=options)

    def _identified(self, call: Call[Any]) -> Any:
        """The request of a call, with a `request_id` if it needs one. The caller's own id stays."""
        request = call.request
        wanted = call.needs_id or (self._safe_retries and call.rpc.changes)
        if wanted and not request.request_id:
            request.request_id = str(uuid4())  # from the operating system's randomness: it is a secret
        return request

    def _deadline(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


def as_method(method: Callable[..., Any], call: Callable[..., Any]) -> None:
    """Give a client's method the name, documentation and signature of the call it makes."""
    functools.update_wrapper(method, call)
    signature = inspect.signature(call)
    _, *parameters = signature.parameters.values()  # the first is the application, which the client knows
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # Without the return type `Call[...]`: each client answers in its own way (at once, awaited, or page by page).
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect.signature looks for it
        parameters=[own, *parameters], return_annotation=inspect.Signature.empty
    )
    del method.__wrapped__  # type: ignore[attr-defined]  # set by update_wrapper; the call takes other parameters
