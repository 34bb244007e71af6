"""What the settings of a Django project say: the authority, the gateway's settings, and the clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.http import HttpHeaders
from django.shortcuts import resolve_url
from django.utils.module_loading import import_string

from sessiond_client.contrib.clients import ClientPerLoop, ClientPerProcess, split_options
from sessiond_client.contrib.django.codec import codec_of
from sessiond_client.gateway import Gateway, GatewaySettings
from sessiond_client.settings import ClientOptions

__all__ = ["APP", "BACKEND", "MIDDLEWARE", "Project", "options", "project", "refusal_view"]

APP = "sessiond_client.contrib.django"
BACKEND = f"{APP}.backend"
MIDDLEWARE = f"{APP}.middleware.SessiondMiddleware"

DEFAULT_TARGET = "127.0.0.1:7443"
"""Where `sessiond serve` listens unless it is configured otherwise."""

_OWN = ("target", "refusal_view", "async_interceptors")


def options() -> tuple[str, GatewaySettings, ClientOptions]:
    """The target, the gateway's settings and the client's options. Raises `ImproperlyConfigured` for a wrong one."""
    given = _given()
    if not all(isinstance(name, str) and name.isupper() for name in given):
        raise ImproperlyConfigured("SESSIOND: write names in capitals, such as TARGET")
    named = {name.lower(): value for name, value in given.items()}
    target = named.get("target", DEFAULT_TARGET)
    if not isinstance(target, str):
        raise ImproperlyConfigured("SESSIOND: TARGET is a text, such as '127.0.0.1:7443'")
    others = {name: value for name, value in named.items() if name not in _OWN}
    try:
        ours, of_client = split_options({**_from_django(), **others})
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"SESSIOND: {error}. Options are written in capitals.") from None
    return target, ours, of_client


def _given() -> Mapping[Any, Any]:
    given = getattr(settings, "SESSIOND", {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured('SESSIOND: pass a dictionary, such as {"TARGET": "127.0.0.1:7443"}')
    return given


def _from_django() -> dict[str, Any]:
    """The options that Django has settings for."""
    login_url = str(settings.LOGIN_URL)
    return {
        "login_path": login_url if "/" in login_url else resolve_url(login_url),
        "csrf_header": HttpHeaders.parse_header_name(settings.CSRF_HEADER_NAME) or "X-CSRFToken",
        "csrf_field": "csrfmiddlewaretoken",
        "trusted_origins": [origin for origin in settings.CSRF_TRUSTED_ORIGINS if "*" not in origin],
    }


def refusal_view() -> Any:
    """The application's view for requests that are not served: the option `REFUSAL_VIEW`; None: there is none."""
    named = _given().get("REFUSAL_VIEW")
    return import_string(named) if isinstance(named, str) else named


class Project:
    """One Django project's use of sessions."""

    def __init__(self, target: str, ours: GatewaySettings, of_client: ClientOptions) -> None:
        application = of_client.get("application", "")
        codec = codec_of(import_string(settings.SESSION_SERIALIZER))
        self.gateway = Gateway(application, ours, codec=codec)
        # For sessions that are opened by their key, outside of requests, which is no activity of the user.
        self.gateway_by_key = Gateway(application, replace(ours, passive_paths=("/",)), codec=codec)
        self.gateway_by_key.recent = self.gateway.recent
        self.clients = ClientPerProcess(target, of_client)
        # gRPC has two kinds of interceptors, and neither serves the other kind of client.
        interceptors = _given().get("ASYNC_INTERCEPTORS", ())
        self.async_clients = ClientPerLoop(target, {**of_client, "interceptors": interceptors})


_projects: list[Project] = []


def project() -> Project:
    """The project that the settings describe. Raises `ImproperlyConfigured` if they are wrong."""
    if not _projects:
        _projects.append(Project(*options()))
    return _projects[-1]


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("SESSIOND", "LOGIN_URL", "CSRF_HEADER_NAME", "CSRF_TRUSTED_ORIGINS", "SESSION_SERIALIZER"):
        for old in _projects:
            old.clients.close()
        _projects.clear()


setting_changed.connect(_forget, dispatch_uid="sessiond")
