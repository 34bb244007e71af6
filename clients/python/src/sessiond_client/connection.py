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

from sessiond_client.calls import Call

__all__ = ["DEFAULT_TIMEOUT", "REPEATABLE", "REPEATABLE_WITH_ID", "Connection", "as_method", "channel_options"]

DEFAULT_TIMEOUT = 5.0
"""Seconds a call may take, unless its client or the call itself says otherwise."""

REPEATABLE = (
    "ValidateSession",
    "ValidateSessions",
    "RevokeSession",
    "GetSession",
    "ListSessions",
    "GetSessionData",
    "IssueCompanionToken",
    "ListActivity",
    "ListSourceLocks",
    "GetAuthority",
)
"""Calls that may be made twice with the effect of one, whatever they carry.

RevokeSession is among them: what has ended stays ended. Where it opens an anonymous session too, it always has an id.
"""

REPEATABLE_WITH_ID = (
    "CreateSession",
    "AuthenticateSession",
    "RollSession",
    "RefreshSession",
    "RevokeSessions",
    "UpdateSessionData",
    "ReportSignal",
    "ClearSourceLock",
)
"""Calls that may be made twice with the effect of one where both carry the same `request_id`."""

_RETRY_POLICY = {
    "maxAttempts": 5,  # over about two seconds: a restart
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2.5,
    # CANCELLED is what gRPC's server says to a call that comes in while it shuts down. What the caller itself cancels
    # is not repeated. DEADLINE_EXCEEDED is not here: the deadline is of all attempts together, so no time is left.
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
}


def channel_options(*, safe_retries: bool) -> tuple[tuple[str, str | int], ...]:
    """How a channel behaves. gRPC itself repeats a call, with the same bytes and so with the same id.

    It repeats after UNAVAILABLE and CANCELLED, up to four times with growing pauses and within the call's deadline, and
    only while nothing of an answer has come in: one that breaks off half-way is not asked for again.
    """
    methods = (*REPEATABLE, *REPEATABLE_WITH_ID) if safe_retries else REPEATABLE
    names = [{"service": "sessiond.v1.SessionAuthority", "method": method} for method in methods]
    config = {"methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}]}
    return (("grpc.service_config", json.dumps(config)), *_CHANNEL_OPTIONS)


_CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config_disable_resolution", 1),  # the name service does not get to change what is safe to repeat
    # gRPC keeps a call's bytes for its repetition, 256 KiB of them unless told otherwise, and does not repeat a longer
    # one: a large batch. This is more than the longest message that an authority takes.
    ("grpc.per_rpc_retry_buffer_size", 8 * 1024 * 1024),
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
        safe_retries: bool = True,
    ) -> None:
        """`target` is `host:port` or `unix:/path`.

        `application` is the one that every call is about; empty means `default`. `timeout` is in seconds, for each
        call (for each page of a listing); a stream of events has none. Without `credentials` the channel is
        plaintext: for a Unix socket, for loopback, or behind a proxy that adds TLS.

        `safe_retries`: each changing call carries a `request_id` of its own, so that it too is repeated where the
        authority is out of reach, with the effect of one; see `channel_options` for what is repeated when. It costs the
        authority a sealed answer a call, kept for 24 hours. Without it all changing calls but `revoke` are made once,
        and after `Unavailable` and `Cancelled` nobody knows whether they took place.
        """
        self._target = target
        self._application = application
        self._timeout = timeout
        self._credentials = credentials
        self._safe_retries = safe_retries
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
        options = channel_options(safe_retries=self._safe_retries)
        if self._credentials is None:
            return library.insecure_channel(self._target, options=options)
        return library.secure_channel(self._target, self._credentials, options=options)

    def _identified(self, call: Call[Any]) -> Any:
        """A call's request, with an id where it is a changing one. A caller's own id stays."""
        request = call.request
        if call.rpc == "RevokeSession":
            # gRPC repeats it in any case, and must not open two sessions.
            wanted = self._safe_retries or request.open_anonymous
        else:
            wanted = self._safe_retries and call.rpc in REPEATABLE_WITH_ID
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
    # Not told as `Call[...]`: each client answers in its own way (at once, awaited, or page by page).
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect.signature looks for it
        parameters=[own, *parameters], return_annotation=inspect.Signature.empty
    )
    del method.__wrapped__  # type: ignore[attr-defined]  # set by update_wrapper; the call takes other parameters
