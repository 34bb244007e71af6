"""Checks of the settings, for `manage.py check` and at every start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.checks import Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from sessiond_client.contrib.django.configuration import BACKEND, MIDDLEWARE, options, refusal_view
from sessiond_client.contrib.django.middleware import SessiondMiddleware

__all__ = ["check_settings"]

_LATER = (
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.auth.middleware.RemoteUserMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "sessiond_client.contrib.django.csrf.CsrfViewMiddleware",
)
_WITHOUT_EFFECT = (
    "SESSION_COOKIE_AGE",
    "SESSION_COOKIE_DOMAIN",
    "SESSION_COOKIE_HTTPONLY",
    "SESSION_COOKIE_PATH",
    "SESSION_COOKIE_SAMESITE",
    "SESSION_COOKIE_SECURE",
    "SESSION_EXPIRE_AT_BROWSER_CLOSE",
    "SESSION_SAVE_EVERY_REQUEST",
    "CSRF_USE_SESSIONS",
)


def check_settings(app_configs: Any, **kwargs: Any) -> list[Any]:
    """What is wrong with the settings."""
    return [*_options(), *_engine(), *_order(), *_without_effect()]


def _options() -> Iterator[Any]:
    try:
        options()
    except ImproperlyConfigured as error:
        yield Error(str(error), hint="GatewaySettings and ClientOptions list the options.", id="sessiond.E001")
        return
    try:
        refusal_view()
    except ImportError as error:
        yield Error(f"SESSIOND: REFUSAL_VIEW cannot be imported: {error}", id="sessiond.E001")


def _engine() -> Iterator[Any]:
    if settings.SESSION_ENGINE != BACKEND and not _has_our_store():
        yield Error(
            f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}, so sessiond keeps no sessions.",
            hint=f"Set SESSION_ENGINE = {BACKEND!r}.",
            id="sessiond.E002",
        )


def _has_our_store() -> bool:
    from sessiond_client.contrib.django.backend import SessionStore

    try:
        return issubclass(import_string(f"{settings.SESSION_ENGINE}.SessionStore"), SessionStore)
    except (ImportError, TypeError):
        return False


def _order() -> Iterator[Any]:
    kinds = {path: _imported(path) for path in settings.MIDDLEWARE}
    ours = [path for path, kind in kinds.items() if _is(kind, SessiondMiddleware)]
    djangos = [path for path, kind in kinds.items() if _is(kind, SessionMiddleware) and path not in ours]
    if djangos:
        yield Error(
            f"MIDDLEWARE has {djangos[0]!r}, which reads and sets a cookie of its own.",
            hint=f"Replace it by {MIDDLEWARE!r}.",
            id="sessiond.E003",
        )
    elif not ours:
        yield Error(
            f"MIDDLEWARE lacks {MIDDLEWARE!r}.",
            hint="Put it where Django's SessionMiddleware was, before everything that uses the session.",
            id="sessiond.E003",
        )
    if ours:
        before = settings.MIDDLEWARE[: settings.MIDDLEWARE.index(ours[0])]
        for path in [path for path in before if _uses_sessions(kinds[path])]:
            yield Error(
                f"MIDDLEWARE: {path!r} uses the session, and comes before {ours[0]!r}.",
                hint=f"Move {path!r} behind it.",
                id="sessiond.E004",
            )


def _without_effect() -> Iterator[Any]:
    for name in _WITHOUT_EFFECT:
        if settings.is_overridden(name):
            yield Warning(
                f"{name} has no effect: the authority's policy decides.",
                hint="Remove it, and set the policy of the application in sessiond.toml.",
                id="sessiond.W001",
            )
    for origin in settings.CSRF_TRUSTED_ORIGINS:
        if "*" in origin:
            yield Warning(
                f"CSRF_TRUSTED_ORIGINS: {origin!r} has no effect: only whole origins are trusted.",
                hint="List each origin.",
                id="sessiond.W002",
            )


def _imported(path: str) -> Any:
    try:
        return import_string(path)
    except ImportError:
        return None  # Django itself reports it


def _is(kind: Any, other: type[Any]) -> bool:
    return isinstance(kind, type) and issubclass(kind, other)


def _uses_sessions(kind: Any) -> bool:
    return any(_is(kind, found) for path in _LATER if isinstance(found := _imported(path), type))
