"""What views do with the session of the current request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from flask import current_app

from sessiond_client.contrib.flask.session import here
from sessiond_client.gateway import ActivityRow, DeviceRow, RouteRequirements, account, routes
from sessiond_client.tokens import Token
from sessiond_client.values import Lifetimes, Session

__all__ = [
    "EXEMPT",
    "csrf_exempt",
    "csrf_token",
    "current_session",
    "current_subject",
    "devices",
    "end_device",
    "end_other_devices",
    "login",
    "logout",
    "logout_everywhere",
    "recent_activity",
    "requires",
    "roll",
]

P = ParamSpec("P")
R = TypeVar("R")

EXEMPT = "_sessiond_csrf_exempt"
"""The attribute of a view function that needs no CSRF token."""


def current_session() -> Session | None:
    """The session that this request is part of; None for a guest who has none."""
    exchange = here().exchange
    exchange.accessed = True
    return exchange.session


def current_subject() -> str:
    """The user who is logged in; empty for a guest. A template global too."""
    return here().exchange.subject


def requires(
    *, level: int = 0, max_age: timedelta | None = None, csrf: bool = False, guests: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a view: it runs only for a user who is logged in, and who meets the other requirements.

    - `level`: the least level of authentication, 1 to 3. Otherwise the user is asked to authenticate again (step-up).
    - `max_age`: the user's last authentication must be younger than this.
    - `csrf`: require the CSRF token whatever the method.
    - `guests`: serve guests too; the other requirements then hold for users who are logged in.

    `max_age` and `csrf` cost a second question. Put it below `@app.route`. For all views of a blueprint, decorate a
    `before_request` function that does nothing.
    """
    requirements = RouteRequirements(level=level, max_age=max_age, csrf=csrf, guests=guests)

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            asked = here()
            asked.run(routes.require(asked.exchange, requirements))
            return cast(R, current_app.ensure_sync(view)(*args, **kwargs))

        return checked

    return decorate


def csrf_exempt(view: Callable[P, R]) -> Callable[P, R]:
    """Mark a view: it needs no CSRF token, and may be called from other sites. For webhooks, for example.

    Works above and below `@app.route`. See the setting `csrf_exempt` for whole paths.
    """
    setattr(view, EXEMPT, True)
    return view


def csrf_token() -> str:
    """The CSRF token for the form field `csrf_token` or the header `X-CSRF-Token`. A template global too.

    A guest without a session gets one for it. See `gateway.account.csrf_token`.
    """
    asked = here()
    return asked.run(account.csrf_token(asked.exchange))


def login(
    subject: str,
    *,
    level: int = 1,
    methods: Sequence[str] = ("pwd",),
    persistent: bool = False,
    elevate: bool = False,
    labels: Mapping[str, str] | None = None,
    lifetimes: Lifetimes | None = None,
    ticket: str | Token | None = None,
    evict: Sequence[str] = (),
) -> None:
    """Log in a user whom you have authenticated, or authenticate the user again (step-up).

    The session gets a new token and keeps its data, if it was a guest's or this user's. Two clicks lead to one session.

    - `subject`: the user, 1 to 256 characters.
    - `level`, `methods`: how you have authenticated the user; see `Authentication`.
    - `persistent`: remember the session ("stay signed in").
    - `elevate`: `level` counts for the policy's elevation timeout only; the user must be logged in.
    - `labels`, `lifetimes`, `ticket`, `evict`: as for `Client.authenticate`.

    Raises `Refused` if the client's network is locked or its cookies are ambiguous, and `SessiondError`s such as
    `ConcurrencyLimitReached` as `Client.authenticate` does. Nobody is logged in then.
    """
    asked = here()
    asked.run(
        account.login(
            asked.exchange,
            subject,
            level=level,
            methods=methods,
            persistent=persistent,
            elevate=elevate,
            labels=labels,
            lifetimes=lifetimes,
            ticket=ticket,
            evict=evict,
        )
    )


def logout() -> None:
    """End the session of this request, if there is one, and delete its cookie."""
    asked = here()
    asked.run(account.logout(asked.exchange))


def logout_everywhere() -> int:
    """End all sessions of the user who is logged in. Returns how many were ended. Raises `Refused` for a guest.

    No replica, sidecar or near cache accepts any of them when it returns.
    """
    asked = here()
    return asked.run(account.logout_everywhere(asked.exchange))


def roll(reason: str) -> None:
    """Replace the token at a privilege change other than a login, such as a changed password. `reason` is recorded.

    Raises `Refused` if there is no session.
    """
    asked = here()
    asked.run(account.roll(asked.exchange, reason))


def devices() -> list[DeviceRow]:
    """The live sessions of the user who is logged in, newest first. Raises `Refused` for a guest."""
    asked = here()
    return asked.run(account.devices(asked.exchange))


def recent_activity(*, most: int = 50) -> list[ActivityRow]:
    """What happened lately to the account of the user who is logged in, newest first, at most so many rows.

    Raises `Refused` for a guest.
    """
    asked = here()
    return asked.run(account.recent_activity(asked.exchange, most=most))


def end_device(session_id: str) -> bool:
    """End one session of the user who is logged in. Returns False if it is not one of the user's.

    Raises `Refused` for a guest.
    """
    asked = here()
    return asked.run(account.end_device(asked.exchange, session_id))


def end_other_devices() -> int:
    """End all sessions of the user but this one. Returns how many were ended. Raises `Refused` for a guest."""
    asked = here()
    return asked.run(account.end_other_devices(asked.exchange))
