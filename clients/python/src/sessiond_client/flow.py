"""A call from its first attempt to its answer, without I/O: retries, the circuit, rounds, unknown outcomes.

A flow is a generator. It yields the next step, a `Send` or a `Wait`, and returns the answer. Each client does the I/O
in its own way and sends back the response, or the `SessiondError` that the step ended in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from sessiond_client import calls
from sessiond_client.circuit import Circuit
from sessiond_client.errors import (
    Cancelled,
    ClientUnusable,
    DeadlineExceeded,
    ResourceExhausted,
    SessiondError,
    Unavailable,
    may_have_taken_effect,
    never_sent,
)
from sessiond_client.rpc import Call
from sessiond_client.tokens import Token

__all__ = ["Flow", "Flows", "Send", "Wait", "spread"]

T = TypeVar("T")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_GROWTH = 2.5
"""Seconds, and a factor. Four retries take about two seconds: a restart of the authority."""


@dataclass(slots=True)  # not frozen: that would triple the cost of making one
class Send:
    """Send this request. The reply is the response message, or a `SessiondError`."""

    name: str
    """The RPC's name in the contract."""
    request: Any = field(repr=False)
    timeout: float
    """Seconds."""
    deadline: float | None = None
    """By the monotonic clock, once a client has begun with it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait this many seconds. The reply is None, or the `SessiondError` that ends the call."""

    seconds: float


Flow = Generator[Send | Wait, Any, T]


def spread(least: float, most: float) -> float:
    """A random number between the two, so that clients do not all retry at the same moment."""
    from secrets import SystemRandom

    return SystemRandom().uniform(least, most)


@dataclass(frozen=True, slots=True)
class Flows:
    """Builds the flow of each call of one client."""

    timeout: float
    """Seconds, for a call that sets no timeout of its own."""
    retries: int
    """How often a call is repeated at most."""
    safe_retries: bool
    """Whether each changing call gets a `request_id`, so that it may be repeated."""
    circuit: Circuit = field(default_factory=Circuit)
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[float, float], float] = spread

    def of(self, call: Call[T]) -> Flow[T]:
        """The flow of a call. It raises `SessiondError`."""
        self.add_request_id(call)
        return self._in_rounds(call) if call.in_rounds else self._attempts(call)

    def after_first(self, call: Call[T], began: float, failed: SessiondError | None) -> Flow[T]:
        """The rest of a call whose first attempt began at that time, without a flow and while no outage was known.

        `failed`: what the attempt ended in; None: it is to be made again, in another way.
        """
        return self._attempts(call, began, failed)

    def seconds(self, timeout: float | None) -> float:
        """How long a call with that timeout may take."""
        return self.timeout if timeout is None else timeout

    def add_request_id(self, call: Call[Any]) -> None:
        """Give a request a `request_id` if it needs one. The caller's own id stays."""
        needed = call.needs_id or (self.safe_retries and call.rpc.changes)
        if needed and not call.request.request_id:
            call.request.request_id = str(uuid4())  # from the operating system's randomness: it is a secret

    def _attempts(self, call: Call[T], began: float | None = None, failed: SessiondError | None = None) -> Flow[T]:
        """Make attempts until one has an answer, a retry cannot help, or the time is up; see `after_first`."""
        attempts, error, is_admitted = _Attempts(self, call, began), failed, began is not None
        try:
            while True:
                if error is None and not is_admitted:
                    error = attempts.known_outage()
                if error is None:
                    reply = yield Send(call.rpc.name, call.request, attempts.time_left())
                    if not isinstance(reply, SessiondError):
                        self.circuit.reached()
                        try:
                            return call.read(reply)
                        except SessiondError as limit:
                            raise with_request_id(limit, call) from None
                    error = reply
                closed = yield Wait(attempts.pause_after(error))
                if closed is not None:
                    raise attempts.to_raise(closed)
                error, is_admitted = None, False
        finally:
            self.circuit.leave(attempts)

    def _in_rounds(self, call: Call[T]) -> Flow[T]:
        """Repeat the call, each time with a fresh deadline, as long as the authority's log advances."""
        rounds, revision = 0, -1
        while True:
            try:
                return (yield from self._attempts(call))
            except DeadlineExceeded as error:
                late = error
            try:
                newest = (yield from self._attempts(calls.authority(""))).revision
            except SessiondError:
                newest = revision
            if newest == revision:
                raise late
            rounds, revision = rounds + 1, newest
            if call.progress is not None:
                call.progress(rounds)


