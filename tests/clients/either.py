"""One face for both clients, so that each fact about the client is tested of both."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from sessiond_client import AsyncClient, Client

__all__ = ["CLIENTS", "Either", "Following", "Kind"]

Kind = type[AsyncClient] | type[Client]
CLIENTS: tuple[type[AsyncClient] | type[Client], ...] = (AsyncClient, Client)


class Either:
    """A client of either kind whose calls are awaited: those of `Client` run in a thread."""

    def __init__(self, kind: Kind, target: str, **settings: Any) -> None:
        self.client = kind(target, **settings)

    @classmethod
    def of(cls, client: AsyncClient | Client) -> Self:
        """One that is there already."""
        either = cls.__new__(cls)
        either.client = client
        return either

    @property
    def is_async(self) -> bool:
        """Whether it is the client for asyncio."""
        return isinstance(self.client, AsyncClient)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self.client, name)
        if isinstance(self.client, AsyncClient):
            return method  # type: ignore[no-any-return]  # found by name
        return functools.partial(asyncio.to_thread, method)

    async def all(self, name: str, *args: Any, **conditions: Any) -> list[Any]:
        """All items of a method that goes through pages."""
        method = getattr(self.client, name)
        if isinstance(self.client, AsyncClient):
            return [item async for item in method(*args, **conditions)]
        return await asyncio.to_thread(lambda: list(method(*args, **conditions)))

    async def newest_revision(self) -> int:
        """The revision of the newest event in the log."""
        return int((await self.authority()).revision)

    def follow(self, **query: Any) -> Following:
        """The event stream."""
        return Following(self.client.events(**query))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Following:
    """The event stream of either client."""

    def __init__(self, events: Any) -> None:
        self.events = events

    async def next(self) -> Any:
        """The next item. Raises StopAsyncIteration at the end."""
        if hasattr(self.events, "__anext__"):
            return await anext(self.events)
        item = await asyncio.to_thread(next, self.events, None)
        if item is None:
            raise StopAsyncIteration
        return item

    async def take(self, count: int) -> list[Any]:
        """The next so many items."""
        return [await self.next() for _ in range(count)]

    async def close(self) -> None:
        """End it."""
        if hasattr(self.events, "__anext__"):
            await self.events.close()
        else:
            self.events.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
