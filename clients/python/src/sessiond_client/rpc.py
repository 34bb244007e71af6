"""How an RPC of the contract behaves, and one call of it that is ready to be sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

__all__ = ["Call", "Rpc"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rpc(Generic[T]):
    """An RPC of the contract, described in one place. What may be retried follows from it."""

    name: str
    """Its name in the contract."""
    read: Callable[[Any], T] = field(repr=False)
    """Turns the response message into the answer."""
    changes: bool = False
    """It changes something, so its request has a `request_id`."""
    idempotent: bool = False
    """A change that has the same effect made twice as made once, even without a `request_id`."""

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent twice without a `request_id`."""
        return self.idempotent or not self.changes

    def call(self, request: Any, timeout: float | None, *, needs_id: bool = False) -> Call[T]:
        """A call with this request."""
        return Call(self, request, timeout, needs_id)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call, ready to be sent. Its repr leaves out the request, which may hold a token."""

    rpc: Rpc[T]
    request: Any = field(repr=False)
    """The request message."""
    timeout: float | None
    """Seconds; None: the client's own."""
    needs_id: bool = False
    """It must have a `request_id` even if the client makes no safe retries: it may be repeated all the same."""
    in_rounds: bool = False
    """It does part of its work within each deadline, and is repeated until an answer says that it is done."""
    progress: Callable[[int], None] | None = field(default=None, repr=False)
    """Called after each round but the last, with their number."""

    def read(self, response: Any) -> T:
        """The answer in a response message."""
        return self.rpc.read(response)
