"""What a view requires of a request: a decorator for functions and classes, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from inspect import isawaitable
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction

from sessiond_client.contrib.django.account import exchange_of
from sessiond_client.gateway import RouteRequirements, routes

__all__ = ["requires"]

V = TypeVar("V", bound=Callable[..., Any])


def requires(
    *,
    level: int = 0,
    max_age: timedelta | None = None,
    csrf: bool = False,
    guests: bool = False,
    companion: str = "",
    companion_cookie: str = "",
) -> Callable[[V], V]:
    """Decorate a view, a function or a class: it runs only for a user who is logged in, and who meets the rest.

    - `level`: the least level of authentication, 1 to 3. Otherwise the user is asked to authenticate again (step-up).
    - `max_age`: the user's last authentication must be younger than this.
    - `csrf`: require the CSRF token whatever the method.
    - `guests`: serve guests too; the other requirements then hold for users who are logged in.
    - `companion`, `companion_cookie`: the purpose of a companion token that the request must have, and its cookie.

    `max_age`, `csrf` and `companion` cost a second question.
    """

    def needed(request: Any) -> RouteRequirements:
        presented = request.COOKIES.get(companion_cookie) if companion else None
        pair = (companion, presented) if companion else None
        return RouteRequirements(level=level, max_age=max_age, csrf=csrf, guests=guests, companion=pair)

    def check(request: Any) -> None:
        exchange = exchange_of(request)
        request.sessiond.run(routes.require(exchange, needed(request)))

    async def acheck(request: Any) -> None:
        exchange = exchange_of(request)
        await request.sessiond.arun(routes.require(exchange, needed(request)))

    def decorate(view: V) -> V:
        if isinstance(view, type):
            kind: Any = view
            wrap = _async_method(kind.dispatch, acheck) if kind.view_is_async else _method(kind.dispatch, check)
            kind.dispatch = wrap
            return view
        checked: V = _async_function(view, acheck) if iscoroutinefunction(view) else _function(view, check)
        return checked

    return decorate


def _function(view: Any, check: Callable[[Any], None]) -> Any:
    @wraps(view)
    def checked(request: Any, *args: Any, **kwargs: Any) -> Any:
        check(request)
        return view(request, *args, **kwargs)

    return checked


def _async_function(view: Any, check: Callable[[Any], Awaitable[None]]) -> Any:
    @wraps(view)
    async def checked(request: Any, *args: Any, **kwargs: Any) -> Any:
        await check(request)
        return await view(request, *args, **kwargs)

    return checked


def _method(dispatch: Any, check: Callable[[Any], None]) -> Any:
    @wraps(dispatch)
    def checked(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        check(request)
        return dispatch(self, request, *args, **kwargs)

    return checked


def _async_method(dispatch: Any, check: Callable[[Any], Awaitable[None]]) -> Any:
    @wraps(dispatch)
    async def checked(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        await check(request)
        response = dispatch(self, request, *args, **kwargs)
        return await response if isawaitable(response) else response

    return checked
