"""How a client reaches an authority: what both clients set on their channel, and why."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import grpc

__all__ = ["CHANNEL_OPTIONS", "DEFAULT_TIMEOUT", "REPEATABLE", "Connection", "as_method"]

DEFAULT_TIMEOUT = 5.0
"""Seconds a call may take, unless its client or the call itself says otherwise."""

REPEATABLE = (
    "ValidateSession",
    "ValidateSessions",
    "RevokeSession",
    "GetSession",
    "ListSessions",
    "GetSessionData",
    "ListActivity",
    "GetAuthority",
)
"""Calls that may be made twice with the effect of one. gRPC itself repeats them where the authority is out of reach.

RevokeSessions is not among them: a repetition would count only the rest, and end sessions opened in between.
"""

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "sessiond.v1.SessionAuthority", "method": method} for method in REPEATABLE],
            "retryPolicy": {
                "maxAttempts": 5,  # over about two seconds: a restart
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2.5,
                # CANCELLED is what gRPC's server says to a call that comes in while it shuts down. What the caller
                # itself cancels is not repeated.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}

CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.service_config_disable_resolution", 1),  # the name service does not get to change what is safe to repeat
    # A quiet stream on a dead connection must be noticed. The authority allows one ping a minute; more often would
    # be answered with GOAWAY (too_many_pings).
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # An authority that restarts is back in a second; gRPC's own waits grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class Connection:
    """What a client was made with. The channel itself is each client's own affair."""

    def __init__(
        self,
        target: str,
        *,
        application: str = "",
        timeout: float = DEFAULT_TIMEOUT,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """`target` is `host:port` or `unix:/path`.

        `application` is the one that every call is about; empty means `default`. `timeout` is in seconds, for each
        call (for each page of a listing); a stream of events has none. Without `credentials` the channel is
        plaintext: for a Unix socket, for loopback, or behind a proxy that adds TLS.
        """
        self._target = target
        self._application = application
        self._timeout = timeout
        self._credentials = credentials
        self._streams: WeakSet[Any] = WeakSet()  # what `close` has to end

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
        if self._credentials is None:
            return library.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        return library.secure_channel(self._target, self._credentials, options=CHANNEL_OPTIONS)

    def _deadline(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


def as_method(method: Callable[..., Any], call: Callable[..., Any]) -> None:
    """Give a client's method the name, documentation and signature of the call it makes."""
    functools.update_wrapper(method, call)
    signature = inspect.signature(call)
    _, *parameters = signature.parameters.values()  # the first is the application, which the client knows
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    # Not told as `Call[...]`: each client answers in its own way (at once, awaited, or page by page).
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect.signature looks for it
        parameters=[own, *parameters], return_annotation=inspect.Signature.empty
    )
    del method.__wrapped__  # type: ignore[attr-defined]  # set by update_wrapper; the call takes other parameters
