"""The interceptor for `grpc.server`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc

from sessiond_client.contrib.clients import ClientPerProcess
from sessiond_client.contrib.grpc.call import CURRENT, SessionCall
from sessiond_client.contrib.grpc.rules import CLOSED, OUTAGE, Rules, opening, status_of, trailing, wrapped
from sessiond_client.gateway import OUTAGES, Exchange, Refused, RouteRequirements
from sessiond_client.guard import Closing, ConnectionGuard, SessionOver

__all__ = ["SessionInterceptor"]


class SessionInterceptor(grpc.ServerInterceptor):
    """For `grpc.server`, with handlers that run in threads.

    - `public_methods`: methods that guests may call, as a path list: `/shop.v1.Catalog/` is a whole service.
    - `requirements`: what single methods need, by their full name. `requires` on a handler says the same.
    - `options`: those of `GatewaySettings` and of `ClientOptions`.

    A handler that waits when its session ends is cancelled: its client sees CANCELLED. Raises `ValueError` and
    `TypeError` for wrong settings.
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
        self._clients = ClientPerProcess(target, self._rules.client_options)
        self._guard: ConnectionGuard | None = None

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Wrap the handler of a call."""
        return wrapped(continuation(handler_call_details), handler_call_details.method, self._wrap)

    def close(self) -> None:
        """Close the client. Streams end."""
        if self._guard is not None:
            self._guard.close()
        self._clients.close()

    def _wrap(self, function: Any, method: str, streams_in: bool, streams_out: bool) -> Any:
        def single(request: Any, context: Any) -> Any:
            with self._call(function, method, context, watched=streams_in) as call:
                response = function(request, context)
                if not call.run(call.exchange.save()):
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "session_ended")
                context.set_trailing_metadata(trailing(call.exchange, context.trailing_metadata()))
                return response

        def several(request: Any, context: Any) -> Iterator[Any]:
            with self._call(function, method, context, watched=True) as call:
                context.set_trailing_metadata(trailing(call.exchange, ()))
                yield from function(request, context)
                call.run(call.exchange.save())

        return several if streams_out else single

    @contextlib.contextmanager
    def _call(self, function: Any, method: str, context: Any, *, watched: bool) -> Iterator[SessionCall]:
        client = self._clients.get()
        exchange = self._rules.exchange(method, context.invocation_metadata(), context.peer())
        call = SessionCall(exchange, client)
        current = CURRENT.set(call)
        try:
            call.run(opening(exchange, self._rules.requirements_of(method, function)))
            with self._watch(exchange, context) if watched else contextlib.nullcontext():
                yield call
        except Refused as refused:
            context.abort(*status_of(refused))
        except SessionOver:
            context.abort(*CLOSED[Closing.ENDED])
        except OUTAGES:
            context.abort(*OUTAGE)
        finally:
            CURRENT.reset(current)

    @contextlib.contextmanager
    def _watch(self, exchange: Exchange, context: Any) -> Iterator[None]:
        if exchange.session is None:
            yield
            return
        if self._guard is None:
            self._guard = ConnectionGuard(self._clients.get())
        with self._guard.watch(exchange.session, lambda closing: context.cancel()):
            yield