class _Attempts:
    """The attempts of one call: when the next one is due, and what the last error means."""

    __slots__ = ("_attempted", "_call", "_deadline", "_flows", "_last_failure", "_outcome_unknown", "_repeats")

    def __init__(self, flows: Flows, call: Call[Any], began: float | None) -> None:
        self._flows = flows
        self._call = call
        self._attempted = began is not None
        self._deadline = (flows.clock() if began is None else began) + flows.seconds(call.timeout)
        self._repeats = 0
        self._outcome_unknown = False
        self._last_failure = ""

    def time_left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._deadline - self._flows.clock())

    def known_outage(self) -> SessiondError | None:
        """The exception for an attempt that must not be made during an outage; None: make the attempt."""
        cause = self._flows.circuit.admit(self, self._flows.clock())
        if cause:
            return Unavailable(cause, status="UNAVAILABLE")
        self._attempted = True
        return None

    def pause_after(self, error: SessiondError) -> float:
        """How many seconds to wait before the next attempt. Raises `error` if there is none."""
        now, unsent = self._flows.clock(), never_sent(error)
        if unsent and self._attempted:
            self._flows.circuit.refused(self, error.message, now)
        elif self._attempted and not isinstance(error, (DeadlineExceeded, ClientUnusable)):
            self._flows.circuit.reached()  # there was a connection, even if it broke
        self._flows.circuit.leave(self)
        if not unsent:  # an attempt that was never sent says nothing about earlier ones; a reply does
            self._outcome_unknown = self._call.rpc.changes and may_have_taken_effect(error)
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * _GROWTH**self._repeats)
        pause = self._flows.jitter(0.8 * longest, 1.2 * longest)
        if isinstance(error, ResourceExhausted) and error.retry_after is not None:
            # Not earlier than the authority asked for; a little later, so that not all come at the same moment.
            pause = self._flows.jitter(error.retry_after, error.retry_after + _FIRST_PAUSE / 2)
        if not self._may_retry(error, unsent=unsent) or now + pause >= self._deadline:
            raise self.to_raise(error)
        self._repeats += 1
        self._last_failure = error.message
        return pause

    def _may_retry(self, error: SessiondError, *, unsent: bool) -> bool:
        # A call that begins during an outage fails at once. Only calls that were under way when it began wait for its
        # end.
        if not self._attempted or self._repeats >= self._flows.retries:
            return False
        # gRPC's server answers CANCELLED to a call that arrives while it shuts down.
        repeatable = self._call.rpc.repeatable or bool(getattr(self._call.request, "request_id", ""))
        if isinstance(error, ResourceExhausted):
            return error.retry_after is not None  # nothing has begun, so every call may be repeated
        return unsent or (repeatable and isinstance(error, (Unavailable, Cancelled)))

    def to_raise(self, error: SessiondError) -> SessiondError:
        """The exception for the caller, with the cause, the outcome and the request id added."""
        if isinstance(error, DeadlineExceeded):
            cause = self._last_failure or self._flows.circuit.cause
            if cause:
                error = DeadlineExceeded(f"{error.message}; before that: {cause}", status=error.status)
            elif not self._flows.circuit.was_reached:
                text = f"{error.message}; no call of this client has reached the authority yet"
                error = DeadlineExceeded(text, status=error.status)
        error.outcome_unknown = self._outcome_unknown
        return with_request_id(error, self._call)


def with_request_id(error: SessiondError, call: Call[Any]) -> SessiondError:
    """The same exception, with the call's `request_id` if it has one."""
    sent = getattr(call.request, "request_id", "")
    error.request_id = Token(sent) if sent else None
    return error
