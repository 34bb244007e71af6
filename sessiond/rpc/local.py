"""Calls of the contract from within the process, for what the server itself asks on behalf of a caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Self

from sessiond.access.limits import CallLimiter
from sessiond.authority.reading import Reading
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, PositionOutOfRange
from sessiond.domain.event import Event as LoggedEvent
from sessiond.edge.local import Answered, Repeatable
from sessiond.rpc import decode, encode
from sessiond.rpc.authorization import authorize
from sessiond.rpc.handlers import counted
from sessiond.rpc.status import status_message
from sessiond_client import convert
from sessiond_client.enums import EventType
from sessiond_client.errors import OutOfRange, from_failure
from sessiond_client.values import Checkpoint, Event
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["LocalCalls", "LocalEvents", "RepeatableAnswers"]

RepeatableAnswers = Callable[[Caller, bytes], tuple[Any, Repeatable | None] | None]
"""Answers a repeated ValidateSession; None: the service must answer. See `ValidationService.repeatable`."""


class LocalCalls:
    """Responds to requests with the methods of the services.

    The same callers may make the same calls as over gRPC, and the limits of applications hold; those of the caller are
    for whoever it asks through.
    """

    def __init__(
        self,
        services: Sequence[object],
        repeatable: RepeatableAnswers | None = None,
        limiter: CallLimiter | None = None,
    ) -> None:
        self._services = services
        self._repeatable = repeatable
        self._limiter = limiter

    async def respond(self, name: str, request: Any, caller: Caller) -> Answered:
        """Return the response to a request. Raise the `SessiondError` that a client of this caller would raise."""
        try:
            authorize(name, request, caller)
            if name == "ValidateSession" and self._repeatable is not None:
                known = self._repeatable(caller, request.SerializeToString())
                if known is not None:
                    return Answered(*known)
            method = next(getattr(one, name) for one in self._services if hasattr(one, name))
            with counted(name, request, caller, self._limiter):
                response = await method(request, caller)
        except AuthorityError as error:
            status = status_message(error)
            failure = pb.ValidationFailure(code=status.code, message=status.message, details=status.details)
            raise from_failure(failure) from None
        # A change that may be repeated is kept in the form in which it was sent.
        is_sent = isinstance(response, bytes)
        return Answered(getattr(pb, f"{name}Response").FromString(response) if is_sent else response)


class LocalEvents:
    """The event stream of all applications from within the process, for a connection guard."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def events(
        self, *, types: Sequence[EventType], checkpoint_interval: float, include_checkpoints: bool
    ) -> _Following:
        """Follow the events of these types from now on, as `AsyncClient.events` does."""
        del include_checkpoints  # a guard needs them, and always asks for them
        return _Following(self._events(types, checkpoint_interval))

    async def _events(self, types: Sequence[EventType], interval: float) -> AsyncGenerator[Event | Checkpoint, None]:
        numbers = [convert.event_type_number(one) for one in types]
        wanted = decode.event_filter(pb.EventFilter(types=numbers))
        try:
            async with aclosing(await self._reading.subscribe(None, wanted, interval, earliest=False)) as items:
                async for item in items:
                    if isinstance(item, LoggedEvent):
                        message = pb.Event()
                        encode.fill_event(message, item)
                        yield convert.event(message)
                    else:
                        yield Checkpoint(revision=item.revision, cursor="")
        except PositionOutOfRange:
            raise OutOfRange("the log was restored; begin again") from None
        await asyncio.Event().wait()  # the server stops, and the guard with it


class _Following:
    """A stream that ends with the block that it is used in."""

    def __init__(self, items: AsyncGenerator[Event | Checkpoint, None]) -> None:
        self._items = items

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._items.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Checkpoint:
        return await anext(self._items)
