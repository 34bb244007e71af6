"""What a call does from its first attempt to its answer, without I/O: retries, the circuit, rounds, unknown outcomes.

A flow is a generator. It yields what is to be done, a `Send` or a `Wait`, and returns the answer. Each client does the
I/O in its own way and passes the response in, or the `SessiondError` that came instead.
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
    SessiondError,
    Unavailable,
    is_refused,
    may_have_happened,
)
from sessiond_client.rpc import Call
from sessiond_client.tokens import Token

__all__ = ["Flow", "Flows", "Send", "Wait", "spread"]

T = TypeVar("T")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_GROWTH = 2.5
"""Seconds, and a factor. Four retries take about two seconds: a restart of the authority."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this request. The reply is the response message, or a `SessiondError`."""

    name: str
    """The RPC's name in the contract."""
    request: Any = field(repr=False)
    timeout: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds. The reply is None, or the `SessiondError` that ends the call."""

    seconds: float


Flow = Generator[Send | Wait, Any, T]


def spread(least: float, most: float) -> float:
    """A random number in between, so that clients do not come back all at once."""
    from secrets import SystemRandom

    return SystemRandom().uniform(least, most)


@dataclass(frozen=True, slots=True)
class Flows:
    """Makes the flows of one client's calls."""

    timeout: float
    """Seconds, for a call that sets no limit of its own."""
    retries: int
    """How often a call is repeated, at most."""
    safe_retries: bool
    """Whether each changing call has an id, so that it may be repeated."""
    circuit: Circuit = field(default_factory=Circuit)
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[float, float], float] = spread

    def of(self, call: Call[T]) -> Flow[T]:
        """The flow of a call. Raises `SessiondError`."""
        self.identify(call)
        return self._in_rounds(call) if call.in_rounds else self._attempts(call)

    def identify(self, call: Call[Any]) -> None:
        """Give a request a `request_id` if it needs one. The caller's own id stays."""
        wanted = call.needs_id or (self.safe_retries and call.rpc.changes)
        if wanted and not call.request.request_id:
            call.request.request_id = str(uuid4())  # from the operating system's randomness: it is a secret

    def _attempts(self, call: Call[T]) -> Flow[T]:
        """Attempts until there is an answer, an error that stays, or no time."""
        attempts = _Attempts(self, call)
        try:
            while True:
                error = attempts.refusal()
                if error is None:
                    reply = yield Send(call.rpc.name, call.request, attempts.time_left())
                    if not isinstance(reply, SessiondError):
                        self.circuit.reached()
                        try:
                            return call.read(reply)
                        except SessiondError as limit:
                            raise with_id(limit, call) from None
                    error = reply
                closed = yield Wait(attempts.pause_after(error))
                if closed is not None:
                    raise attempts.final(closed)
        finally:
            self.circuit.leave(attempts)

    def _in_rounds(self, call: Call[T]) -> Flow[T]:
        """Rounds with a deadline each, as long as the authority's log advances."""
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
    """The attempts of one call: when the next is due, and what the last error means."""

    def __init__(self, flows: Flows, call: Call[Any]) -> None:
        self._flows = flows
        self._call = call
        self._deadline = flows.clock() + (flows.timeout if call.timeout is None else call.timeout)
        self._repeats = 0
        self._begun = False
        self._unknown = False
        self._cause = ""

    def time_left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._deadline - self._flows.clock())

    def refusal(self) -> SessiondError | None:
        """What an attempt would end in if the authority is known to be out of reach; None: make it."""
        cause = self._flows.circuit.admit(self, self._flows.clock())
        if cause:
            return Unavailable(cause, status="UNAVAILABLE")
        self._begun = True
        return None

    def pause_after(self, error: SessiondError) -> float:
        """How many seconds to wait before the next attempt. Raises `error` if there is none."""
        now, refused = self._flows.clock(), is_refused(error)
        if refused and self._begun:
            self._flows.circuit.refused(self, error.message, now)
        elif self._begun and not isinstance(error, (DeadlineExceeded, ClientUnusable)):
            self._flows.circuit.reached()  # there was a connection, even if it broke
        self._flows.circuit.leave(self)
        if not refused:  # a refused attempt says nothing about those before it; the authority's judgement does
            self._unknown = self._call.rpc.changes and may_have_happened(error)
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * _GROWTH**self._repeats)
        pause = self._flows.jitter(0.8 * longest, 1.2 * longest)
        if not self._may_follow(error, refused=refused) or now + pause >= self._deadline:
            raise self.final(error)
        self._repeats += 1
        self._cause = error.message
        return pause

    def _may_follow(self, error: SessiondError, *, refused: bool) -> bool:
        # A call that begins during an outage fails at once: only those that the outage surprised wait for its end.
        if not self._begun or self._repeats >= self._flows.retries:
            return False
        # gRPC's server answers CANCELLED to a call that arrives while it shuts down.
        repeatable = self._call.rpc.repeatable or bool(getattr(self._call.request, "request_id", ""))
        return refused or (repeatable and isinstance(error, (Unavailable, Cancelled)))

    def final(self, error: SessiondError) -> SessiondError:
        """The exception that the caller gets."""
        if isinstance(error, DeadlineExceeded):
            cause = self._cause or self._flows.circuit.cause
            if cause:
                error = DeadlineExceeded(f"{error.message}; before that: {cause}", status=error.status)
            elif not self._flows.circuit.was_reached:
                text = f"{error.message}; no call of this client has reached the authority yet"
                error = DeadlineExceeded(text, status=error.status)
        error.outcome_unknown = self._unknown
        return with_id(error, self._call)


def with_id(error: SessiondError, call: Call[Any]) -> SessiondError:
    """The exception with the id of the call, if it has one."""
    sent = getattr(call.request, "request_id", "")
    error.request_id = Token(sent) if sent else None
    return error
