"""What an endpoint needs to serve one request: whose sessions, whom to ask, and who watches for changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sessiond_client.gateway import Gateway, Steps, run_async
from sessiond_client.guard import AsyncConnectionGuard

__all__ = ["Message", "Receive", "Send", "Site"]

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Site:
    """The application whose pages ask."""

    gateway: Gateway
    client: Any
    """Carries out the steps: an `AsyncClient`, or what has its methods."""
    guard: AsyncConnectionGuard
    """Follows the authority for all streams of the process."""

    async def ask(self, steps: Steps[T]) -> T:
        """Carry out steps."""
        return await run_async(self.client, steps)
