"""The application: in `INSTALLED_APPS` as `sessiond_client.contrib.django`."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register

__all__ = ["SessiondConfig"]


class SessiondConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """Connects logins with the authority, and registers the checks. It has no models."""

    name = "sessiond_client.contrib.django"
    label = "sessiond"
    verbose_name = "Sessions by sessiond"

    def ready(self) -> None:
        """Connect the signal of logins, the CSRF tokens of templates, and the checks of the settings."""
        from django.contrib.auth.signals import user_logged_in

        from sessiond_client.contrib.django import checks, csrf
        from sessiond_client.contrib.django.account import on_login

        user_logged_in.connect(on_login, dispatch_uid="sessiond")
        csrf.install()
        register(checks.check_settings, Tags.security)
