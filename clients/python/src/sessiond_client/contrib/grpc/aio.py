"""The interceptor for `grpc.aio.server`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from sessiond_client.contrib.clients import ClientPerLoop
from sessiond_client.contrib.grpc.call import CURRENT, SessionCall
from sessiond_client.contrib.grpc.rules import CLOSED, OUTAGE, Rules, opening, status_of, trailing, wrapped
from sessiond_client.gateway import OUTAGES, Refused, RouteRequirements
from sessiond_client.guard import AsyncConnectionGuard, AsyncWatch, Closing, SessionOver

__all__ = ["AsyncSessionInterceptor"]

T = TypeVar("T")


class AsyncSessionInterceptor(grpc.aio.ServerInterceptor):
    """For `grpc.aio.server`, with handlers that are coroutines or asynchronous generators.

    The parameters are those of `SessionInterceptor`. A stream whose session ends gets UNAUTHENTICATED.
    """

    def __init__(
        self,
        target: str,
        *,
        public_methods: Sequence[str] = (),
        requirements: Mapping[str, RouteRequirements] | None = None,
        **options: Any,
    ) -> None:
        self._rules = Rules(options, public_methods, requirements or {})
        self._clients = ClientPerLoop(target, self._rules.client_options)
        self._guard: AsyncConnectionGuard | None = None

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Wrap the handler of a call."""
        return wrapped(await continuation(handler_call_details), handler_call_details.method, self._wrap)

    async def close(self) -> None:
        """Close the client. Streams end."""
        if self._guard is not None:
            await self._guard.close()
        await self._clients.close()

    def _wrap(self, function: Any, method: str, streams_in: bool, streams_out: bool) -> Any:
        async def single(request: Any, context: Any) -> Any:
            async with self._call(function, method, context, watched=streams_in) as (call, until_closed):
                response = await until_closed(function(request, context))
                if not await call.run_async(call.exchange.save()):
                    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "session_ended")
                context.set_trailing_metadata(trailing(call.exchange, context.trailing_metadata()))
                return response

        async def several(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._call(function, method, context, watched=True) as (call, until_closed):
                context.set_trailing_metadata(trailing(call.exchange, ()))
                responses = function(request, context)
                if hasattr(responses, "__anext__"):
                    with contextlib.suppress(StopAsyncIteration):
                        while True:
                            yield await until_closed(anext(responses))
                else:  # a coroutine that writes to the context
                    await until_closed(responses)
                await call.run_async(call.exchange.save())

        return several if streams_out else single

    @contextlib.asynccontextmanager
    async def _call(
        self, function: Any, method: str, context: Any, *, watched: bool
    ) -> AsyncIterator[tuple[SessionCall, Callable[[Awaitable[Any]], Awaitable[Any]]]]:
        client = self._clients.get()
        exchange = self._rules.exchange(method, context.invocation_metadata(), context.peer())
        call = SessionCall(exchange, client)
        current = CURRENT.set(call)
        watch = None
        try:
            await call.run_async(opening(exchange, self._rules.requirements_of(method, function)))
            if watched and exchange.session is not None:
                if self._guard is None:
                    self._guard = AsyncConnectionGuard(client)
                watch = await self._guard.watch(exchange.session)
            yield call, functools.partial(_until_closed, watch)
        except Refused as refused:
            await context.abort(*status_of(refused))
        except SessionOver as over:
            closing = over.args[0] if isinstance(over.args[0], Closing) else Closing.ENDED
            await context.abort(*CLOSED[closing])
        except OUTAGES:
            await context.abort(*OUTAGE)
        finally:
            if watch is not None:
                watch.release()
            with contextlib.suppress(ValueError):  # a generator may be closed in another context
                CURRENT.reset(current)


async def _until_closed(watch: AsyncWatch | None, work: Awaitable[T]) -> T:
    """The result of the work. If the connection must be closed first, the work is cancelled, with `SessionOver`."""
    if watch is None:
        return await work
    task, closed = asyncio.ensure_future(work), asyncio.ensure_future(watch.closed())
    try:
        await asyncio.wait((task, closed), return_when=asyncio.FIRST_COMPLETED)
        if not task.done() or closed.done():
            raise SessionOver(closed.result())
        return task.result()
    finally:
        for future in (task, closed):
            future.cancel()
        await asyncio.gather(task, closed, return_exceptions=True)
