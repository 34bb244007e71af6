"""What views do with the user's sessions, beside Django's own `login` and `logout`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from django.contrib.auth import BACKEND_SESSION_KEY, SESSION_KEY, alogin, login
from django.core.exceptions import ImproperlyConfigured

from sessiond_client.contrib.django.backend import SessionStore
from sessiond_client.contrib.django.configuration import MIDDLEWARE
from sessiond_client.contrib.django.csrf import page_token
from sessiond_client.contrib.django.visit import masked
from sessiond_client.errors import SessiondError
from sessiond_client.gateway import Action, ActivityRow, DeviceRow, Exchange, Refused, Steps, account
from sessiond_client.tokens import Token
from sessiond_client.values import Lifetimes, Session

__all__ = [
    "acsrf_token",
    "adevices",
    "aend_device",
    "aend_other_devices",
    "alogout_everywhere",
    "arecent_activity",
    "asessiond_login",
    "csrf_token",
    "current_session",
    "devices",
    "end_device",
    "end_other_devices",
    "exchange_of",
    "logout_everywhere",
    "recent_activity",
    "on_login",
    "sessiond_login",
]

T = TypeVar("T")


def exchange_of(request: Any) -> Exchange:
    """The gateway's exchange of a request. Raises `ImproperlyConfigured` without the middleware."""
    visit = getattr(request, "sessiond", None)
    if visit is None:
        raise ImproperlyConfigured(f"this needs {MIDDLEWARE} in MIDDLEWARE")
    exchange: Exchange = visit.exchange
    return exchange


def sessiond_login(
    request: Any,
    user: Any,
    *,
    backend: str | None = None,
    level: int = 1,
    methods: Sequence[str] = ("pwd",),
    persistent: bool = False,
    elevate: bool = False,
    labels: Mapping[str, str] | None = None,
    lifetimes: Lifetimes | None = None,
    ticket: str | Token | None = None,
    evict: Sequence[str] = (),
) -> None:
    """Django's `login` that also says how the user was authenticated; for a step-up as well.

    - `user`, `backend`: as for Django's `login`.
    - `level`, `methods`: how you have authenticated the user; see `Authentication`. Django's `login` means level 1 and
      `("pwd",)`.
    - `persistent`: remember the session ("stay signed in").
    - `elevate`: `level` counts for the policy's elevation timeout only; the user must be logged in.
    - `labels`, `lifetimes`, `ticket`, `evict`: as for `Client.authenticate`.

    A user who authenticates again keeps the `backend`.

    Raises `Refused` for a user who is not logged in (`AnonymousUser`), if the client's network is locked, or if its
    cookies are ambiguous, and `SessiondError`s such as
    `ConcurrencyLimitReached`. Nobody is logged in then. Django's `login` raises the same.
    """
    options = _login_options(level, methods, persistent, elevate, labels, lifetimes, ticket, evict)
    _check_user(request, user)
    with _logging_in(request, options):
        login(request, user, backend or _own_backend(user, request.user, request.session.get(BACKEND_SESSION_KEY)))


async def asessiond_login(
    request: Any,
    user: Any,
    *,
    backend: str | None = None,
    level: int = 1,
    methods: Sequence[str] = ("pwd",),
    persistent: bool = False,
    elevate: bool = False,
    labels: Mapping[str, str] | None = None,
    lifetimes: Lifetimes | None = None,
    ticket: str | Token | None = None,
    evict: Sequence[str] = (),
) -> None:
    """As `sessiond_login`."""
    options = _login_options(level, methods, persistent, elevate, labels, lifetimes, ticket, evict)
    _check_user(request, user)
    with _logging_in(request, options):
        known = await request.session.aget(BACKEND_SESSION_KEY)
        await alogin(request, user, backend or _own_backend(user, await request.auser(), known))


def logout_everywhere(request: Any) -> int:
    """End all sessions of the user who is logged in. Returns how many were ended. Raises `Refused` for a guest.

    No replica, sidecar or near cache accepts any of them when it returns. Call Django's `logout` after it: it clears
    `request.user`.
    """
    return _run(request, account.logout_everywhere(exchange_of(request)))


async def alogout_everywhere(request: Any) -> int:
    """As `logout_everywhere`."""
    return await _arun(request, account.logout_everywhere(exchange_of(request)))


def devices(request: Any) -> list[DeviceRow]:
    """The live sessions of the user who is logged in, newest first. Raises `Refused` for a guest."""
    return _run(request, account.devices(exchange_of(request)))


async def adevices(request: Any) -> list[DeviceRow]:
    """As `devices`."""
    return await _arun(request, account.devices(exchange_of(request)))


def end_device(request: Any, session_id: str) -> bool:
    """End one session of the user who is logged in. Returns False if it is not one of the user's.

    Raises `Refused` for a guest.
    """
    return _run(request, account.end_device(exchange_of(request), session_id))


