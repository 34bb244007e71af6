"""How an RPC of the contract behaves, and one call of it that is ready to send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

__all__ = ["Call", "Rpc"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rpc(Generic[T]):
    """An RPC of the contract, described in one place. The client decides from this what it may retry."""

    name: str
    """Its name in the contract."""
    read: Callable[[Any], T] = field(repr=False)
    """Turns the response message into the answer."""
    changes: bool = False
    """Whether it changes something. Such a request has a field `request_id`."""
    idempotent: bool = False
    """Whether a change has the same effect when it is made twice, even without a `request_id`."""

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent twice without a `request_id`."""
        return self.idempotent or not self.changes

    def call(self, request: Any, timeout: float | None, *, needs_id: bool = False) -> Call[T]:
        """A call with this request."""
        return Call(self, request, timeout, needs_id)


@dataclass(slots=True)  # not frozen: that would triple the cost of making one
class Call(Generic[T]):
    """One call, ready to send. Its repr leaves out the request, which may hold a token."""

    rpc: Rpc[T]
    request: Any = field(repr=False)
    """The request message."""
    timeout: float | None
    """Seconds; None: the client's own."""
    needs_id: bool = False
    """Whether it gets a `request_id` even if the client's `safe_retries` is off."""
    in_rounds: bool = False
    """Whether it does part of its work within each deadline, and is repeated until it has an answer."""
    progress: Callable[[int], None] | None = field(default=None, repr=False)
    """Called after each round but the last, with the number of rounds so far."""

    def read(self, response: Any) -> T:
        """The answer in a response message."""
        return self.rpc.read(response)
