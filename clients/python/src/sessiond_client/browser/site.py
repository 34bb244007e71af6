"""What an endpoint needs to serve one request: whose sessions, whom to ask, and who watches for changes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sessiond_client.errors import SessiondError, Unavailable
from sessiond_client.gateway import OUTAGES, Gateway, Steps, run_async
from sessiond_client.guard import AsyncConnectionGuard, AsyncWatch
from sessiond_client.values import Session

__all__ = ["Message", "Receive", "Send", "Site"]

T = TypeVar("T")
_log = logging.getLogger("sessiond_client")
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

    async def watch(self, session: Session) -> AsyncWatch:
        """Watch a session from now on. Release the watch. Raises `Unavailable` if nobody can say what happens to it."""
        try:
            return await self.guard.attach(session.session_id)
        except TimeoutError:
            raise Unavailable("the authority is out of reach") from None
        except OUTAGES:
            raise
        except SessiondError as error:
            # Such as a caller that may not subscribe. Pages ask for their status then.
            _log.warning("pages cannot follow their sessions: %s", error)
            raise Unavailable("there are no events") from None

    async def ask(self, steps: Steps[T]) -> T:
        """Carry out steps."""
        return await run_async(self.client, steps)