async def aend_device(request: Any, session_id: str) -> bool:
    """As `end_device`."""
    return await _arun(request, account.end_device(exchange_of(request), session_id))


def end_other_devices(request: Any) -> int:
    """End all sessions of the user but this one. Returns how many were ended. Raises `Refused` for a guest."""
    return _run(request, account.end_other_devices(exchange_of(request)))


async def aend_other_devices(request: Any) -> int:
    """As `end_other_devices`."""
    return await _arun(request, account.end_other_devices(exchange_of(request)))


def recent_activity(request: Any, *, most: int = 50) -> list[ActivityRow]:
    """What happened lately to the account of the user who is logged in, newest first, at most so many rows.

    Raises `Refused` for a guest.
    """
    return _run(request, account.recent_activity(exchange_of(request), most=most))


async def arecent_activity(request: Any, *, most: int = 50) -> list[ActivityRow]:
    """As `recent_activity`."""
    return await _arun(request, account.recent_activity(exchange_of(request), most=most))


def csrf_token(request: Any) -> str:
    """The CSRF token for a script, to be sent in the header `X-CSRFToken`. Templates have `{% csrf_token %}`.

    Empty if there can be none. A guest without a session gets one for it.
    """
    exchange_of(request)
    return page_token(request)


async def acsrf_token(request: Any) -> str:
    """As `csrf_token`. In an asynchronous view, await it before a template with `{% csrf_token %}` is rendered."""
    exchange = exchange_of(request)
    await _arun(request, account.csrf_token(exchange))
    return masked(exchange.csrf) if exchange.csrf is not None else ""


def current_session(request: Any) -> Session | None:
    """The session that a request is part of; None for a guest who has none."""
    exchange = exchange_of(request)
    request.sessiond.open()
    request.sessiond.admit()
    exchange.accessed = True
    return exchange.session


def on_login(*, request: Any, user: Any, **_: Any) -> None:
    """Django's signal `user_logged_in`: make the user the subject of the session."""
    session = getattr(request, "session", None)
    if not isinstance(session, SessionStore):
        return
    for name in ("CSRF_COOKIE", "CSRF_COOKIE_NEEDS_UPDATE"):
        request.META.pop(name, None)  # the secret of Django's own CSRF protection, which its login renews
    if session.state.has_new_user and session.get(SESSION_KEY) == user._meta.pk.value_to_string(user):
        try:
            session.state.visit.run(session.state.log_in())
        except (Refused, SessiondError):
            if hasattr(request, "user") and SESSION_KEY not in session:
                request.user = _nobody()
            raise


def _nobody() -> Any:
    from django.contrib.auth.models import AnonymousUser  # not before the models are loaded

    return AnonymousUser()


def _login_options(
    level: int,
    methods: Sequence[str],
    persistent: bool,
    elevate: bool,
    labels: Mapping[str, str] | None,
    lifetimes: Lifetimes | None,
    ticket: str | Token | None,
    evict: Sequence[str],
) -> dict[str, Any]:
    return {
        "level": level,
        "methods": methods,
        "persistent": persistent,
        "elevate": elevate,
        "labels": labels,
        "lifetimes": lifetimes,
        "ticket": ticket,
        "evict": evict,
    }


def _check_user(request: Any, user: Any) -> None:
    """Raise `Refused` for a guest: there is nobody to log in."""
    if not getattr(user, "is_authenticated", False):
        raise exchange_of(request).refuse(Action.LOGIN)


def _own_backend(user: Any, logged_in: Any, backend: Any) -> str | None:
    """The backend of a user who authenticates again: Django asks for one if there are several."""
    is_same = getattr(user, "pk", None) is not None and user.pk == getattr(logged_in, "pk", None)
    return str(backend) if is_same and backend and not hasattr(user, "backend") else None


@contextmanager
def _logging_in(request: Any, options: dict[str, Any]) -> Iterator[None]:
    session = request.session
    if not isinstance(session, SessionStore):
        raise ImproperlyConfigured("sessiond_login needs sessions of sessiond; see SESSION_ENGINE")
    session.state.login_options = options
    try:
        yield
    finally:
        session.state.login_options = {}


def _ready(request: Any, steps: Steps[T]) -> Steps[T]:
    """The steps, after what Django did to the session in this request."""
    yield from request.session.state.settle()
    return (yield from steps)


def _run(request: Any, steps: Steps[T]) -> T:
    visit = request.sessiond
    visit.open()
    visit.admit()
    result: T = visit.run(_ready(request, steps))
    return result


async def _arun(request: Any, steps: Steps[T]) -> T:
    visit = request.sessiond
    await visit.aopen()
    visit.admit()
    result: T = await visit.arun(_ready(request, steps))
    return result
