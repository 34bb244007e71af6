"""What handlers call: log in and out, list and end devices, and require more than a session."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sessiond_client.contrib.asgi.connection import SCOPE_KEY, Connection, connection_of
from sessiond_client.gateway import Exchange, RouteRequirements, Steps, account, routes
from sessiond_client.values import Session

__all__ = [
    "csrf_token",
    "current_session",
    "current_subject",
    "devices",
    "end_device",
    "end_other_devices",
    "issue_companion",
    "login",
    "logout",
    "logout_everywhere",
    "recent_activity",
    "require",
    "requires",
    "roll",
    "save",
]

P = ParamSpec("P")
T = TypeVar("T")


class Endpoint(Protocol):
    """A function or method that serves a request."""

    # A protocol, and not `Callable`, also because FastAPI then refuses the decorator as a dependency at once.
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


def _for_requests(
    function: Callable[Concatenate[Exchange, P], Steps[T]], *, sets_cookie: bool = False
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A function of the gateway that takes a request, and is awaited."""

    @functools.wraps(function)
    async def call(request: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        connection = connection_of(request)
        if sets_cookie:
            connection.check_not_begun(function.__name__)
        return await connection.ask(lambda: function(connection.exchange, *args, **kwargs))

    first, *others = inspect.signature(function).parameters.values()
    parameters = [first.replace(name="request", annotation=Any, kind=first.POSITIONAL_ONLY), *others]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


login = _for_requests(account.login, sets_cookie=True)
logout = _for_requests(account.logout)
logout_everywhere = _for_requests(account.logout_everywhere)
end_other_devices = _for_requests(account.end_other_devices)
devices = _for_requests(account.devices)
recent_activity = _for_requests(account.recent_activity)
end_device = _for_requests(account.end_device)
roll = _for_requests(account.roll, sets_cookie=True)
issue_companion = _for_requests(account.issue_companion, sets_cookie=True)
require = _for_requests(routes.require)


async def csrf_token(request: Any) -> str:
    """The CSRF token for a form or a script of this page. A guest without a session gets one for it.

    Empty if there can be none, because the client's cookie must stay as it is; the form is then refused.
    """
    connection = connection_of(request)
    if connection.exchange.csrf is None:
        connection.check_not_begun("csrf_token")
    return await connection.ask(lambda: account.csrf_token(connection.exchange))


async def save(request: Any) -> bool:
    """Store now what was changed in the session data, as in the middle of a WebSocket or a stream.

    Otherwise it is stored when the response begins, and what is changed later when the handler returns. Returns False
    if it could not be stored: the session has ended, or it is a guest's and would begin too late.
    """
    connection = connection_of(request)
    if connection.has_begun:
        return await connection.save_late()
    return await connection.ask(connection.exchange.save)


def current_session(request: Any) -> Session | None:
    """The session that this request is part of. None: it is a guest's without one."""
    exchange = connection_of(request).exchange
    exchange.accessed = True
    return exchange.session


def current_subject(request: Any) -> str:
    """The user who is logged in; empty for a guest."""
    return connection_of(request).exchange.subject


def requires(
    *, level: int = 0, max_age: timedelta | None = None, csrf: bool = False, guests: bool = False
) -> Callable[[Endpoint], Callable[..., Coroutine[Any, Any, Any]]]:
    """Decorate an endpoint that needs a user who is logged in, or more. See `RouteRequirements` for the parameters.

    The endpoint takes a request or a WebSocket of Starlette, or a scope, as any of its arguments. One that is not a
    coroutine function runs in Starlette's thread pool, as it does without the decorator. Put the decorator below the
    one that adds a route. In FastAPI use the `requires` of `sessiond_client.contrib.fastapi`.
    """
    requirements = RouteRequirements(level=level, max_age=max_age, csrf=csrf, guests=guests)

    def decorate(endpoint: Endpoint) -> Callable[..., Coroutine[Any, Any, Any]]:
        if not callable(endpoint) or inspect.isclass(endpoint):
            raise TypeError("requires: decorate a function or a method, such as `get` of an HTTPEndpoint")
        is_async = inspect.iscoroutinefunction(inspect.unwrap(_without_partial(endpoint)))

        @functools.wraps(endpoint)
        async def checked(*args: Any, **kwargs: Any) -> Any:
            await require(_found_among(args, kwargs), requirements)
            if is_async:
                return await endpoint(*args, **kwargs)
            from starlette.concurrency import run_in_threadpool

            return await run_in_threadpool(endpoint, *args, **kwargs)

        return checked

    return decorate


def _without_partial(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _found_among(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The argument that is a request, a WebSocket or a scope."""
    for argument in (*args, *kwargs.values()):
        scope = getattr(argument, "scope", argument)
        if isinstance(scope, Mapping) and isinstance(scope.get(SCOPE_KEY), Connection):
            return argument
    raise RuntimeError(
        "requires: no argument of the endpoint is a request of an application with SessiondMiddleware. Install the"
        " middleware, and let the endpoint take the request; in FastAPI, use Depends(requires(...)) of"
        " sessiond_client.contrib.fastapi"
    )
