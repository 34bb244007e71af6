"""Sessions in FastAPI: the middleware and functions of `sessiond_client.contrib.asgi`, and dependencies.

app.add_middleware(SessiondMiddleware, target="127.0.0.1:7443")

@app.get("/account")
async def account(user: CurrentUser): ...

@app.post("/payment", dependencies=[Depends(requires(level=2))])
async def payment(request: Request): ...
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from sessiond_client.contrib.asgi import (
    Action,
    ActivityRow,
    DeviceRow,
    Refused,
    ResponseBegun,
    RouteRequirements,
    SessiondMiddleware,
    TrustedProxies,
    csrf_token,
    current_session,
    current_subject,
    devices,
    end_device,
    end_other_devices,
    issue_companion,
    login,
    logout,
    logout_everywhere,
    recent_activity,
    require,
    roll,
    safe_path,
    save,
)
from sessiond_client.values import Session

__all__ = [
    "Action",
    "ActivityRow",
    "CurrentSession",
    "CurrentUser",
    "DeviceRow",
    "Refused",
    "ResponseBegun",
    "RouteRequirements",
    "SessiondMiddleware",
    "TrustedProxies",
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
    "safe_path",
    "save",
]


def requires(
    *, level: int = 0, max_age: timedelta | None = None, csrf: bool = False, guests: bool = False
) -> Callable[..., Coroutine[Any, Any, Session | None]]:
    """A dependency for what needs a user who is logged in, or more: `Depends(requires(level=2))`.

    Its value is the session; None for a guest without one, with `guests`. See `RouteRequirements` for the parameters.
    It works for requests and WebSockets, in endpoints, routers and applications. It is not a decorator.
    """
    requirements = RouteRequirements(level=level, max_age=max_age, csrf=csrf, guests=guests)

    # Only by keyword, as FastAPI calls it: used as a decorator it would do nothing, so that must be an error.
    async def depend_on_this(*, connection: HTTPConnection) -> Session | None:
        await require(connection, requirements)
        return current_session(connection)

    depend_on_this.__qualname__ = (
        "requires(...) is not a decorator; write dependencies=[Depends(requires(...))] instead. The dependency"
    )
    return depend_on_this


_any_user = requires()


async def _subject(connection: HTTPConnection) -> str:
    await _any_user(connection=connection)
    return current_subject(connection)


CurrentUser = Annotated[str, Depends(_subject)]
"""The user who is logged in; anybody else is refused."""
CurrentSession = Annotated[Session, Depends(_any_user)]
"""The session of the user who is logged in; anybody else is refused."""
